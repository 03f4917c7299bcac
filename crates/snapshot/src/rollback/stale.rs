//! Locks of processes that ran when a snapshot was made, such as a server's file with its process number: by now another
//! process may have that number, and a server that is started would refuse for its sake.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::error::Error;

/// Removes a lock, unless a process works in its directory, as servers do: then it is that process's own.
pub(super) fn remove(lock: &Path) -> Result<(), Error> {
    let Some(directory) = lock.parent() else { return Ok(()) };
    let identity = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
    let Some(place) = identity(directory) else { return Ok(()) };
    for process in fs::read_dir("/proc").map_err(Error::io("list", "/proc"))?.flatten() {
        let is_process = process.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok());
        if is_process && identity(&process.path().join("cwd")) == Some(place) {
            return Ok(());
        }
    }
    match fs::remove_file(lock) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", lock)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_lock_goes_once_nobody_works_in_its_directory() {
        let place = tempfile::tempdir().unwrap();
        let lock = place.path().join("postmaster.pid");
        fs::write(&lock, "1").unwrap();
        let mut worker = Command::new("cat");
        let mut worker = worker.current_dir(place.path()).stdin(Stdio::piped()).spawn().unwrap();
        remove(&lock).unwrap();
        assert!(lock.exists());
        drop(worker.stdin.take());
        worker.wait().unwrap();
        remove(&lock).unwrap();
        assert!(!lock.exists());
        remove(&lock).expect("what is gone already is success");
    }
}
