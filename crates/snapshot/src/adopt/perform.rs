//! Performing and reverting the steps of a move, onto a volume or back.
//!
//! Each one looks at how things are before it acts, and so can be performed again after a crash. Until the switch, the
//! old directory is the truth and each step can be reverted; from the switch on, the volume is, because programs write
//! to it, and what is left is finished.

use std::ffi::OsStr;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{IFlags, Mode, OFlags};
use rustix::mount::UnmountFlags;

use super::job::Job;
use super::step::Step;
use super::transfer::{self, Verified};
use super::{SUBVOLUME, held, unit};
use crate::attach;
use crate::btrfs::ioctl;
use crate::error::Error;
use crate::mounts;
use crate::reflink::attributes::Moment;
use crate::reflink::remove;
use crate::runner::{self, Runner};

/// How often what differs is copied again, before the tree is said to keep changing.
const PASSES: usize = 8;

/// What steps need besides the job, and remember from one to the next.
pub(super) struct Hands<'a> {
    pub(super) runner: &'a dyn Runner,
    pub(super) verified: Option<Verified>,
}

impl Job {
    /// Where the tree is copied from, and to.
    fn sides(&self) -> (std::path::PathBuf, std::path::PathBuf) {
        match self.is_back {
            false => (self.volume.directory.clone(), self.volume.tree()),
            true => (self.volume.directory.clone(), self.volume.old_tree()),
        }
    }

    /// Whether the target of the move is the truth already. On the way back a volume that is not mounted may as well
    /// have been lost from sight in a restart, so that the journal has a word in it.
    pub(super) fn is_switched(&self) -> Result<bool, Error> {
        let is_in_place = self.volume.is_in_place()?;
        if self.is_back && !is_in_place && !self.is_complete {
            let message = format!("the volume of {} is not mounted", self.volume.directory.display());
            let line = unit::fstab_line(&self.volume.directory, &self.volume.image);
            return Err(Error::refused(message).or(format!("mount it, as this line of fstab would: {line}")));
        }
        Ok(is_in_place != self.is_back)
    }

    pub(super) fn perform_step(&self, step: Step, hands: &mut Hands<'_>) -> Result<(), Error> {
        let volume = &self.volume;
        let is_switched = self.is_switched()?;
        match step {
            // Only before the switch: afterwards they would change what is the truth now.
            Step::Allocate
            | Step::MakeFileSystem
            | Step::MakeSubvolume
            | Step::OpenOld
            | Step::Copy
            | Step::Freeze
            | Step::CopyRest
                if is_switched =>
            {
                Ok(())
            }
            Step::CloseOld | Step::RemoveOld | Step::Discard if !is_switched => {
                Err(Error::refused(format!("{} is not switched yet", volume.directory.display())))
            }
            Step::Allocate => volume.allocate(self.bytes),
            Step::MakeFileSystem => make_file_system(self, hands.runner),
            Step::MountTop => volume.mount_top(),
            Step::UnmountTop => volume.unmount_top(),
            Step::MakeSubvolume => make_subvolume(&volume.top(), &volume.tree()),
            Step::MountBelow => volume.mount_below(),
            Step::UnmountBelow => volume.unmount_below(),
            Step::OpenOld => set_closed(self, false),
            Step::Copy => copy(self, hands),
            Step::StopUnits => systemctl(hands.runner, "stop", &self.stopped),
            Step::Freeze => freeze(self),
            Step::CopyRest => copy_rest(self, hands),
            Step::EnableUnit => match &volume.units {
                Some(units) => unit::enable(hands.runner, units, &volume.directory, &volume.image),
                None => Ok(()),
            },
            Step::DisableUnit => match &volume.units {
                Some(units) => unit::disable(hands.runner, units, &volume.directory),
                None => Ok(()),
            },
            Step::Switch => switch(self),
            Step::SwitchBack => switch_back(self),
            Step::CloseOld => set_closed(self, true),
            Step::StartUnits => systemctl(hands.runner, "start", &self.stopped),
            Step::RemoveOld => remove_old(self),
            Step::Discard => volume.discard(),
        }
    }

