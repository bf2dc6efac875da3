//! How far a job is: a bar on a terminal, plain lines in a pipe, nothing when asked to be quiet.

use banger_dbus::model::Bytes;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

/// Plain lines of one phase are this far apart.
const APART: Duration = Duration::from_secs(5);

/// A bar's movement when a phase counts nothing.
const TICK: Duration = Duration::from_millis(120);

/// Where a job is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Step {
    /// The word for the phase, as it travels.
    pub phase: String,
    /// How much of it is done.
    pub done: u64,
    /// How much it has; 0 if it counts nothing.
    pub total: u64,
    /// Files, directories and links written into an image so far.
    pub entries: u64,
}

impl Step {
    /// What the phase is, to a person.
    fn words(&self) -> &str {
        match self.phase.as_str() {
            "queued" => "waiting for its turn",
            "resolving" => "asking the registry",
            "verifying" => "checking signatures",
            "pulling" => "pulling",
            "copying" => "copying",
            "writing" => "writing the filesystem",
            "publishing" => "publishing",
            "importing" => "importing",
            "unpacking" => "unpacking",
            "initramfs" => "making the initramfs",
            "disk" => "making the disk",
            "starting" => "starting",
            "booting" => "booting",
            "stopping" => "stopping",
            "exporting" => "exporting",
            "removing" => "removing",
            other => other,
        }
    }

    fn counts_bytes(&self) -> bool {
        matches!(
            self.phase.as_str(),
            "pulling" | "importing" | "unpacking" | "copying" | "disk" | "exporting"
        )
    }

    /// The step as part of a line: `pulling 45 MiB of 180 MiB (25%)`.
    pub fn line(&self) -> String {
        let amount = |n| if self.counts_bytes() { Bytes(n).to_string() } else { n.to_string() };
        match (self.done, self.total) {
            (0, 0) => self.words().to_owned(),
            (done, 0) => format!("{} {}", self.words(), amount(done)),
            (done, total) => {
                let percent = (u128::from(done.min(total)) * 100) / u128::from(total);
                let counted = format!("{} {} of {} ({percent}%)", self.words(), amount(done), amount(total));
                counted + &self.written()
            }
        }
    }

    /// What the phase has written into an image, as the end of a line.
    fn written(&self) -> String {
        match (self.phase.as_str(), self.entries) {
            ("pulling" | "unpacking", 1) => ", 1 file".to_owned(),
            ("pulling" | "unpacking", files @ 2..) => format!(", {files} files"),
            _ => String::new(),
        }
    }
}

/// Shows how far a job is, on standard error.
pub enum Progress {
    /// Not at all.
    Quiet,
    /// In lines.
    Lines(Lines),
    /// With a bar per phase.
    Bars(Bars),
}

impl Progress {
    /// The way that fits standard error. `subject` is what the job works on; a `passing` display leaves nothing behind.
    pub fn new(quiet: bool, subject: &str, passing: bool) -> Self {
        // Also hidden on a terminal that cannot move its cursor (TERM=dumb): lines suit it.
        match (quiet, ProgressDrawTarget::stderr().is_hidden()) {
            (true, _) => Progress::Quiet,
            (false, false) => Progress::Bars(Bars::new(subject, passing)),
            (false, true) => Progress::Lines(Lines::new(subject)),
        }
    }

    /// Shows a step.
    pub fn show(&mut self, step: &Step) {
        match self {
            Progress::Quiet => {}
            Progress::Lines(lines) => {
                if let Some(line) = lines.next(step, Instant::now()) {
                    note(&line);
                }
            }
            Progress::Bars(bars) => bars.show(step),
        }
    }

    /// Ends the display.
    pub fn finish(self) {
        if let Progress::Bars(bars) = self {
            bars.finish();
        }
    }
}

/// Writes a line to standard error. Nobody there to read it is no failure of the work.
pub fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// A line for each change of phase, and now and then one in between.
pub struct Lines {
    subject: String,
    last: Option<(String, Instant)>,
}

impl Lines {
    /// Lines that begin with `subject`.
    pub fn new(subject: &str) -> Self {
        Self { subject: subject.to_owned(), last: None }
    }

    /// The line to print for `step` at `now`, if it is time for one.
    pub fn next(&mut self, step: &Step, now: Instant) -> Option<String> {
        if matches!(step.phase.as_str(), "" | "finished") {
            return None;
        }
        if let Some((phase, at)) = &self.last {
            let same = *phase == step.phase;
            if same && (step.total == 0 || now.saturating_duration_since(*at) < APART) {
                return None;
            }
        }
        self.last = Some((step.phase.clone(), now));
        let subject = if self.subject.is_empty() { "banger" } else { &self.subject };
        Some(format!("{subject}: {}", step.line()))
    }
}

