//! Questions with yes or no, where there is somebody to ask.

use std::io::{self, BufRead as _, IsTerminal as _};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::output::Output;

/// How soon it is seen that the question no longer matters.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// What was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Yes,
    No,
    /// There is no terminal, or it is gone.
    Nobody,
}

/// Asks on the terminal; only a clear yes is one.
pub(crate) fn yes_or_no(question: &str, output: &Output) -> Answer {
    yes_or_no_until(question, output, &mut || false)
}

/// As [`yes_or_no`], until an answer is no longer wanted, which then is a no.
pub(crate) fn yes_or_no_until(question: &str, output: &Output, is_over: &mut dyn FnMut() -> bool) -> Answer {
    if output.json || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Answer::Nobody;
    }
    output.status.prompt(&format!("{question} [y/N] "));
    loop {
        let stdin = io::stdin();
        let mut waited_for = [PollFd::new(&stdin, PollFlags::IN)];
        match poll(&mut waited_for, Some(&LOOK_EVERY)) {
            Ok(0) | Err(rustix::io::Errno::INTR) if is_over() => {
                output.status.prompt("\n");
                return Answer::No;
            }
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => break,
            Err(_) => return Answer::Nobody,
        }
    }
    let mut line = String::new();
    match io::stdin().lock().read_line(&mut line) {
        // The end of input is no answer, and neither is an error: the line was cut.
        Ok(0) | Err(_) => Answer::Nobody,
        Ok(_) if matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes") => Answer::Yes,
        Ok(_) => Answer::No,
    }
}
