//! One job of a project at a time: `project/NAME.lock` in the state directory, held with flock(2).
//!
//! The kernel gives it back when the process ends, however it ends. The file says who holds it, for whoever has to wait;
//! nothing is decided by what it says.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use snapshot::error::Error;

/// Held by whoever works on a project; given back when dropped.
#[derive(Debug)]
pub struct ProjectLock {
    file: File,
}

/// Somebody else works on the project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Busy {
    /// What it does, as it wrote: "backup, process 4711"; empty if it wrote nothing yet.
    pub by: String,
}

impl ProjectLock {
    /// Takes the lock, unless somebody has it. `job` says what for: "backup".
    pub fn take(state: &Path, project: &str, job: &str) -> Result<Result<ProjectLock, Busy>, Error> {
        let directory = state.join("project");
        match DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => made.map_err(Error::io("create", &directory))?,
        }
        let path = directory.join(format!("{project}.lock"));
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).read(true).write(true).mode(0o600).open(&path);
        let mut file = file.map_err(Error::io("open", &path))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {
                let mut by = String::new();
                // It is only told; another one may hold it by now.
                let _ = (&mut file).take(200).read_to_string(&mut by);
                return Ok(Err(Busy { by: by.trim_end().to_owned() }));
            }
            locked => locked.map_err(Error::io("lock", &path))?,
        }
        let text = format!("{job}, process {}\n", std::process::id());
        // On a full disk the lock is good without it.
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
        Ok(Ok(ProjectLock { file }))
    }
}

impl Drop for ProjectLock {
    fn drop(&mut self) {
        let _ = self.file.set_len(0);
        // Closing it is not enough: a child that another thread starts has it, too, until it runs its program.
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_job_of_a_project_at_a_time_and_the_second_hears_of_the_first() {
        let state = tempfile::tempdir().unwrap();
        let take = |project: &str| ProjectLock::take(state.path(), project, "backup").unwrap();
        let held = take("shop").unwrap();
        let busy = take("shop").unwrap_err();
        assert_eq!(busy.by, format!("backup, process {}", std::process::id()));
        take("blog").expect("another project is another lock");
        drop(held);
        take("shop").expect("it was given back");
    }
}
