//! Holds the services at moments between the steps of their plans.

use std::{
    fs::{self, Permissions},
    io::{BufRead, BufReader, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Where the services look for somebody who wants to know; only root makes anything there.
const SOCKET: &str = "/run/banger/faults.sock";

/// A moment that a service has come to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// `plan/step/before`, or `hostd/verb/before`.
    pub point: String,
    /// The VM's id; empty where it is not about one.
    pub vm: String,
}

/// A service that waits at a moment, until this is dropped.
pub struct Caught {
    /// The moment.
    pub moment: Moment,
    _hold: UnixStream,
}

type Wanted = Box<dyn FnMut(&Moment) -> bool + Send>;

/// Listens to the services.
pub struct Catcher {
    wanted: Arc<Mutex<Wanted>>,
    caught: Receiver<Caught>,
    listener: Option<JoinHandle<()>>,
}

impl Catcher {
    /// From now on every moment is told.
    pub fn start() -> Catcher {
        let listener = UnixListener::bind(SOCKET).unwrap();
        fs::set_permissions(SOCKET, Permissions::from_mode(0o666)).unwrap();
        let wanted: Arc<Mutex<Wanted>> = Arc::new(Mutex::new(Box::new(|_| false)));
        let (sender, caught) = channel();
        let asked = wanted.clone();
        let listener = thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut line = String::new();
                // One that is killed while it speaks says nothing.
                let _ = BufReader::new(&stream).read_line(&mut line);
                let Some((point, vm)) = line.trim_end_matches('\n').split_once(' ') else { continue };
                if point == END {
                    return;
                }
                let moment = Moment { point: point.to_owned(), vm: vm.to_owned() };
                if (asked.lock().unwrap())(&moment) {
                    let _ = sender.send(Caught { moment, _hold: stream });
                }
            }
        });
        Catcher { wanted, caught, listener: Some(listener) }
    }

    /// At which moments the services wait from now on.
    pub fn want(&self, wanted: impl FnMut(&Moment) -> bool + Send + 'static) {
        *self.wanted.lock().unwrap() = Box::new(wanted);
    }

    /// The next that waits.
    ///
    /// # Panics
    /// When none comes within two minutes.
    #[track_caller]
    pub fn next(&self) -> Caught {
        self.next_within(Duration::from_secs(120)).expect("a service comes to a moment that is waited for")
    }

    /// The next that waits, if one comes in time.
    pub fn next_within(&self, limit: Duration) -> Option<Caught> {
        match self.caught.recv_timeout(limit) {
            Ok(caught) => Some(caught),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("nobody listens"),
        }
    }
}

/// What the listener is told by its owner, in the end.
const END: &str = "end";

impl Drop for Catcher {
    fn drop(&mut self) {
        // The services find nobody from here on; those that wait go on with the last descriptor.
        if let Ok(mut stream) = UnixStream::connect(SOCKET) {
            let _ = writeln!(stream, "{END} ");
        }
        let _ = fs::remove_file(SOCKET);
        let _ = self.listener.take().map(JoinHandle::join);
    }
}
