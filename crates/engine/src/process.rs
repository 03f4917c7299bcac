//! Which process is meant: its number is given to another one day, its number and start time within a boot are not.

use std::path::{Path, PathBuf};

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use snapshot::error::Error;

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// When it began, in clock ticks since the boot: field 22 of proc_pid_stat(5).
    pub start: u64,
    /// Of which boot.
    pub boot: String,
}

impl Process {
    /// This one.
    pub fn current() -> Result<Process, Error> {
        Process::of(rustix::process::getpid().as_raw_pid())
    }

    /// The one that started this one.
    pub fn parent() -> Result<Process, Error> {
        Process::of(rustix::process::getppid().map_or(0, Pid::as_raw_pid))
    }

    /// The one with this number now.
    pub fn of(pid: i32) -> Result<Process, Error> {
        let path = stat_path(pid);
        let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let stat =
            Stat::parse(&text).ok_or_else(|| Error::refused(format!("{} is not as proc(5) says", path.display())))?;
        Ok(Process { pid, start: stat.start, boot: boot_id()? })
    }

    /// Whether it still runs. One that has ended and whom nobody waited for does not.
    pub fn is_alive(&self) -> bool {
        let is_this_boot = boot_id().is_ok_and(|boot| boot == self.boot);
        let text = std::fs::read_to_string(stat_path(self.pid)).unwrap_or_default();
        let is_it = |stat: Stat| stat.start == self.start && !matches!(stat.state, b'Z' | b'X');
        is_this_boot && Stat::parse(&text).is_some_and(is_it)
    }
}

/// Which boot this is.
pub fn boot_id() -> Result<String, Error> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    Ok(text.trim().to_owned())
}

fn stat_path(pid: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/stat"))
}

struct Stat {
    state: u8,
    start: u64,
}

impl Stat {
    /// The second field is the program's name in parentheses, which may hold anything, parentheses too.
    fn parse(text: &str) -> Option<Stat> {
        let (_, rest) = text.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        let state = *fields.next()?.as_bytes().first()?;
        // The state is field 3.
        Some(Stat { state, start: fields.nth(22 - 4)?.trim().parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_name_full_of_parentheses_misleads_nobody() {
        let text = "7 (a) R (b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 0 0\n";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.state, stat.start), (b'S', 12345));
    }

    #[test]
    fn a_process_is_alive_until_it_ends_and_not_before_the_reboot() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::of(child.id() as i32).unwrap();
        assert!(process.is_alive());
        assert!(!Process { boot: "another".to_owned(), ..process.clone() }.is_alive());
        assert!(!Process { start: process.start + 1, ..process.clone() }.is_alive());
        child.kill().unwrap();
        // Nobody has waited for it yet; it may take a moment to end.
        for _ in 0..500 {
            if !process.is_alive() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        assert!(!process.is_alive(), "one that has ended and was not waited for is not alive");
        child.wait().unwrap();
        assert!(!process.is_alive());
    }
}
