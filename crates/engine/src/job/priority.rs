//! Giving way: a job's threads take processor and disk only where nobody else wants them.
//!
//! On Linux both priorities belong to a thread, and a new thread has those of the one that started it (setpriority(2),
//! "C library/kernel differences"; ioprio_set(2)). So a job runs in a thread of its own that gives way before it does
//! anything, and whoever asked for it goes on as before.

use std::io;

/// Of -20 to 19: what nice(1) takes without being told.
const NICE: i32 = 10;
/// Which kind of who: a thread. include/uapi/linux/ioprio.h.
const IOPRIO_WHO_PROCESS: libc::c_int = 1;
/// Best effort, in the last of its eight levels. The idle class would let a busy disk stop a backup altogether.
const IOPRIO_LAST_OF_BEST_EFFORT: libc::c_int = 2 << 13 | 7;

/// Runs the work in a thread that gives way, if it shall.
pub fn run<T: Send>(gives_way: bool, work: impl FnOnce() -> T + Send) -> T {
    if !gives_way {
        return work();
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("job".to_owned());
        let started = thread.spawn_scoped(scope, || {
            // Without it the job is done all the same.
            let _ = give_way();
            work()
        });
        match started.expect("the system gives a thread").join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Lowers the priorities of this thread. They cannot be raised again without privileges.
fn give_way() -> io::Result<()> {
    // SAFETY: plain numbers; 0 is the calling thread.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    let done = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_LAST_OF_BEST_EFFORT) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn priorities() -> (i32, libc::c_long) {
        // SAFETY: plain numbers; 0 is the calling thread.
        unsafe {
            (libc::getpriority(libc::PRIO_PROCESS, 0), libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0))
        }
    }

    #[test]
    fn a_job_and_the_threads_it_starts_give_way_and_the_caller_does_not() {
        let before = priorities();
        let of_a_thread = run(true, || std::thread::spawn(priorities).join().unwrap());
        assert!(of_a_thread.0 >= NICE, "{of_a_thread:?}");
        assert_eq!(of_a_thread.1, libc::c_long::from(IOPRIO_LAST_OF_BEST_EFFORT));
        assert_eq!(priorities(), before);
        assert_eq!(run(false, priorities), before);
    }
}
