//! The way back, and what there would be to do on it.

use std::path::Path;

use backup::read::{Change, diff};
use backup::restore::revert::{self, Options, Plan, RevertError, Source};
use repository::Error as RepositoryError;
use snapshot::error::Error;
use snapshot::id::Id;
use snapshot::provider::{Changed, Handle, Summary};

use super::room::Nobody;
use super::spared;
use super::store::{Kept, Open};
use super::{Net, STAGING};

impl Net {
    /// Makes the live tree what a backup has.
    pub(super) fn bring_back(&self, backup: repository::id::Id, kept: Id) -> Result<(), Error> {
        self.with(backup, |source, options| revert::revert(source, options, &format!("{STAGING}{kept}")).map(drop))
    }

    pub(super) fn changed_since(&self, from: &Handle) -> Result<Vec<Changed>, Error> {
        let plan = self.compare(from)?;
        let changed = plan.differences().iter();
        Ok(changed.map(|one| Changed { path: one.path.clone(), is_tree: one.is_tree }).collect())
    }

    pub(super) fn summary_since(&self, from: &Handle) -> Result<Summary, Error> {
        let counts = self.compare(from)?.counts();
        Ok(Summary { changed: counts.changed, added: counts.added, removed: counts.removed, bytes: counts.bytes })
    }

    fn compare(&self, from: &Handle) -> Result<Plan, Error> {
        self.with(self.store.backup(from)?, revert::compare)
    }

    /// What differs between two backups, told by their trees alone.
    pub(super) fn changed_between(&self, from: &Handle, to: &Handle) -> Result<Vec<Changed>, Error> {
        let (from, to) = (self.store.backup(from)?, self.store.backup(to)?);
        let open = self.opened()?;
        let _lock = open.lock(false)?;
        let index = open.index()?;
        let (from, to) = (self.net(&open, from)?.record.tree, self.net(&open, to)?.record.tree);
        let mut changed = Vec::new();
        let mut reader = open.repository.reader(&index);
        let found = diff(&mut reader, from, to, Path::new("/"), &Nobody, &mut |difference| {
            if let Ok(path) = difference.path.strip_prefix(&self.directory) {
                let is_tree = !matches!(difference.change, Change::Metadata);
                changed.push(Changed { path: path.to_owned(), is_tree });
            }
            Ok::<(), RepositoryError>(())
        });
        found.map_err(|error| open.failed(error))?;
        Ok(changed)
    }

    fn with<T>(
        &self,
        backup: repository::id::Id,
        work: impl FnOnce(Source<'_>, Options<'_>) -> Result<T, RevertError>,
    ) -> Result<T, Error> {
        let open = self.opened()?;
        let _lock = open.lock(false)?;
        let net = self.net(&open, backup)?;
        let index = open.index()?;
        let now = self.spared();
        let spared = spared::patterns(net.record.excludes.iter().chain(&now))?;
        let source =
            Source { repository: &open.repository, index: &index, tree: net.record.tree, begun: net.record.time };
        let options = Options { directory: &self.directory, spared: &spared, progress: &Nobody };
        work(source, options).map_err(|error| match error {
            RevertError::Repository(error) => open.failed(error),
            RevertError::Io { action, path, source } => Error::Io { action, path, source },
            error @ RevertError::NoRoom { .. } => {
                Error::refused(error.to_string()).or("make room there; nothing was changed yet")
            }
            RevertError::Refused(message) => Error::refused(message),
        })
    }

    pub(super) fn opened(&self) -> Result<Open, Error> {
        let place = self.store.place.repository.display();
        let gone = || Error::refused(format!("the net's repository at {place} is gone, and with it the way back"));
        self.store.open_if_there()?.ok_or_else(gone)
    }

    pub(super) fn net(&self, open: &Open, backup: repository::id::Id) -> Result<Kept, Error> {
        open.net_of(&self.directory, backup)?.ok_or_else(|| {
            let directory = self.directory.display();
            Error::refused(format!("backup {} is gone, or is no net of {directory}", backup.short()))
                .or("choose another: snapback snapshot list")
        })
    }
}
