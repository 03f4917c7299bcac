//! Runs the guarded command as if the guard were not there: the same terminal, the same foreground process group, every
//! signal reaches it, and its end is ours.
//!
//! What the terminal sends (Ctrl-C, Ctrl-\, Ctrl-Z, a new size) the kernel gives to the whole group, so the command has
//! it already; what somebody sends to the guard alone is passed on. Ctrl-Z stops both, as job control expects. That the
//! terminal is gone the kernel tells the session's leader alone, which may be the guard: it is always passed on.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::Cause;

/// These would end the guard; while it is there they do not.
const SIGNALS: [i32; 6] = [SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2];

/// Survives the signals that end others, and passes them on to a command while one runs.
pub struct Signals {
    child: Arc<Mutex<Option<Pid>>>,
    received: Arc<AtomicI32>,
}

impl Signals {
    /// From here on the process survives them, to its end.
    pub fn survive() -> io::Result<Signals> {
        let child: Arc<Mutex<Option<Pid>>> = Arc::default();
        let mut signals = SignalsInfo::<WithOrigin>::new(SIGNALS)?;
        let received: Arc<AtomicI32> = Arc::default();
        let (receiver, last) = (Arc::clone(&child), Arc::clone(&received));
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for origin in signals.forever() {
                let pid = receiver.lock().unwrap_or_else(PoisonError::into_inner);
                if pid.is_none() {
                    last.store(origin.signal, Ordering::Relaxed);
                }
                let is_ours_alone = origin.signal == SIGHUP || !matches!(origin.cause, Cause::Kernel);
                if let (Some(pid), Some(signal), true) = (*pid, Signal::from_named_raw(origin.signal), is_ours_alone) {
                    // It may have ended just now.
                    let _ = kill_process(pid, signal);
                }
            }
        })?;
        Ok(Signals { child, received })
    }

    /// The last signal that came while no command ran.
    pub fn received(&self) -> Option<i32> {
        Some(self.received.load(Ordering::Relaxed)).filter(|signal| *signal != 0)
    }

    /// Whether one came, for whoever asks from elsewhere.
    pub fn watch(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let received = Arc::clone(&self.received);
        move || received.load(Ordering::Relaxed) != 0
    }

    /// Runs a command to its end.
    pub fn run(&self, command: &mut Command) -> io::Result<ExitStatus> {
        let mut child = {
            // A signal that comes while it is being started is passed on once its number is known.
            let mut pid = self.child.lock().unwrap_or_else(PoisonError::into_inner);
            let child = command.spawn()?;
            *pid = Some(Pid::from_child(&child));
            child
        };
        wait_without_reaping(&child);
        // Its number may go to another process as soon as it is waited for: nobody may signal it then.
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = None;
        child.wait()
    }
}

fn wait_without_reaping(child: &Child) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(Pid::from_child(child)), options) {}
}

/// As shells have it: the exit code, or 128 and the signal's number.
pub fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(1)
}
