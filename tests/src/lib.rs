//! The lanes: tests that drive the real parts.
