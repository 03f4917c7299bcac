//! One daemon at a time for a state directory.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use snapshot::error::Error;

use crate::process::Process;

const FILE: &str = "serve.lock";

/// Held as long as the daemon runs. The kernel takes it back from a process that dies.
#[derive(Debug)]
pub struct Instance {
    _file: File,
}

impl Instance {
    /// Refused while another process has it; its number is in the error.
    pub fn acquire(root: &Path) -> Result<Instance, Error> {
        let path = root.join(FILE);
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).read(true).write(true).mode(0o600).open(&path);
        let mut file = file.map_err(Error::io("open", &path))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {
                let mut text = String::new();
                // Whoever has just locked it has not written who it is yet.
                let _ = file.read_to_string(&mut text);
                let who = match serde_json::from_str::<Process>(&text) {
                    Ok(process) => format!("process {}", process.pid),
                    Err(_) => "another process".to_owned(),
                };
                let message = format!("{who} serves {} already", root.display());
                return Err(Error::refused(message).or("stop that one first, or give this one another --state-dir"));
            }
            locked => locked.map_err(Error::io("lock", &path))?,
        }
        let process = serde_json::to_string(&Process::current()?).expect("it has string keys only");
        file.set_len(0).and_then(|()| writeln!(file, "{process}")).map_err(Error::io("write", &path))?;
        Ok(Instance { _file: file })
    }

    /// The process that serves a state directory now, if one does. Takes no lock, which could hold one up that starts.
    pub fn running(root: &Path) -> Option<Process> {
        let text = std::fs::read_to_string(root.join(FILE)).ok()?;
        serde_json::from_str(&text).ok().filter(Process::is_alive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_with_the_number_of_the_first() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Instance::running(root.path()), None);
        let first = Instance::acquire(root.path()).unwrap();
        assert_eq!(Instance::running(root.path()), Some(Process::current().unwrap()));
        let refused = Instance::acquire(root.path()).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {} ", std::process::id())), "{refused}");
        drop(first);
        Instance::acquire(root.path()).unwrap();
    }
}
