//! Keeps the host's resolver told: on a thread of its own, for as long as whoever asked for it lives.
//!
//! What is wanted is remembered here, and told again when the resolver or the bridge has been started anew. A verb
//! only says what is wanted, so no VM waits for a resolver that hangs.

mod links;
mod task;

use banger_host::NameRouting;
use banger_systemd::resolved::Route;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// The keeper.
#[derive(Debug)]
pub struct Resolver {
    words: UnboundedSender<Word>,
    state: Arc<State>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread is told.
#[derive(Debug)]
enum Word {
    /// To tell the resolver this.
    Route(Wanted),
    /// To end.
    End,
}

/// What a resolver is to be told, until the other end of the pipe is closed.
#[derive(Debug)]
struct Wanted {
    route: Route,
    owner: OwnedFd,
}

/// How it is, for who asks.
#[derive(Debug)]
struct State(Mutex<(NameRouting, String)>);

impl State {
    fn lock(&self) -> MutexGuard<'_, (NameRouting, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, routing: NameRouting, message: impl Into<String>) {
        let message = message.into();
        let mut now = self.lock();
        if *now != (routing, message.clone()) {
            tracing::info!(?routing, message, "names");
            *now = (routing, message);
        }
    }
}

impl Resolver {
    /// Begins to watch, with nothing to tell.
    ///
    /// # Errors
    /// When there is no thread, or no socket, for it.
    pub fn start() -> io::Result<Self> {
        let (words, heard) = unbounded_channel();
        let state = Arc::new(State(Mutex::new((NameRouting::Off, String::new()))));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let links = {
            let _inside = runtime.enter();
            links::Links::watch()?
        };
        let shown = Arc::clone(&state);
        let thread = std::thread::Builder::new()
            .name("resolver".into())
            .spawn(move || runtime.block_on(task::keep(heard, links, shown)))?;
        Ok(Self { words, state, thread: Mutex::new(Some(thread)) })
    }

    /// Tells the resolver this from now on, instead of what it was told before, until the other end of `owner` is
    /// closed.
    pub fn route(&self, route: Route, owner: OwnedFd) {
        // The thread ends after this one alone.
        let _ = self.words.send(Word::Route(Wanted { route, owner }));
    }

    /// How it is, and why in words.
    pub fn state(&self) -> (NameRouting, String) {
        self.state.lock().clone()
    }

    /// Takes back what was told, and ends.
    pub fn stop(&self) {
        let _ = self.words.send(Word::End);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = thread.map(JoinHandle::join);
    }
}
