//! Doing something in a process of its own, with a copy of all that this one has.

use std::time::Duration;

/// Does it, and tells whether it came to its end without a panic.
pub(crate) fn forked(work: impl FnOnce()) -> bool {
    let child = fork(work);
    let mut status = 0;
    // SAFETY: it is our child, and was not waited for yet.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    waited == child && status == 0
}

/// Does it until it is killed.
pub(crate) fn killed_after(delay: Duration, work: impl FnOnce()) {
    let child = fork(work);
    std::thread::sleep(delay);
    // SAFETY: it is our child, and was not waited for yet, so that the number is still its own.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, std::ptr::null_mut(), 0);
    }
}

fn fork(work: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the child calls nothing that depends on the threads it lost: what it does is system calls, and memory,
    // which the C library keeps usable in it.
    match unsafe { libc::fork() } {
        0 => {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            // SAFETY: it ends the process, and nothing else.
            unsafe { libc::_exit(done.is_err().into()) }
        }
        child => {
            assert!(child > 0, "fork failed");
            child
        }
    }
}
