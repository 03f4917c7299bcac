//! What a restore's threads share: options, counts, errors, and the ends of files and directories.

use std::collections::HashMap;
use std::fmt::Display;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use repository::index::Index;
use repository::tree::Node;
use repository::{Error, Repository};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat};
use rustix::io::Errno;

use crate::attributes::{Applier, AttributeError, Before, Stat};
use crate::restore::place::{Directory, Place, has_default_acl, remove_all};
use crate::restore::{Options, Outcome};

pub(super) struct Run<'a> {
    pub(super) repository: &'a Repository,
    pub(super) index: &'a Index,
    pub(super) options: &'a Options<'a>,
    pub(super) counts: Counts,
    applier: Applier,
    /// The first name of each inode with several, by file system and inode of the backup.
    first_names: Mutex<HashMap<(u64, u64), Place>>,
    links: Mutex<Vec<(Place, Place)>>,
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
            first_names: Mutex::default(),
            links: Mutex::default(),
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

    fn attribute_error(&self, error: &AttributeError) {
        self.error(&error.path, &format_args!("cannot {}: {}", error.action, error.source));
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
        let stat = Stat::of(std::os::fd::AsFd::as_fd(&open)).map_err(|error| cannot("look at", error.into()))?;
        let has_default_acl = has_default_acl(&open);
        Ok(Arc::new(Directory {
            open,
            path: target.to_owned(),
            above: None,
            node: None,
            before: Before::changed(&stat),
            is_fresh: false,
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
            let Some(above) = last.above.take() else { return };
            if let Some(node) = &last.node {
                let entry = above.entry(&node.name);
                let open = Some(std::os::fd::AsFd::as_fd(&last.open));
                self.applier.apply(entry, open, node, &last.before, &mut |error| self.attribute_error(&error));
            }
            drop(last);
            directory = above;
        }
    }

    /// Gives a file its attributes; `open` is the file.
    pub(super) fn finish_file(&self, place: &Place, node: &Node, open: Option<&OwnedFd>, before: &Before) {
        let open = open.map(std::os::fd::AsFd::as_fd);
        let entry = place.directory.entry(&place.name);
        self.applier.apply(entry, open, node, before, &mut |error| self.attribute_error(&error));
    }

    /// What the kernel gave a file that was just made.
    pub(super) fn before_of_new(&self, place: &Place, open: &OwnedFd) -> Result<Before, Errno> {
        let directory = &place.directory;
        if directory.has_default_acl {
            return Ok(Before::changed(&Stat::of(std::os::fd::AsFd::as_fd(open))?));
        }
        if let Some(before) = directory.new_file.get() {
            return Ok(*before);
        }
        let before = Before::created(&Stat::of(std::os::fd::AsFd::as_fd(open))?);
        Ok(*directory.new_file.get_or_init(|| before))
    }

    /// Whether this is a further name of a file that is restored under its first one. Remembers first names.
    pub(super) fn is_further_name(&self, place: &Place, node: &Node) -> bool {
        if node.links < 2 || node.inode == 0 {
            return false;
        }
        let mut first_names = self.first_names.lock().expect("no panic while the links are held");
        match first_names.get(&(node.device_id, node.inode)) {
            Some(first) => {
                let link = (first.clone(), place.clone());
                self.links.lock().expect("no panic while the links are held").push(link);
                true
            }
            None => {
                first_names.insert((node.device_id, node.inode), place.clone());
                false
            }
        }
    }

    /// Makes the further names. Only now do all first ones exist.
    pub(super) fn link_all(&self) {
        let links = std::mem::take(&mut *self.links.lock().expect("no panic while the links are held"));
        for (first, place) in links {
            if !self.options.dry_run && !self.options.progress.is_cancelled() {
                match link(&first, &place) {
                    Ok(()) => add(&self.counts.others, 1),
                    Err(error) => {
                        let first = first.path();
                        self.error(&place.path(), &format_args!("cannot link it to {}: {error}", first.display()));
                    }
                }
            }
            self.finish_directory(first.directory);
            self.finish_directory(place.directory);
        }
        let first_names = std::mem::take(&mut *self.first_names.lock().expect("no panic while the links are held"));
        for place in first_names.into_values() {
            self.finish_directory(place.directory);
        }
    }
}

fn link(first: &Place, place: &Place) -> Result<(), Errno> {
    let make = || linkat(&first.directory.open, &*first.name, &place.directory.open, &*place.name, AtFlags::empty());
    match make() {
        Err(Errno::EXIST) => {}
        made => return made,
    }
    let (is, should) = (Stat::at(place.directory.entry(&place.name)), Stat::at(first.directory.entry(&first.name)));
    if let (Ok(is), Ok(should)) = (is, should)
        && (is.device, is.inode) == (should.device, should.inode)
    {
        return Ok(());
    }
    remove_all(&place.directory.open, &place.name)?;
    make()
}
