//! Ctrl-C, `kill` and a terminal that closes: the first asks the run to end at its next step, so that it leaves no lock; the second ends it
//! at once.

use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

struct Asked {
    to_end: Arc<AtomicBool>,
    by: Arc<AtomicUsize>,
}

static ASKED: OnceLock<Asked> = OnceLock::new();

/// The signals that ask. One that whoever started us had ignored (`nohup`, or a shell's `&`) stays ignored.
fn asking() -> impl Iterator<Item = i32> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // A bit for each signal, from 1 on: proc_pid_status(5).
    let ignored = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    [SIGINT, SIGTERM, SIGHUP].into_iter().filter(move |signal| ignored >> (signal - 1) & 1 == 0)
}

/// From here on a signal asks instead of killing. Called once something could be left behind.
pub(crate) fn watch() {
    watch_for(asking());
}

fn watch_for(signals: impl Iterator<Item = i32>) {
    ASKED.get_or_init(|| {
        let asked = Asked { to_end: Arc::default(), by: Arc::default() };
        for signal in signals {
            // In this order: the first signal finds the flag still down, and the second one finds it up.
            let registered = flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&asked.to_end))
                .and_then(|_| flag::register_usize(signal, Arc::clone(&asked.by), signal as usize))
                .and_then(|_| flag::register(signal, Arc::clone(&asked.to_end)));
            // Without a handler the signal kills, and the lock goes stale: nothing worse.
            drop(registered);
        }
        asked
    });
}

/// For a service, before anything else watches: a byte can be read from the first for each signal that asks to end, and
/// from the second for each SIGHUP, which asks for something else here.
pub(crate) fn of_a_service() -> io::Result<(UnixStream, UnixStream)> {
    let ends = |signal: &i32| *signal != SIGHUP;
    watch_for(asking().filter(ends));
    let (end, asked_to_end) = UnixStream::pair()?;
    for signal in asking().filter(ends) {
        signal_hook::low_level::pipe::register(signal, asked_to_end.try_clone()?)?;
    }
    let (hangup, hung_up) = UnixStream::pair()?;
    signal_hook::low_level::pipe::register(SIGHUP, hung_up)?;
    Ok((end, hangup))
}

/// Waits until the run should end. Once; for a command that has nothing else to do.
pub(crate) fn wait() {
    let Ok((mut read, write)) = UnixStream::pair() else { return };
    for signal in asking() {
        // Without it the second signal still ends everything.
        let _ = write.try_clone().and_then(|write| signal_hook::low_level::pipe::register(signal, write));
    }
    watch();
    // It came before we listened.
    if !is_cancelled() {
        let _ = read.read(&mut [0]);
    }
}

/// Whether the run should end.
pub(crate) fn is_cancelled() -> bool {
    ASKED.get().is_some_and(|asked| asked.to_end.load(Ordering::Relaxed))
}

/// An error if the run should end. Between the steps of a command.
pub(crate) fn check() -> Result<(), repository::Error> {
    if is_cancelled() { Err(repository::Error::Cancelled) } else { Ok(()) }
}

/// 128 and the signal's number, as shells have it: 130 for Ctrl-C.
pub(crate) fn exit_code() -> u8 {
    let signal = ASKED.get().map_or(0, |asked| asked.by.load(Ordering::Relaxed));
    u8::try_from(128 + if signal == 0 { SIGINT as usize } else { signal }).unwrap_or(130)
}