/// A bar for each phase; the ones that are through stay above the present one.
pub struct Bars {
    subject: String,
    passing: bool,
    all: MultiProgress,
    bar: Option<(ProgressBar, Step)>,
}

impl Bars {
    fn new(subject: &str, passing: bool) -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        Self { subject: subject.to_owned(), passing, all, bar: None }
    }

    fn show(&mut self, step: &Step) {
        if matches!(step.phase.as_str(), "" | "finished") {
            return;
        }
        let fits = self
            .bar
            .as_ref()
            .is_some_and(|(_, shown)| shown.phase == step.phase && (shown.total == 0) == (step.total == 0));
        if !fits {
            self.close();
            let bar = self.all.add(ProgressBar::new(step.total));
            bar.set_style(style(step));
            match step.total > 0 && step.counts_bytes() {
                true => bar.set_prefix(format!("{}: {}", self.subject, step.words())),
                false => {
                    bar.set_prefix(self.subject.clone());
                    bar.set_message(step.words().to_owned());
                }
            }
            if step.total == 0 {
                bar.enable_steady_tick(TICK);
            }
            self.bar = Some((bar, step.clone()));
        }
        if let Some((bar, _)) = &self.bar {
            bar.set_length(step.total);
            bar.set_position(step.done);
            if step.total > 0 && step.counts_bytes() {
                bar.set_message(step.written());
            }
        }
    }

    /// Ends the present bar: a counted one stays to be seen, a spinner goes.
    fn close(&mut self) {
        if let Some((bar, step)) = self.bar.take() {
            match self.passing || step.total == 0 {
                true => bar.finish_and_clear(),
                false => bar.abandon(),
            }
        }
    }

    fn finish(mut self) {
        self.close();
    }
}

fn template(step: &Step) -> &'static str {
    match (step.total, step.counts_bytes()) {
        (0, _) => "{prefix}: {spinner} {msg} {elapsed}",
        (_, true) => {
            "{prefix} [{bar:30}] {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}{msg}"
        }
        (_, false) => "{prefix}: {msg} [{bar:30}] {pos} of {len}",
    }
}

fn style(step: &Step) -> ProgressStyle {
    ProgressStyle::with_template(template(step))
        // A test reads every template.
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn step(phase: &str, done: u64, total: u64) -> Step {
        Step { phase: phase.into(), done, total, entries: 0 }
    }

    #[test]
    fn a_step_reads_as_words() {
        for (step, line) in [
            (step("resolving", 0, 0), "asking the registry"),
            (step("pulling", 45 << 20, 180 << 20), "pulling 45 MiB of 180 MiB (25%)"),
            (step("starting", 2, 3), "starting 2 of 3 (66%)"),
            (step("importing", 4096, 0), "importing 4 KiB"),
            (step("something-new", 0, 0), "something-new"),
            (step("pulling", 9, 3), "pulling 9 B of 3 B (100%)"),
        ] {
            assert_eq!(step.line(), line);
        }
        for (entries, line) in
            [(1, "pulling 1 B of 4 B (25%), 1 file"), (51_000, "pulling 1 B of 4 B (25%), 51000 files")]
        {
            assert_eq!(Step { entries, ..step("pulling", 1, 4) }.line(), line);
            assert_eq!(Step { entries, ..step("writing", 0, 0) }.line(), "writing the filesystem");
        }
    }

    #[test]
    fn a_line_per_phase_and_now_and_then_one_between() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut lines = Lines::new("debian");
        assert_eq!(lines.next(&step("", 0, 0), at(0)), None);
        assert_eq!(lines.next(&step("pulling", 0, 100), at(0)).unwrap(), "debian: pulling 0 B of 100 B (0%)");
        assert_eq!(lines.next(&step("pulling", 10, 100), at(4)), None);
        assert!(lines.next(&step("pulling", 20, 100), at(5)).is_some());
        assert_eq!(lines.next(&step("pulling", 30, 100), at(9)), None);
        assert_eq!(lines.next(&step("writing", 0, 0), at(9)).unwrap(), "debian: writing the filesystem");
        assert_eq!(lines.next(&step("writing", 0, 0), at(99)), None, "nothing new to tell");
        assert_eq!(lines.next(&step("finished", 0, 0), at(100)), None);
    }

    #[test]
    fn every_template_is_one() {
        for step in [step("queued", 0, 0), step("pulling", 0, 1), step("starting", 0, 1)] {
            let parsed = ProgressStyle::with_template(template(&step));
            assert!(parsed.is_ok(), "{:?}", parsed.err());
        }
    }

    proptest! {
        #[test]
        fn any_step_is_a_line(phase in "[a-z-]{0,12}", done: u64, total: u64) {
            let line = step(&phase, done, total).line();
            prop_assert!(line.len() < 120 && !line.contains('\n'));
        }
    }
}
