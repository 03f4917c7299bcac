//! What a restore's threads share: options, counts, errors, and the ends of files and directories.

use std::ffi::OsStr;
use std::fmt::Display;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use repository::index::Index;
use repository::tree::Node;
use repository::{Error, Repository};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::attributes::{Applier, AttributeError, Before, Entry, Stat};
use crate::restore::handle::{Handle, Handles};
use crate::restore::links::Links;
use crate::restore::pace::Pace;
use crate::restore::place::{Above, Directory, Place, has_default_acl};
use crate::restore::{Options, Outcome};

pub(super) struct Run<'a> {
    pub(super) repository: &'a Repository,
    pub(super) index: &'a Index,
    pub(super) options: &'a Options<'a>,
    pub(super) counts: Counts,
    applier: Applier,
    pub(super) links: Links,
    pub(super) handles: Arc<Handles>,
    pub(super) pace: Pace,
    /// The target has no room: every further file would fail for the same reason.
    full: AtomicBool,
}

#[derive(Default)]
pub(super) struct Counts {
    pub(super) files_restored: AtomicU64,
    pub(super) files_unchanged: AtomicU64,
    pub(super) others: AtomicU64,
    pub(super) deleted: AtomicU64,
    pub(super) bytes_total: AtomicU64,
    pub(super) bytes_written: AtomicU64,
    pub(super) errors: AtomicU64,
    /// Those of the errors that are about attributes.
    attributes: AtomicU64,
    pub(super) verified: AtomicU64,
}

/// Adds to a count.
pub(super) fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

impl<'a> Run<'a> {
    pub(super) fn new(repository: &'a Repository, index: &'a Index, options: &'a Options<'a>) -> Self {
        Run {
            repository,
            index,
            options,
            counts: Counts::default(),
            applier: Applier::new(),
            links: Links::default(),
            handles: Arc::default(),
            pace: Pace::default(),
            full: AtomicBool::new(false),
        }
    }

    pub(super) fn outcome(&self) -> Outcome {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.counts;
        Outcome {
            files_restored: load(&counts.files_restored),
            files_unchanged: load(&counts.files_unchanged),
            others: load(&counts.others),
            deleted: load(&counts.deleted),
            bytes_total: load(&counts.bytes_total),
            bytes_written: load(&counts.bytes_written),
            errors: load(&counts.errors),
            verified: load(&counts.verified),
        }
    }

    pub(super) fn error(&self, path: &Path, error: &dyn Display) {
        add(&self.counts.errors, 1);
        self.options.progress.error(path, error);
    }

    /// Whether all contents are there, and only some attributes could not be set.
    pub(super) fn has_lost_only_attributes(&self) -> bool {
        self.counts.errors.load(Ordering::Relaxed) == self.counts.attributes.load(Ordering::Relaxed)
    }

    fn attribute_error(&self, directory: &Directory, error: &AttributeError) {
        add(&self.counts.attributes, 1);
        self.error(&directory.path().join(&error.path), &format_args!("cannot {}: {}", error.action, error.source));
    }

    /// Whether to stop: cancelled, or no room.
    pub(super) fn is_stopped(&self) -> bool {
        self.options.progress.is_cancelled() || self.full.load(Ordering::Relaxed)
    }

    pub(super) fn note_full(&self, error: Errno) {
        if matches!(error, Errno::NOSPC | Errno::DQUOT) {
            self.full.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn check_full(&self) -> Result<(), Error> {
        match self.full.load(Ordering::Relaxed) {
            true => Err(Error::Refused("the target has no room left; what is there so far stays".to_owned())),
            false => Ok(()),
        }
    }

    /// Opens the target, which is made if it is not there (not by a dry run).
    pub(super) fn open_target(&self, target: &Path) -> Result<Arc<Directory>, Error> {
        let cannot = |action: &str, error: std::io::Error| {
            Error::Refused(format!("cannot {action} the target {}: {error}", target.display()))
        };
        if !self.options.dry_run {
            std::fs::create_dir_all(target).map_err(|error| cannot("create", error))?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = match openat(CWD, target, flags, Mode::empty()) {
            // A dry run into a place that does not exist yet: an empty one tells the same.
            Err(Errno::NOENT) if self.options.dry_run => openat(CWD, "/proc/self/fdinfo", flags, Mode::empty()),
            opened => opened,
        };
        let open = open.map_err(|error| cannot("open", error.into()))?;
        let stat = Stat::of(open.as_fd()).map_err(|error| cannot("look at", error.into()))?;
        let has_default_acl = has_default_acl(&open);
        Ok(Arc::new(Directory {
            handle: Some(Handle::permanent(&self.handles, open, &stat)),
            above: Above::Nothing(target.to_owned()),
            node: None,
            before: Before::changed(&stat),
            is_fresh: false,
            is_mount: stat.mount_root == Some(true),
            new_file: OnceLock::new(),
            has_default_acl,
        }))
    }

    /// Something below a directory is done. If it was the last, the directory gets its attributes, and those above
    /// it likewise.
    pub(super) fn finish_directory(&self, directory: Arc<Directory>) {
        let mut directory = directory;
        // Only the last holder gets the directory itself.
        while let Some(mut last) = Arc::into_inner(directory) {
            let opened = if last.node.is_some() { Some(last.open()) } else { None };
            let Some(above) = last.take_above() else { return };
            if let (Some(node), Some(opened)) = (&last.node, opened) {
                let opened = opened.and_then(|open| Ok((above.open_from_below(&open)?, open)));
                match opened {
                    Ok((dir, open)) => {
                        let entry = Entry { dir: dir.as_fd(), name: &node.name, dir_path: Path::new("") };
                        let report = &mut |error| self.attribute_error(&above, &error);
                        self.applier.apply(entry, Some(open.as_fd()), node, &last.before, report);
                    }
                    Err(error) => {
                        let path = above.path().join(OsStr::from_bytes(&node.name));
                        self.error(&path, &format_args!("cannot finish the directory: {error}"));
                    }
                }
            }
            // Closed before the one above is looked at.
            drop(last);
            directory = above;
        }
    }

    /// Gives a file its attributes; `open` is the file.
    pub(super) fn finish_file(&self, place: &Place, node: &Node, open: Option<&OwnedFd>, before: &Before) {
        let dir = match place.directory.open() {
            Ok(dir) => dir,
            Err(error) => return self.error(&place.path(), &format_args!("cannot finish it: {error}")),
        };
        // The directory's path would cost each file more than it is worth; errors get it when they come.
        let entry = Entry { dir: dir.as_fd(), name: &place.name, dir_path: Path::new("") };
        let report = &mut |error| self.attribute_error(&place.directory, &error);
        self.applier.apply(entry, open.map(AsFd::as_fd), node, before, report);
    }

    /// What the kernel gave a file that was just made.
    pub(super) fn before_of_new(&self, place: &Place, open: &OwnedFd) -> Result<Before, Errno> {
        let directory = &place.directory;
        if directory.has_default_acl {
            return Ok(Before::changed(&Stat::of(open.as_fd())?));
        }
        if let Some(before) = directory.new_file.get() {
            return Ok(*before);
        }
        let before = Before::created(&Stat::of(open.as_fd())?);
        Ok(*directory.new_file.get_or_init(|| before))
    }
}
