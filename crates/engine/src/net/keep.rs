//! Keeping the present state by a backup, and letting one go.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use backup::archive::{self, Outcome};
use backup::attributes::Zone;
use repository::blob_writer::Destination;
use repository::lock::Lock;
use repository::progress::Unwatched;
use repository::prune;
use repository::record::BackupRecord;
use snapshot::error::Error;
use snapshot::id::Id;
use snapshot::provider::Handle;

use super::Net;
use super::room::{self, Watch};
use super::spared;
use super::store::{self, Kept, Open};

/// What nobody refers to is removed at most as often: it takes looking at all trees.
const PRUNE_EVERY_SECS: i64 = 24 * 3600;
/// For so long what was the last net of a directory stays, so that the next one need not read every file.
const BASE_KEPT_SECS: i64 = 30 * 24 * 3600;

impl Net {
    /// Backs the directory up as it is now.
    pub(super) fn keep(&self, name: Id) -> Result<Handle, Error> {
        let directory = self.directory.to_str().ok_or_else(|| {
            let directory = self.directory.display();
            Error::refused(format!("{directory} has a name that is not UTF-8, which backups cannot bear"))
        })?;
        let open = self.store.open_or_make()?;
        let place = &self.store.place.repository;
        if room::room(place)? == 0 {
            self.tidy(&open, true)?;
        }
        if room::room(place)? == 0 {
            return Err(room::is_full(place));
        }
        let lock = open.lock(false)?;
        let begun = (self.nets.holder.now)();
        let parent = open.nets_of(&self.directory)?.pop();
        let index = open.index()?;
        let excludes = self.spared();
        let watch = Watch::new(place, &*self.nets.is_cancelled);
        let options = archive::Options {
            paths: vec![self.directory.clone()],
            elsewhere: Vec::new(),
            exclude: Some(spared::patterns(&excludes)?),
            exclude_caches: false,
            exclude_larger_than: None,
            one_file_system: true,
            parent: parent.as_ref().map(|parent| parent.record.tree),
            changed: None,
            zone: Zone::new(self.nets.time_zone.clone()),
            progress: &watch,
        };
        let archived = archive::archive(&open.repository, &index, Destination::Repository(Arc::clone(&lock)), &options);
        let outcome = match archived {
            Ok(outcome) => outcome,
            Err(error) => {
                drop((index, lock));
                if watch.is_full() || is_no_room(&error) {
                    // What was stored already is of no use and fills the disk.
                    self.tidy(&open, true)?;
                    return Err(room::is_full(place));
                }
                if matches!(error, repository::Error::Cancelled) {
                    return Err(Error::refused("interrupted; nothing was begun"));
                }
                return Err(open.failed(error));
            }
        };
        self.refuse_incomplete(&outcome, &watch)?;
        let Some(tree) = outcome.tree else { return Err(Error::refused("the backup gave no root directory")) };
        let holder = &self.nets.holder;
        let mut record = BackupRecord {
            time: begun,
            parent: parent.map(|parent| parent.backup),
            tree,
            paths: vec![directory.to_owned()],
            hostname: holder.hostname.clone(),
            username: holder.username.clone(),
            uid: holder.uid,
            gid: holder.gid,
            excludes,
            tags: store::tags(name),
            original: None,
            program_version: concat!("snapback ", env!("CARGO_PKG_VERSION")).to_owned(),
            summary: None,
        };
        record.set_summary(&outcome.summary);
        lock.confirm().map_err(|error| open.failed(error))?;
        let backup = open.repository.save_record(&record).map_err(|error| open.failed(error))?;
        Ok(self.store.handle(backup))
    }

    /// What somebody changed or removed meanwhile is no reason: the net is not of one moment. What cannot be read is:
    /// there would be no way back to it.
    fn refuse_incomplete(&self, outcome: &Outcome, watch: &Watch<'_>) -> Result<(), Error> {
        if outcome.errors <= outcome.unsteady {
            return Ok(());
        }
        let directory = self.directory.display();
        let first = watch.errors().join("; ");
        Err(Error::refused(format!("{directory} cannot be kept as a whole by a backup: {first}"))
            .or("run it as root, or name a directory that can be read as a whole"))
    }

    /// Lets a net go. The newest of a directory stays for a while as what the next one is compared with.
    pub(super) fn let_go(&self, open: &Open, backup: repository::id::Id) -> Result<(), Error> {
        let nets = open.nets_of(&self.directory)?;
        let Some(net) = nets.iter().find(|net| net.backup == backup) else {
            return match open.repository.load_record(backup) {
                Ok(_) => {
                    Err(Error::refused(format!("backup {} is no net of {}", backup.short(), self.directory.display())))
                }
                Err(_) => Ok(()),
            };
        };
        let lock = open.lock(false)?;
        lock.confirm().map_err(|error| open.failed(error))?;
        if nets.last().is_some_and(|newest| newest.backup == backup) {
            let base = BackupRecord { tags: store::base_tags(), original: Some(backup), ..net.record.clone() };
            open.repository.save_record(&base).map_err(|error| open.failed(error))?;
        }
        let is_old_base = |other: &&Kept| other.name.is_none();
        let gone: Vec<_> = nets.iter().filter(is_old_base).map(|base| base.backup).chain([backup]).collect();
        repository::forget(&open.repository, &lock, &gone, &Unwatched).map_err(|error| open.failed(error))?;
        drop(lock);
        // It can be done at any time, and somebody else may be at work.
        let _ = self.tidy(open, false);
        Ok(())
    }

    fn pruned(&self) -> PathBuf {
        self.store.place.password_file.with_file_name("pruned")
    }

    /// Removes what nobody refers to any more, if it is time to or there is need.
    fn tidy(&self, open: &Open, is_needed: bool) -> Result<(), Error> {
        let now = (self.nets.holder.now)().secs;
        let pruned = fs::metadata(self.pruned()).map(|file| file.mtime());
        if !is_needed && pruned.is_ok_and(|pruned| (0..PRUNE_EVERY_SECS).contains(&(now - pruned))) {
            return Ok(());
        }
        let failed = |error| open.failed(error);
        let lock = open.lock(true)?;
        lock.confirm().map_err(failed)?;
        self.forget_old_bases(open, &lock)?;
        let (records, damaged) = open.repository.backups().map_err(failed)?;
        let options = prune::Options {
            // Nothing but nets is ever kept here, so an empty listing is no accident.
            remove_everything: records.is_empty() && damaged.is_empty(),
            max_unused: prune::MaxUnused::Percent(20.0),
            ..prune::Options::default()
        };
        let plan = prune::plan(&open.repository, &options, &Unwatched).map_err(failed)?;
        prune::execute(&open.repository, &lock, plan, &Unwatched).map_err(failed)?;
        fs::write(self.pruned(), "").map_err(Error::io("write", self.pruned()))
    }

    fn forget_old_bases(&self, open: &Open, lock: &Lock) -> Result<(), Error> {
        let now = (self.nets.holder.now)().secs;
        let (records, _) = open.repository.backups().map_err(|error| open.failed(error))?;
        let is_old =
            |record: &BackupRecord| record.tags == store::base_tags() && now - record.time.secs > BASE_KEPT_SECS;
        let old: Vec<_> = records.into_iter().filter(|(_, record)| is_old(record)).map(|(id, _)| id).collect();
        repository::forget(&open.repository, lock, &old, &Unwatched).map_err(|error| open.failed(error))
    }
}

fn is_no_room(error: &repository::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        if matches!(kind, Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)) {
            return true;
        }
        source = error.source();
    }
    false
}
