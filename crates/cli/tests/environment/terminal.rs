//! A real terminal: whoever runs on it has it as standard input and output and as its controlling terminal.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// The user's side of it.
pub struct Terminal {
    master: Option<Arc<OwnedFd>>,
    shown: Arc<Mutex<String>>,
    /// The session's leader.
    pub child: Child,
}

impl Terminal {
    /// Runs a command in a new session on a new terminal, as a login does.
    pub fn run(command: &Command) -> Terminal {
        let master = Arc::new(openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap());
        grantpt(&*master).unwrap();
        unlockpt(&*master).unwrap();
        let name = ptsname(&*master, Vec::new()).unwrap();
        let slave = || -> Stdio {
            rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap().into()
        };
        let mut session = Command::new("setsid");
        session.arg("--ctty").arg(command.get_program()).args(command.get_args());
        session.env_clear().env("PATH", "/usr/bin:/bin").env("TERM", "dumb");
        session.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        session.stdin(slave()).stdout(slave()).stderr(slave());
        if let Some(directory) = command.get_current_dir() {
            session.current_dir(directory);
        }
        let child = session.spawn().expect("setsid is needed for this test");
        let shown: Arc<Mutex<String>> = Arc::default();
        let (screen, reader) = (Arc::clone(&shown), Arc::downgrade(&master));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Only as long as somebody sits there: a descriptor that is kept open would keep the terminal alive.
            while let Some(master) = reader.upgrade() {
                let mut waited_for = [rustix::event::PollFd::new(&*master, rustix::event::PollFlags::IN)];
                let step = rustix::event::Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
                match rustix::event::poll(&mut waited_for, Some(&step)) {
                    Ok(0) => {}
                    _ => match rustix::io::read(&*master, &mut bytes) {
                        Ok(count @ 1..) => {
                            screen.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
                        }
                        _ => break,
                    },
                }
            }
        });
        Terminal { master: Some(master), shown, child }
    }

    /// Types.
    pub fn types(&self, text: &str) {
        let master = self.master.as_ref().unwrap();
        File::from(master.as_fd().try_clone_to_owned().unwrap()).write_all(text.as_bytes()).unwrap();
    }

    /// Waits until something is shown.
    #[track_caller]
    pub fn shows(&self, text: &str) {
        let until = Instant::now() + Duration::from_secs(20);
        while !self.screen().contains(text) {
            assert!(Instant::now() < until, "{text:?} is not shown: {}", self.screen());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// All that was shown.
    pub fn screen(&self) -> String {
        self.shown.lock().unwrap().clone()
    }

    /// Makes the window another size.
    pub fn resize(&self, columns: u16) {
        let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&**self.master.as_ref().unwrap(), size).unwrap();
    }

    /// The connection breaks: the terminal is gone for whoever runs on it.
    pub fn hang_up(&mut self) {
        let master = Arc::into_inner(self.master.take().unwrap());
        // The reader holds it for a moment at a time.
        drop(master);
    }

    /// Waits for the end; the exit code.
    pub fn ends(&mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
