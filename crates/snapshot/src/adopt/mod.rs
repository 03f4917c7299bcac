//! Moving a directory onto a btrfs volume in a file, and back: snapshots for servers whose file system has none.
//!
//! The directory is copied into a btrfs that lies in an image file, compared byte by byte, and the volume is mounted
//! in its place. Invariant: until the switch the directory is the truth and everything can be put back; from the switch
//! on the volume is. The switch comes only when both were found equal while nobody could write, and the volume is
//! mounted at boot before anybody writes to it: a crash at any moment leaves one truth, never two.
//!
//! What the directory held stays where it was, below the volume's mount, until it is removed on purpose: it is the only
//! copy that does not depend on the new file system. It is closed (mode 0000, immutable), so that a start without
//! the volume fails visibly instead of going on with old data. It takes its room on the disk as before.
//!
//! A directory that is a mount point, or has mounts below, is refused.
//!
//! Does not know of snapshots.

mod held;
mod job;
mod loop_device;
mod perform;
mod run;
mod step;
mod transfer;
mod unit;
mod volume;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use job::{CHANGE, Job};
pub use run::{Ended, Observe};
pub use step::Step;
pub use transfer::Amount;
pub use unit::{fstab_line, is_systemd, name as unit_name, usual_directory as usual_units};
pub use volume::Volume;

use crate::error::Error;
use crate::holders::{self, Holder, Tree};
use crate::id::Id;
use crate::mounts;
use crate::runner::Runner;

/// The subvolume of a volume that the directory shows.
const SUBVOLUME: &str = "live";

/// How it is mounted. Discarding would give blocks of the image back to the disk below, so that they could be missing
/// when they are needed.
const OPTIONS: &str = "subvol=live,nodiscard";

/// What the loop device is divided into.
const BLOCK_BYTES: u64 = 4096;
/// btrfs wants room for two copies of its own trees before anything else.
const LEAST_BYTES: u64 = 256 << 20;
/// What btrfs takes for a small file: inode, name and content inside of its trees, twice.
const BYTES_PER_FILE: u64 = 4096;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// An absolute path without symbolic links.
    pub directory: PathBuf,
    /// The image file, which does not exist yet; its directory does.
    pub image: PathBuf,
    /// Its size, which is reserved on the disk.
    pub bytes: u64,
    /// Where mount units lie ([`usual_units`]), or `None` if the caller lets the volume be mounted at boot in another
    /// way ([`fstab_line`]).
    pub units: Option<PathBuf>,
    /// Units that are stopped for the switch, and started again.
    pub stop: Vec<String>,
    /// Whether what the directory held is kept below the volume.
    pub keeps_old: bool,
}

/// A plan that can be carried out.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is done.
    pub job: Job,
    /// How much is copied.
    pub amount: Amount,
    /// Who works in the directory. Those who still do when it is switched, stop it.
    pub holders: Vec<Holder>,
}

/// Plans to move a directory onto a new volume. Nothing is changed.
///
/// # Errors
/// Refused where it is not possible, with the way out.
pub fn plan(request: &Request, runner: &dyn Runner) -> Result<Plan, Error> {
    let (directory, image) = (&request.directory, &request.image);
    refuse_directory(directory)?;
    refuse_image(request)?;
    if runner.run("mkfs.btrfs", &[OsString::from("--version")]).is_err() {
        return Err(Error::refused("mkfs.btrfs is not installed").or("install the package btrfs-progs"));
    }
    let bytes = whole_blocks(request.bytes);
    let amount = transfer::measure(directory)?;
    let needed = (amount.bytes + amount.bytes / 16 + amount.files * BYTES_PER_FILE).max(LEAST_BYTES);
    if bytes < needed {
        let message = format!("{} needs a volume of {} MB at least", directory.display(), needed.div_ceil(1_000_000));
        return Err(Error::refused(message).or("give a larger --size"));
    }
    refuse_without_room(image.parent().unwrap_or(Path::new("/")), bytes)?;
    let filesystem = std::fs::read_to_string(UUID).map_err(Error::io("read", UUID))?.trim().to_owned();
    let volume =
        Volume { directory: directory.clone(), image: image.clone(), filesystem, units: request.units.clone() };
    let mut steps = vec![
        Step::Allocate,
        Step::MakeFileSystem,
        Step::MountTop,
        Step::MakeSubvolume,
        Step::Copy,
        Step::StopUnits,
        Step::Freeze,
        Step::CopyRest,
        Step::EnableUnit,
        Step::Switch,
        Step::CloseOld,
        Step::StartUnits,
    ];
    steps.extend((!request.keeps_old).then_some(Step::RemoveOld));
    steps.push(Step::UnmountTop);
    let stopped = request.stop.clone();
    let job = Job { id: Id::random(), is_back: false, volume, bytes, stopped, steps, is_complete: false };
    let holders = holders::of(&Tree::Below(directory.clone()), None)?;
    Ok(Plan { job, amount, holders })
}

/// A random one each time it is read, random(4).
const UUID: &str = "/proc/sys/kernel/random/uuid";

