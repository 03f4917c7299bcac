//! What one run of a program costs: wall time, processor time, peak memory.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::shell;

/// The cost of one process from its start to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// On the clock.
    pub(crate) wall: Duration,
    /// User and system time of all threads.
    pub(crate) processor: Duration,
    /// The largest resident set, in bytes. Linux counts what the process had before exec too, that is ours: this
    /// program must stay small, so it writes its data in pieces.
    pub(crate) peak_bytes: u64,
}

/// Runs a command to its end. An error unless it ended well.
pub(crate) fn measure(command: &mut Command) -> Result<Cost> {
    let start = Instant::now();
    let child = command.spawn().with_context(|| format!("running {}", shell::line(command)))?;
    let mut status = 0;
    // SAFETY: rusage is plain numbers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to variables that outlive the call; the child is ours, and `Child` does not reap it
    // unless asked to.
    let waited = unsafe { libc::wait4(child.id().cast_signed(), &mut status, 0, &mut usage) };
    let wall = start.elapsed();
    if waited < 0 {
        return Err(std::io::Error::last_os_error()).with_context(|| format!("waiting for {}", shell::line(command)));
    }
    if !libc::WIFEXITED(status) || libc::WEXITSTATUS(status) != 0 {
        bail!("{} failed: wait status {status:#x}", shell::line(command));
    }
    let duration = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    Ok(Cost {
        wall,
        processor: duration(usage.ru_utime) + duration(usage.ru_stime),
        peak_bytes: usage.ru_maxrss.unsigned_abs() * 1024,
    })
}

/// Writes everything out that is still only in memory, so that nobody pays for what another wrote.
pub(crate) fn sync() {
    // SAFETY: sync takes nothing and cannot fail.
    unsafe { libc::sync() }
}
