//! Starting a program in the guest, exactly as asked.

use crate::{ioctl, session, users::User};
use banger_guest::wire::{ExecFailure, ExecSpec, Step, pack, unpack};
use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        stat::{Mode, umask},
    },
    unistd::{self, Gid, Pid, Uid},
};
use std::{
    ffi::{CStr, CString},
    fs::{self, File},
    io::{ErrorKind, Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

/// `PATH` where nothing else is said.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How many descriptors a program may have unless it asks for more: what select(2) can bear.
pub const DESCRIPTORS: u64 = 1024;

/// A program that is about to be started. Making it allocates and may fail; starting it does neither much.
pub struct Program {
    argv: Vec<CString>,
    env: Vec<CString>,
    /// Where it may be, in the order of trying.
    candidates: Vec<CString>,
    cwd: CString,
    user: User,
}

/// What a program finds as descriptors 0, 1 and 2.
pub enum Stdio {
    /// A terminal, which becomes the controlling one.
    Terminal(OwnedFd),
    /// Input, output and errors.
    Files([OwnedFd; 3]),
}

/// A process that was started, and will have become the program, or say why not.
pub struct Starting {
    pub pid: Pid,
    /// The session of its terminal, which lasts until this is dropped.
    pub session: Option<OwnedFd>,
    report: File,
}

impl Program {
    /// The program that `spec` describes, run as `user`.
    pub fn new(spec: &ExecSpec, user: User) -> Result<Self, ExecFailure> {
        spec.check().map_err(|_| ExecFailure::Invalid)?;
        let c = |s: &str| CString::new(s).map_err(|_| ExecFailure::Invalid);
        let mut env = vec![
            ("PATH", PATH),
            ("HOME", user.home.as_str()),
            ("USER", user.name.as_str()),
            ("LOGNAME", user.name.as_str()),
        ];
        if spec.tty.is_some() {
            env.push(("TERM", "xterm"));
        }
        for (name, value) in spec.env.iter().filter_map(|e| e.split_once('=')) {
            match env.iter_mut().find(|(n, _)| *n == name) {
                Some(entry) => entry.1 = value,
                None => env.push((name, value)),
            }
        }
        let program = spec.argv.first().ok_or(ExecFailure::Invalid)?;
        let candidates = if program.contains('/') {
            vec![c(program)?]
        } else {
            let path = env.iter().find(|(name, _)| *name == "PATH").map_or(PATH, |(_, value)| value);
            // An empty entry is the working folder (execvp(3)).
            let within = |folder: &str| if folder.is_empty() { "." } else { folder }.to_owned();
            path.split(':')
                .map(|folder| c(&format!("{}/{program}", within(folder))))
                .collect::<Result<_, _>>()?
        };
        Ok(Self {
            argv: spec.argv.iter().map(|a| c(a)).collect::<Result<_, _>>()?,
            env: env.iter().map(|(name, value)| c(&format!("{name}={value}"))).collect::<Result<_, _>>()?,
            candidates,
            cwd: c(spec.cwd.as_deref().unwrap_or("/"))?,
            user,
        })
    }

    /// Whom it runs as.
    pub fn user(&self) -> &User {
        &self.user
    }

    /// Starts a process that becomes the program, in a session and a process group of its own.
    pub fn start(&self, stdio: Stdio) -> Result<Starting, ExecFailure> {
        let pipe = unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK);
        let (report, writer) = pipe.map_err(|e| ExecFailure::System(Step::Pipe, e as i32))?;
        let failed = |e: std::io::Error| ExecFailure::System(Step::Fork, e.raw_os_error().unwrap_or(0));
        let (pid, session) = match &stdio {
            Stdio::Files(_) => (ioctl::fork().map_err(failed)?, None),
            Stdio::Terminal(terminal) => session::fork(terminal)?.map(|b| (b.pid, b.session)).unzip(),
        };
        if let Some(pid) = pid {
            return Ok(Starting { pid, session, report: File::from(report) });
        }
        let failure = self.prepare(&stdio).map_or_else(|failure| failure, |()| self.execute());
        let _ = File::from(writer).write_all(&pack(&failure).unwrap_or_default());
        ioctl::exit_now(127)
    }

    /// In the new process: sets everything up for the program.
    fn prepare(&self, stdio: &Stdio) -> Result<(), ExecFailure> {
        let at = |step| move |e: Errno| ExecFailure::System(step, e as i32);
        let [input, output, errors] = match stdio {
            Stdio::Files(files) => {
                unistd::setsid().map_err(at(Step::Setup))?;
                files.each_ref()
            }
            Stdio::Terminal(terminal) => {
                session::come_forward(terminal)?;
                [terminal; 3]
            }
        };
        unistd::dup2_stdin(input).map_err(at(Step::Setup))?;
        unistd::dup2_stdout(output).map_err(at(Step::Setup))?;
        unistd::dup2_stderr(errors).map_err(at(Step::Setup))?;
        umask(Mode::from_bits_truncate(0o022));
        ioctl::default_signals();
        ioctl::keep_descriptors_back();
        allow_descriptors(DESCRIPTORS);
        // The agent is the last that the kernel should end for want of memory; the program is not.
        let _ = fs::write("/proc/self/oom_score_adj", "0");
        self.become_user().map_err(at(Step::User))?;
        unistd::chdir(self.cwd.as_c_str()).map_err(|e| ExecFailure::WorkingDirectory(e as i32))
    }

    fn become_user(&self) -> Result<(), Errno> {
        let (uid, gid) = (Uid::from_raw(self.user.uid), Gid::from_raw(self.user.gid));
        // Outside a guest the agent may run as somebody who cannot change groups, and need not.
        if !unistd::geteuid().is_root() && unistd::geteuid() == uid && unistd::getegid() == gid {
            return Ok(());
        }
        let groups: Vec<Gid> = self.user.groups.iter().copied().map(Gid::from_raw).collect();
        unistd::setgroups(&groups)?;
        unistd::setresgid(gid, gid, gid)?;
        unistd::setresuid(uid, uid, uid)
    }

    /// Becomes the program; comes back only with what failed. Tries the candidates as execvp(3) does: what is not there or not allowed is passed over, and the
    /// worst that was met is told in the end.
    fn execute(&self) -> ExecFailure {
        let mut failure = ExecFailure::NotFound;
        for candidate in &self.candidates {
            let Err(errno) = unistd::execve(candidate, &self.argv, &self.env);
            match errno {
                // Also said of a script whose interpreter, or a program whose loader, is missing.
                Errno::ENOENT if exists(candidate) => return ExecFailure::NotExecutable(errno as i32),
                Errno::ENOENT | Errno::ENOTDIR => {}
                Errno::EACCES => failure = ExecFailure::NotExecutable(errno as i32),
                Errno::E2BIG | Errno::ENOMEM | Errno::EAGAIN => {
                    return ExecFailure::System(Step::Setup, errno as i32);
                }
                _ => return ExecFailure::NotExecutable(errno as i32),
            }
        }
        failure
    }
}

/// Sets how many descriptors this process may have, as far as that is allowed.
pub fn allow_descriptors(count: u64) {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, count.min(most), most);
    }
}

fn exists(path: &CStr) -> bool {
    path.to_str().is_ok_and(|path| Path::new(path).exists())
}

impl Starting {
    /// Readable when [`Starting::outcome`] knows.
    pub fn report(&self) -> BorrowedFd<'_> {
        self.report.as_fd()
    }

    /// Whether the process became the program; `None` when that is not decided yet.
    pub fn outcome(&mut self) -> Option<Result<(), ExecFailure>> {
        let mut bytes = [0; 64];
        match self.report.read(&mut bytes) {
            // The program's start closed the pipe.
            Ok(0) => Some(Ok(())),
            Ok(n) => Some(Err(unpack(&bytes[..n]).unwrap_or(ExecFailure::System(Step::Setup, 0)))),
            Err(e) if e.kind() == ErrorKind::WouldBlock => None,
            Err(e) => Some(Err(ExecFailure::System(Step::Pipe, e.raw_os_error().unwrap_or(0)))),
        }
    }
}
