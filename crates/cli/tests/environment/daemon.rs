//! `snapback serve` as a service manager runs it: in the foreground, with its lines read as they come.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Much longer than anything here takes.
const AT_MOST: Duration = Duration::from_secs(60);

/// A running daemon; killed when dropped.
pub struct Daemon {
    child: Child,
    lines: Receiver<String>,
    /// All that it said until now.
    pub said: Vec<String>,
}

impl Daemon {
    pub fn start(mut command: Command) -> Daemon {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Daemon { child, lines, said: Vec::new() }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line that contains the text, and gives it.
    #[track_caller]
    pub fn says(&mut self, text: &str) -> String {
        let until = Instant::now() + AT_MOST;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.said.push(line);
                    if let Some(line) = self.said.last().filter(|line| line.contains(text)) {
                        return line.clone();
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("never said {text:?}: {:#?}", self.said),
                Err(RecvTimeoutError::Disconnected) => panic!("ended without saying {text:?}: {:#?}", self.said),
            }
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end, and gives its exit code; -1 if a signal killed it.
    pub fn ends(&mut self) -> i32 {
        let status = self.child.wait().unwrap();
        self.said.extend(self.lines.iter());
        status.code().unwrap_or(-1)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.ends();
    }

    /// Asks it to end, and waits until it has.
    #[track_caller]
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.ends(), 0, "{:#?}", self.said);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
