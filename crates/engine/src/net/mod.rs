//! A net where the storage has no snapshots: a backup on the same machine, in the place of one.
//!
//! [`Net`] is a [`Provider`] like the others, so that guards, rollbacks and their journals need not know of it; what
//! differs is in its [`Abilities`]. Making it is an incremental backup of the directory, with the newest net of the same
//! directory as its parent. The way back keeps the present state by another such backup, and then makes the live tree
//! exactly what the first one has, touching only what differs ([`backup::restore::revert`]). Both can be done again
//! after a crash, and the second can be taken back from the first, so that a rollback ends in the old state or the new.
//!
//! Slower than copy-on-write, and not of one moment: files are read one after the other while others may write. It is
//! chosen only where no mechanism can be had ([`Nets::provider`]). The state directory, the repository, and files that
//! the kernel itself uses (swap, loop devices) are neither kept nor touched, nor are mounts below the directory.
//!
//! Does not know of projects and of backups elsewhere: what lies on the same disk is no backup in their sense.

mod back;
mod keep;
mod room;
mod spared;
mod store;
mod view;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::tz::TimeZone;
use repository::holder::Holder;
use serde::{Deserialize, Serialize};
use snapshot::error::Error;
use snapshot::id::Id;
use snapshot::provider::Space;
use snapshot::provider::{Abilities, Changed, Handle, Kind, Provider, Step, Summary, View};
use snapshot::runner::System;
use snapshot::{detect, mounts};

pub use self::store::Place;
use self::store::Store;

/// How the directory is called in which things are made meanwhile, before an id; everybody who looks at live trees
/// leaves it out.
const STAGING: &str = ".snapback-undo-";

/// What making and opening nets takes.
#[derive(Clone)]
pub struct Nets {
    /// Where new ones are kept.
    pub place: Place,
    /// The state directory, which no net touches.
    pub state: PathBuf,
    /// Who we are.
    pub holder: Holder,
    /// In which times are written.
    pub time_zone: TimeZone,
    /// Whether to give up taking a net, which may take minutes the first time. The way back is not given up.
    pub is_cancelled: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl Nets {
    /// The storage's mechanism for a directory, or a net where it has none.
    pub fn provider(&self, directory: &Path) -> Result<Box<dyn Provider>, Error> {
        let directory = directory.canonicalize().map_err(Error::io("look at", directory))?;
        if !directory.is_dir() {
            return Err(
                Error::refused(format!("{} is no directory", directory.display())).or("name the one it lies in")
            );
        }
        if directory.to_str().is_none() {
            let message = format!("the path {} is not UTF-8, and cannot be recorded", directory.display());
            return Err(Error::refused(message).or("rename the directory, or name the one it lies in"));
        }
        match detect::find(&directory, &mounts::mounts()?, Arc::new(System))? {
            Some(provider) => Ok(provider),
            None => Ok(Box::new(self.net(&directory, self.place.clone()))),
        }
    }

    /// That with which a snapshot was made.
    pub fn reopen(&self, directory: &Path, handle: &Handle) -> Result<Box<dyn Provider>, Error> {
        match handle {
            Handle::Backup { repository, password_file, .. } => {
                let place = Place { repository: repository.clone(), password_file: password_file.clone() };
                Ok(Box::new(self.net(directory, place)))
            }
            handle => detect::reopen(directory, handle, &mounts::mounts()?, Arc::new(System)),
        }
    }

    fn net(&self, directory: &Path, place: Place) -> Net {
        Net { directory: directory.to_owned(), nets: self.clone(), store: Store::new(place, self.holder.clone()) }
    }
}

/// The net of one directory.
pub struct Net {
    directory: PathBuf,
    nets: Nets,
    store: Store,
}

/// A step of the way back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "act")]
enum Act {
    /// Keeps the present state under a name.
    Keep { name: Id },
    /// Makes the live tree what a backup has; what was kept under the name is the way back from it.
    BringBack { backup: String, kept: Id },
}

impl Act {
    fn step(&self, name: &str) -> Step {
        Step { name: name.to_owned(), arguments: serde_json::to_value(self).expect("it has string keys only") }
    }

    fn of(step: &Step) -> Result<Act, Error> {
        serde_json::from_value(step.arguments.clone())
            .map_err(|error| Error::refused(format!("the step {:?} is not one of a net: {error}", step.name)))
    }
}

impl Provider for Net {
    fn kind(&self) -> Kind {
        Kind::Backup
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            is_atomic: false,
            switches_live: true,
            keeps_snapshot: true,
            keeps_old_tree: true,
            knows_changes: true,
            works_unprivileged: true,
            spares_state: true,
        }
    }

    fn directory(&self) -> &Path {
        &self.directory
    }

    fn list(&self) -> Result<Vec<(Id, Handle)>, Error> {
        let Some(open) = self.store.open_if_there()? else { return Ok(Vec::new()) };
        let nets = open.nets_of(&self.directory)?;
        Ok(nets.into_iter().filter_map(|net| Some((net.name?, self.store.handle(net.backup)))).collect())
    }

    fn create(&self, id: Id) -> Result<Handle, Error> {
        self.keep(id)
    }

    fn delete(&self, handle: &Handle) -> Result<(), Error> {
        let backup = self.store.backup(handle)?;
        match self.store.open_if_there()? {
            None => Ok(()),
            Some(open) => self.let_go(&open, backup),
        }
    }

    fn view(&self, handle: &Handle) -> Result<Box<dyn View>, Error> {
        self.show(handle)
    }

    fn space(&self, handle: &Handle) -> Result<Space, Error> {
        self.store.backup(handle)?;
        Ok(Space::default())
    }

    fn plan_switch(&self, to: &Handle, old: Id) -> Result<Vec<Step>, Error> {
        let backup = self.store.backup(to)?.to_string();
        Ok(vec![
            Act::Keep { name: old }.step("keep the present state by a backup"),
            Act::BringBack { backup, kept: old }.step("bring back what differs"),
        ])
    }

    fn perform(&self, step: &Step) -> Result<(), Error> {
        match Act::of(step)? {
            Act::Keep { name } => match self.find(name)? {
                Some(_) => Ok(()),
                None => self.keep(name).map(drop),
            },
            Act::BringBack { backup, kept } => self.bring_back(store::backup_id(&backup)?, kept),
        }
    }

    fn revert(&self, step: &Step) -> Result<(), Error> {
        match Act::of(step)? {
            Act::Keep { name } => match self.find(name)? {
                Some(handle) => self.delete(&handle),
                None => Ok(()),
            },
            Act::BringBack { kept, .. } => match self.find(kept)? {
                Some(handle) => self.bring_back(self.store.backup(&handle)?, kept),
                // Nothing is brought back before the present state is kept.
                None => Ok(()),
            },
        }
    }

    fn changed_paths(&self, from: &Handle, to: Option<&Handle>) -> Result<Option<Vec<Changed>>, Error> {
        match to {
            None => self.changed_since(from).map(Some),
            Some(to) => self.changed_between(from, to).map(Some),
        }
    }

    fn summary(&self, from: &Handle) -> Result<Option<Summary>, Error> {
        self.summary_since(from).map(Some)
    }
}

impl Net {
    fn find(&self, name: Id) -> Result<Option<Handle>, Error> {
        Ok(self.list()?.into_iter().find(|(id, _)| *id == name).map(|(_, handle)| handle))
    }
}
