//! Doing something in a process of its own, with a copy of all that this one has.

/// Does it, and tells whether it came to its end without a panic.
pub(crate) fn forked(work: impl FnOnce()) -> bool {
    let child = fork(work);
    let mut status = 0;
    // SAFETY: it is our child, and was not waited for yet.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    waited == child && status == 0
}

/// Does it until it is killed before its n-th system call, counted from zero; tells whether it was.
pub(crate) fn killed_before_call(n: u32, work: impl FnOnce()) -> bool {
    let child = fork(|| {
        // SAFETY: it asks for this process to be traced by the one that waits for it below.
        assert_eq!(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) }, 0, "this process cannot be traced");
        // SAFETY: it stops this process, until the one that traces it lets it go on.
        unsafe { libc::raise(libc::SIGSTOP) };
        work();
    });
    assert!(wait(child).is_some(), "the child did not stop");
    // Each call stops the child twice: before it, and after it.
    for _ in 0..=2 * n {
        // SAFETY: it is our child, and stopped.
        let went_on = unsafe { libc::ptrace(libc::PTRACE_SYSCALL, child, 0, 0) };
        assert_eq!(went_on, 0, "{}", std::io::Error::last_os_error());
        if wait(child).is_none() {
            return false;
        }
    }
    // SAFETY: it is our child, and was not waited for yet, so that the number is still its own. A call it is stopped
    // before is not made any more.
    unsafe { libc::kill(child, libc::SIGKILL) };
    assert!(wait(child).is_none());
    true
}

/// Waits for it to stop or to end, and gives the signal it stopped by.
fn wait(child: libc::pid_t) -> Option<i32> {
    let mut status = 0;
    // SAFETY: it is our child, and was not waited for to its end yet.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    libc::WIFSTOPPED(status).then(|| libc::WSTOPSIG(status))
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
