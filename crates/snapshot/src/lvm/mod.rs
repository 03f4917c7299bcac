//! LVM thin volumes: a snapshot of the logical volume whose ext4 or XFS is mounted on the directory.
//!
//! A snapshot is a read-only thin volume `snapback-ID`, not activated at boot, with the id and the volume it is of as
//! tags. For a switch a writable copy of it takes the volume's name, and the former volume becomes `snapback-OLD`;
//! `lvconvert --merge` would consume the snapshot, be deferred while anything is open, and keep nothing. As all
//! copies of a file system have its UUID, only one of them is ever active, except while a snapshot is looked at: so
//! what fstab says, by UUID or by path, stays true.
//!
//! The device mapper freezes a mounted file system while the snapshot is made (dm_suspend, drivers/md/dm.c, through
//! freeze_bdev), which writes out what is dirty and leaves a clean journal; so nothing is frozen here. Does not know
//! of physical volumes, and grows no pool.

mod command;
mod mapper;
mod space;
mod switch;
mod view;
mod volumes;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Error;
use crate::id::Id;
use crate::mounts::{self, Mount};
use crate::place;
use crate::provider::{Abilities, Changed, Handle, Kind, Provider, Space, Step, View};
use crate::runner::Runner;

use command::Command;
use volumes::{Volume, Volumes};

/// The thin volume whose file system is mounted on a directory.
#[derive(Clone)]
pub struct LvmThin {
    directory: PathBuf,
    group: String,
    volume: String,
    file_system: FileSystem,
    command: Command,
}

/// What lies on the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    /// As mount(8) calls it.
    fn name(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "ext4",
            FileSystem::Xfs => "xfs",
        }
    }
}

impl LvmThin {
    /// The provider for a directory without symbolic links; `None` if it is not the root of an ext4 or XFS that lies
    /// on a thin volume. An XFS with its log on another device is none: a snapshot would be of half of it.
    pub fn open(directory: &Path, mounts: &[Mount], runner: Arc<dyn Runner>) -> Result<Option<LvmThin>, Error> {
        let Some(mount) = mounts::mount_of(mounts, directory) else { return Ok(None) };
        let file_system = match mount.kind.as_str() {
            "ext4" => FileSystem::Ext4,
            "xfs" if !mount.super_options.contains("logdev=") && !mount.super_options.contains("rtdev=") => {
                FileSystem::Xfs
            }
            _ => return Ok(None),
        };
        if mount.point != directory || mount.root != Path::new("/") {
            return Ok(None);
        }
        let Some((group, volume)) = mapper::thin_volume(mount.device)? else { return Ok(None) };
        let (directory, command) = (directory.to_owned(), Command::new(runner));
        Ok(Some(LvmThin { directory, group, volume, file_system, command }))
    }

    /// The provider of which a snapshot was made, when its volume is not mounted, as in the middle of a switch, so
    /// that [`LvmThin::open`] does not find it. `None` if it was another mechanism, or the snapshot is gone.
    pub fn reopen(directory: &Path, handle: &Handle, runner: Arc<dyn Runner>) -> Result<Option<LvmThin>, Error> {
        let Handle::LvmThin { group, uuid, .. } = handle else { return Ok(None) };
        let command = Command::new(runner);
        let volumes = Volumes::read(&command, group)?;
        let snapshot = volumes.all.iter().find(|volume| volume.uuid == *uuid);
        let Some((volume, file_system)) = snapshot.and_then(|snapshot| Some((snapshot.of()?, snapshot.file_system()?)))
        else {
            return Ok(None);
        };
        let (directory, group, volume) = (directory.to_owned(), group.clone(), volume.to_owned());
        Ok(Some(LvmThin { directory, group, volume, file_system, command }))
    }

    fn volumes(&self) -> Result<Volumes, Error> {
        Volumes::read(&self.command, &self.group)
    }

    fn handle(&self, volume: &Volume) -> Handle {
        Handle::LvmThin { group: self.group.clone(), volume: volume.name.clone(), uuid: volume.uuid.clone() }
    }

