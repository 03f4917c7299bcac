//! Files of a snapshot that a throw-away server may write to: a clone where the mechanism has one, else a copy.

use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use snapshot::error::Error;
use snapshot::manage;
use snapshot::provider::{Provider, View};
use snapshot::record::{Purpose, Record};
use snapshot::reflink::clone::{self, Content, Options};

use super::work::Work;
use crate::job::Context;

/// A clone of a process that died goes at the latest then.
const AT_MOST: SignedDuration = SignedDuration::from_hours(24);

/// A snapshot, for somebody to work on what is in it.
pub(super) struct Copy<'a> {
    context: &'a Context<'a>,
    provider: Box<dyn Provider>,
    /// What shows it; `None` once this is being dropped.
    view: Option<Box<dyn View>>,
    /// Of the clone; `None` if what is needed has to be copied.
    clone: Option<Record>,
}

impl<'a> Copy<'a> {
    /// Of a snapshot.
    pub(super) fn of(context: &'a Context<'a>, snapshot: &Record) -> Result<Copy<'a>, Error> {
        let Some(handle) = &snapshot.handle else { return Err(Error::NoSuchSnapshot(snapshot.id.to_string())) };
        let lock = (context.lock_snapshots)()?;
        let provider = super::reopen(&snapshot.directory, handle)?;
        // Of those that are in use, the mount forbids it.
        for left in lock.state().records()? {
            if matches!(left.purpose, Purpose::Proof { .. }) && left.directory == snapshot.directory {
                let _ = manage::delete(&lock, &*provider, left.id);
            }
        }
        let now = context.clock.wall();
        let clone = manage::clone_of(&lock, &*provider, snapshot, now.checked_add(AT_MOST).ok(), now)?;
        let view = match clone.as_ref().and_then(|clone| clone.handle.as_ref()) {
            Some(handle) => provider.view_clone(handle),
            None => provider.view(handle),
        };
        match view {
            Ok(view) => Ok(Copy { context, provider, view: Some(view), clone }),
            Err(error) => {
                if let Some(clone) = clone {
                    let _ = manage::delete(&lock, &*provider, clone.id);
                }
                Err(error)
            }
        }
    }

    /// Whether a live path is below its directory.
    pub(super) fn holds(&self, path: &Path) -> bool {
        path.starts_with(self.provider.directory())
    }

    /// Where a live file or directory is, for writing.
    pub(super) fn place(&self, path: &Path, work: &Work) -> Result<PathBuf, Error> {
        let view = self.view.as_ref().expect("it is there until this is dropped");
        let inside = path.strip_prefix(self.provider.directory()).unwrap_or(path);
        let there = view.path().join(inside);
        if self.clone.is_some() {
            return Ok(there);
        }
        let name = format!("copy-{}", snapshot::id::Id::random());
        let target = work.directory(&name).map_err(Error::io("create", &name))?;
        let options = Options { content: Content::ShareOrCopy, ..Options::default() };
        if there.is_dir() {
            clone::tree(&there, &target, &options)?;
            return Ok(target);
        }
        // A file of SQLite, and what belongs to it.
        let name = |ending: &str| {
            let mut name = there.file_name().unwrap_or_default().to_owned();
            name.push(ending);
            name
        };
        for ending in ["", "-wal", "-journal"] {
            let from = there.with_file_name(name(ending));
            if ending.is_empty() || from.exists() {
                clone::file(&from, &target.join(name(ending)), Content::ShareOrCopy)?;
            }
        }
        Ok(target.join(name("")))
    }
}

impl Drop for Copy<'_> {
    fn drop(&mut self) {
        drop(self.view.take());
        let Some(clone) = &self.clone else { return };
        let deleted = (self.context.lock_snapshots)().and_then(|lock| manage::delete(&lock, &*self.provider, clone.id));
        if let Err(error) = deleted {
            self.context.watch.warn(&format!("the clone {} stays for a day at most: {error}", clone.id));
        }
    }
}