/// Plans to move a directory back from its volume. Nothing is changed.
///
/// # Errors
/// Refused where there is no room, or snapshots lie on the volume, which would be lost.
pub fn plan_back(volume: &Volume, stop: Vec<String>) -> Result<Plan, Error> {
    let directory = &volume.directory;
    if !volume.is_in_place()? {
        let message = format!("the volume of {} is not mounted", directory.display());
        return Err(Error::refused(message).or("mount it first: its state is what is moved back"));
    }
    refuse_mounts_below(directory)?;
    volume.mount_top()?;
    let snapshots = others(&volume.top());
    volume.unmount_top()?;
    if let Some(name) = snapshots? {
        let message = format!("the volume of {} also holds {}", directory.display(), name.display());
        return Err(Error::refused(message).or("delete its snapshots first; they do not outlive the volume"));
    }
    let amount = transfer::measure(directory)?;
    volume.mount_below()?;
    let there = transfer::measure(&volume.old_tree());
    volume.unmount_below()?;
    let parent = directory.parent().unwrap_or(Path::new("/"));
    refuse_without_room(parent, (amount.bytes + amount.files * BYTES_PER_FILE).saturating_sub(there?.bytes))?;
    let steps = vec![
        Step::MountBelow,
        Step::OpenOld,
        Step::Copy,
        Step::StopUnits,
        Step::Freeze,
        Step::CopyRest,
        Step::DisableUnit,
        Step::SwitchBack,
        Step::StartUnits,
        Step::UnmountBelow,
        Step::Discard,
    ];
    let volume = volume.clone();
    let job = Job { id: Id::random(), is_back: true, volume, bytes: 0, stopped: stop, steps, is_complete: false };
    let holders = holders::of(&Tree::of(directory)?, Some(directory))?;
    Ok(Plan { job, amount, holders })
}

/// Something on a volume that is not the directory's tree. The store of the snapshots stays when it is empty.
fn others(top: &Path) -> Result<Option<PathBuf>, Error> {
    for entry in std::fs::read_dir(top).map_err(Error::io("list", top))? {
        let path = entry.map_err(Error::io("list", top))?.path();
        let is_empty = || std::fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_none());
        if path.file_name() != Some(SUBVOLUME.as_ref()) && !is_empty() {
            return Ok(path.file_name().map(PathBuf::from));
        }
    }
    Ok(None)
}

fn refuse_directory(directory: &Path) -> Result<(), Error> {
    if !rustix::process::geteuid().is_root() {
        let action = format!("mount a volume upon {}", directory.display());
        return Err(Error::Privilege { action, capability: "CAP_SYS_ADMIN", hint: Some("run it as root".to_owned()) });
    }
    let stat = std::fs::symlink_metadata(directory).map_err(Error::io("look at", directory))?;
    if !stat.is_dir() || directory.parent().is_none() {
        return Err(Error::refused(format!("{} is no directory that can be moved", directory.display())));
    }
    let mounts = mounts::mounts()?;
    if mounts.iter().any(|mount| mount.point == directory) {
        let message = format!("{} is a mount point", directory.display());
        return Err(Error::refused(message).or("adopt a directory in it"));
    }
    if let Some(mount) = mounts::mount_of(&mounts, directory).filter(|mount| mount.kind == "btrfs") {
        let message = format!("{} lies on a btrfs already, mounted at {}", directory.display(), mount.point.display());
        return Err(Error::refused(message).or("snapshots of it can be made as it is"));
    }
    refuse_mounts_below(directory)
}

fn refuse_mounts_below(directory: &Path) -> Result<(), Error> {
    let mounts = mounts::mounts()?;
    match mounts::below(&mounts, directory).next() {
        None => Ok(()),
        Some(mount) => {
            let message = format!("something is mounted below {}: {}", directory.display(), mount.point.display());
            Err(Error::refused(message).or("unmount it, and mount it again afterwards"))
        }
    }
}

fn refuse_image(request: &Request) -> Result<(), Error> {
    let (directory, image) = (&request.directory, &request.image);
    let parent = image.parent().filter(|parent| parent.is_dir()).ok_or_else(|| {
        Error::refused(format!("there is no directory for the image {}", image.display())).or("make it first")
    })?;
    let real = parent.canonicalize().map_err(Error::io("look at", parent))?;
    if real != parent {
        return Err(Error::refused(format!("{} goes through a symbolic link", image.display()))
            .or(format!("name it as it is: {}", real.display())));
    }
    if image.starts_with(directory) {
        return Err(Error::refused(format!("{} would lie inside of itself", image.display()))
            .or("give another place for the image"));
    }
    if image.symlink_metadata().is_ok() {
        return Err(Error::refused(format!("{} exists already", image.display())).or("give another name for the image"));
    }
    let unit = request.units.as_ref().map(|units| units.join(unit_name(directory)));
    match unit.filter(|unit| unit.symlink_metadata().is_ok()) {
        None => Ok(()),
        Some(unit) => Err(Error::refused(format!("there is a mount unit for {} already", directory.display()))
            .or(format!("see whether it is still needed, and remove {}", unit.display()))),
    }
}

/// Refuses if a file system has no room, and a little more that it keeps for others.
fn refuse_without_room(place: &Path, bytes: u64) -> Result<(), Error> {
    let found = rustix::fs::statvfs(place).map_err(Error::io("look at", place))?;
    let free = found.f_bavail * found.f_frsize;
    let wanted = bytes + bytes / 64;
    if free < wanted {
        let mb = |bytes: u64| bytes.div_ceil(1_000_000);
        let message = format!("{} MB are needed at {}, where {} MB are free", mb(wanted), place.display(), mb(free));
        return Err(Error::refused(message).or("give a smaller size, or another place for the image"));
    }
    Ok(())
}

fn whole_blocks(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK_BYTES)
}