    /// The volume a handle means; `None` if it is gone. Refused if it is not one that we made, or if another one has
    /// taken its name.
    fn find<'a>(&self, volumes: &'a Volumes, handle: &Handle) -> Result<Option<&'a Volume>, Error> {
        let Handle::LvmThin { group, volume, uuid } = handle else {
            return Err(Error::refused("this snapshot does not lie on LVM"));
        };
        if *group != self.group {
            return Err(Error::refused(format!("{group}/{volume} is not in the volume group {}", self.group)));
        }
        let Some(found) = volumes.all.iter().find(|other| other.uuid == *uuid) else {
            return match volumes.named(volume) {
                Some(_) => {
                    let message = format!("{group}/{volume} is another volume than the one meant: it is not {uuid}");
                    Err(Error::refused(message))
                }
                None => Ok(None),
            };
        };
        // Another directory's snapshot is none of ours, though it lies in the same group.
        if found.id().is_none() || found.of() != Some(&self.volume) {
            let message = format!("{group}/{} is no snapshot that Snapback made of {}", found.name, self.volume);
            return Err(Error::refused(message));
        }
        Ok(Some(found))
    }

    fn find_existing<'a>(&self, volumes: &'a Volumes, handle: &Handle) -> Result<&'a Volume, Error> {
        match (self.find(volumes, handle)?, handle) {
            (Some(volume), _) => Ok(volume),
            (None, Handle::LvmThin { group, volume, .. }) => Err(Error::NoSuchSnapshot(format!("{group}/{volume}"))),
            (None, _) => Err(Error::NoSuchSnapshot(String::new())),
        }
    }

    /// `group/volume`.
    fn full(&self, volume: &str) -> String {
        format!("{}/{volume}", self.group)
    }
}

impl Provider for LvmThin {
    fn kind(&self) -> Kind {
        Kind::LvmThin
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            is_atomic: true,
            switches_live: false,
            keeps_snapshot: true,
            keeps_old_tree: true,
            knows_changes: false,
            works_unprivileged: false,
            spares_state: false,
        }
    }

    fn directory(&self) -> &Path {
        &self.directory
    }

    fn list(&self) -> Result<Vec<(Id, Handle)>, Error> {
        let volumes = self.volumes()?;
        let ours = volumes.all.iter().filter(|volume| volume.of() == Some(&*self.volume));
        Ok(ours.filter_map(|volume| Some((volume.id()?, self.handle(volume)))).collect())
    }

    fn create(&self, id: Id) -> Result<Handle, Error> {
        let mounts = mounts::mounts()?;
        let device = mounts::mount_of(&mounts, &self.directory).map(|mount| mount.device);
        let Some(pool) = device.map(mapper::pool_below).transpose()?.flatten() else {
            let message = format!("{} is not mounted from a thin volume", self.directory.display());
            return Err(Error::refused(message));
        };
        volumes::check_room_of_device(&self.command, &pool)?;
        // The freeze is over the sooner the less is left to be written.
        place::sync_file_system(&self.directory)?;
        let name = volumes::snapshot_name(id);
        let how = ["--snapshot", "--permission", "r", "--setactivationskip", "y", "--name", &name];
        let (tags, full) = (volumes::tags(id, &self.volume, self.file_system), self.full(&self.volume));
        let tags = tags.iter().flat_map(|tag| ["--addtag", tag]);
        let arguments: Vec<&str> = how.into_iter().chain(tags).chain([full.as_str()]).collect();
        self.command.run("lvcreate", &arguments)?;
        let volumes = self.volumes()?;
        let made = volumes.named(&name).filter(|volume| volume.id() == Some(id));
        made.map(|volume| self.handle(volume))
            .ok_or_else(|| Error::refused(format!("{} was removed while it was made", self.full(&name))))
    }

    fn delete(&self, handle: &Handle) -> Result<(), Error> {
        place::sweep()?;
        let volumes = self.volumes()?;
        let Some(volume) = self.find(&volumes, handle)? else { return Ok(()) };
        let full = self.full(&volume.name);
        if let Some(device) = volume.device
            && let Some(mount) = mounts::mounts()?.iter().find(|mount| mount.device == device)
        {
            let message = format!("{full} is mounted on {}", mount.point.display());
            return Err(Error::refused(message).or("unmount it, or wait until nobody looks at it"));
        }
        self.command.run("lvremove", &["--yes", &full]).map(drop)
    }

    fn view(&self, handle: &Handle) -> Result<Box<dyn View>, Error> {
        let volumes = self.volumes()?;
        view::open(self, self.find_existing(&volumes, handle)?)
    }

    fn space(&self, handle: &Handle) -> Result<Space, Error> {
        place::sync_file_system(&self.directory)?;
        let volumes = self.volumes()?;
        let snapshot = self.find_existing(&volumes, handle)?;
        space::of(self, &volumes, snapshot)
    }

    fn plan_switch(&self, to: &Handle, old: Id) -> Result<Vec<Step>, Error> {
        switch::plan(self, to, old)
    }

    fn perform(&self, step: &Step) -> Result<(), Error> {
        switch::perform(self, step)
    }

    fn revert(&self, step: &Step) -> Result<(), Error> {
        switch::revert(self, step)
    }

    fn changed_paths(&self, _from: &Handle, _to: Option<&Handle>) -> Result<Option<Vec<Changed>>, Error> {
        Ok(None)
    }
}