    /// Takes a step back; only before the switch.
    pub(super) fn revert_step(&self, step: Step, hands: &mut Hands<'_>) -> Result<(), Error> {
        let volume = &self.volume;
        match step {
            Step::Allocate => volume.discard(),
            Step::MountTop => volume.unmount_top(),
            Step::MountBelow => volume.unmount_below(),
            Step::OpenOld => set_closed(self, true),
            Step::StopUnits => systemctl(hands.runner, "start", &self.stopped),
            Step::Freeze => thaw(self),
            Step::EnableUnit => match &volume.units {
                Some(units) => unit::disable(hands.runner, units, &volume.directory),
                None => Ok(()),
            },
            Step::DisableUnit => match &volume.units {
                Some(units) => unit::enable(hands.runner, units, &volume.directory, &volume.image),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

fn make_file_system(job: &Job, runner: &dyn Runner) -> Result<(), Error> {
    // Again from the start if it was cut short; one that is mounted was finished.
    if !job.volume.mounts()?.is_empty() {
        return Ok(());
    }
    forget_file_system(&job.volume.image)?;
    let image = job.volume.image.as_os_str();
    // Without discarding, which would give the reserved blocks back.
    let options = ["--quiet", "--force", "--nodiscard", "--uuid", &job.volume.filesystem];
    let arguments: Vec<&OsStr> = options.iter().map(OsStr::new).chain([image]).collect();
    runner::run(runner, "mkfs.btrfs", &arguments).map(|_| ())
}

/// Where btrfs keeps its superblock and the copies of it, fs/btrfs/disk-io.h.
const SUPERBLOCKS: [u64; 3] = [64 << 10, 64 << 20, 256 << 30];

/// Wipes what an earlier try made: mkfs.btrfs 6.2 takes its device for another one of the new file system, since
/// that has the same UUID, and what it makes then cannot be mounted.
fn forget_file_system(image: &Path) -> Result<(), Error> {
    let failed = || Error::io("write", image);
    let file = std::fs::OpenOptions::new().write(true).open(image).map_err(Error::io("open", image))?;
    let length = file.metadata().map_err(Error::io("look at", image))?.len();
    for start in SUPERBLOCKS.into_iter().filter(|start| start + 4096 <= length) {
        file.write_all_at(&[0; 4096], start).map_err(failed())?;
    }
    file.sync_all().map_err(failed())
}

fn make_subvolume(top: &Path, tree: &Path) -> Result<(), Error> {
    if tree.symlink_metadata().is_ok() {
        return Ok(());
    }
    let opened = std::fs::File::open(top).map_err(Error::io("open", top))?;
    ioctl::create_subvolume(&opened, SUBVOLUME).map_err(Error::io("make a subvolume at", tree))
}

/// The time of now, as the kernel stamps it on a file.
fn kernel_time(job: &Job) -> Result<Moment, Error> {
    let path = job.volume.description();
    let opened = std::fs::File::open(&path).map_err(Error::io("open", &path))?;
    rustix::fs::fchmod(&opened, Mode::RUSR | Mode::WUSR).map_err(Error::io("set the mode of", &path))?;
    let stat = crate::reflink::attributes::look(crate::reflink::attributes::Place::Open(opened.as_fd()));
    Ok(stat.map_err(Error::io("look at", &path))?.stx_ctime.into())
}

fn copy(job: &Job, hands: &mut Hands<'_>) -> Result<(), Error> {
    let (source, target) = job.sides();
    let is_empty = std::fs::read_dir(&target).map_err(Error::io("list", &target))?.next().is_none();
    if is_empty {
        transfer::copy(&source, &target)?;
    }
    let (verified, _) = transfer::verify(&source, &target, kernel_time(job)?)?;
    hands.verified = Some(verified);
    Ok(())
}

fn copy_rest(job: &Job, hands: &mut Hands<'_>) -> Result<(), Error> {
    held::refuse(&job.volume, job.is_back)?;
    let (source, target) = job.sides();
    let mut differing = Vec::new();
    for _ in 0..PASSES {
        differing = match &hands.verified {
            Some(verified) => transfer::verify_since(&source, &target, verified)?,
            None => {
                let (verified, differing) = transfer::verify(&source, &target, kernel_time(job)?)?;
                hands.verified = Some(verified);
                differing
            }
        };
        if differing.is_empty() {
            return Ok(());
        }
    }
    let names: Vec<_> = differing.iter().take(3).map(|path| path.display().to_string()).collect();
    let message = format!("{} keeps changing: {}", source.display(), names.join(", "));
    Err(Error::refused(message).or("name the units that write to it, so that they are stopped meanwhile"))
}

/// A read-only mount of the directory upon itself: whoever opens something from now on, cannot write.
fn freeze(job: &Job) -> Result<(), Error> {
    let directory = &job.volume.directory;
    if is_frozen(job)? {
        return Ok(());
    }
    // Read-only before it is attached, so that what other namespaces get of it is, too.
    let mount = attach::clone_of_directory(directory)?;
    attach::set_options(&mount, "ro,relatime")?;
    attach::attach(&mount, rustix::fs::CWD, directory)
}

fn is_frozen(job: &Job) -> Result<bool, Error> {
    let of_volume = job.volume.mounts()?;
    let mut upon = mounts::mounts()?;
    upon.retain(|mount| mount.point == job.volume.directory);
    Ok(match job.is_back {
        false => upon.iter().any(|mount| !of_volume.contains(mount)),
        // The volume, and once more the volume.
        true => upon.len() > 1,
    })
}

fn thaw(job: &Job) -> Result<(), Error> {
    if !is_frozen(job)? {
        return Ok(());
    }
    let directory = &job.volume.directory;
    // Readers may be in it; they do no harm.
    rustix::mount::unmount(directory, UnmountFlags::DETACH).map_err(Error::io("unmount", directory))
}

fn switch(job: &Job) -> Result<(), Error> {
    let directory = &job.volume.directory;
    if !job.volume.is_in_place()? {
        let mount = attach::clone_of_directory(&job.volume.tree())?;
        // Under the read-only mount, so that there is no moment in which the old directory can be written to.
        if !is_frozen(job)? || !attach::attach_beneath(&mount, directory)? {
            thaw(job)?;
            return attach::attach(&mount, rustix::fs::CWD, directory);
        }
    }
    thaw(job)
}

fn switch_back(job: &Job) -> Result<(), Error> {
    let directory = &job.volume.directory;
    while job.volume.is_in_place()? {
        rustix::mount::unmount(directory, UnmountFlags::DETACH).map_err(Error::io("unmount", directory))?;
    }
    Ok(())
}

/// Makes the old directory inaccessible, and immutable where the file system can, or takes that back. Its entries are
/// not touched.
fn set_closed(job: &Job, is_closed: bool) -> Result<(), Error> {
    let directory = &job.volume.directory;
    let parent = directory.parent().unwrap_or(Path::new("/"));
    let name = directory.file_name().unwrap_or_default();
    let failed = || Error::io(if is_closed { "close" } else { "open" }, directory);
    // Without what is mounted upon it.
    let mount = attach::clone_of_directory(parent)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let old = rustix::fs::openat(&mount, name, flags, Mode::empty()).map_err(failed())?;
    let now = rustix::fs::ioctl_getflags(&old).unwrap_or(IFlags::empty());
    if is_closed && !now.contains(IFlags::IMMUTABLE) {
        rustix::fs::fchmod(&old, Mode::empty()).map_err(failed())?;
        // Not all file systems have it, and the mode alone stops all but root.
        let _ = rustix::fs::ioctl_setflags(&old, now | IFlags::IMMUTABLE);
    }
    if !is_closed {
        if now.contains(IFlags::IMMUTABLE) {
            rustix::fs::ioctl_setflags(&old, now - IFlags::IMMUTABLE).map_err(failed())?;
        }
        rustix::fs::fchmod(&old, Mode::RWXU).map_err(failed())?;
    }
    Ok(())
}

fn remove_old(job: &Job) -> Result<(), Error> {
    job.volume.mount_below()?;
    let old = job.volume.old_tree();
    set_closed(job, false)?;
    for entry in std::fs::read_dir(&old).map_err(Error::io("list", &old))? {
        let path = entry.map_err(Error::io("list", &old))?.path();
        match path.is_dir() && !path.is_symlink() {
            true => remove::tree(&path)?,
            false => std::fs::remove_file(&path).map_err(Error::io("remove", &path))?,
        }
    }
    set_closed(job, true)?;
    job.volume.unmount_below()
}

fn systemctl(runner: &dyn Runner, verb: &str, units: &[String]) -> Result<(), Error> {
    if units.is_empty() {
        return Ok(());
    }
    let arguments: Vec<&str> = [verb, "--"].into_iter().chain(units.iter().map(String::as_str)).collect();
    runner::run(runner, "systemctl", &arguments).map(|_| ())
}
