//! A btrfs in an image file, and the directory it stands for.
//!
//! ```text
//! shop.btrfs        the image; preallocated, so that it cannot run out of room on the disk below
//! shop.btrfs.json   which directory it is (this document)
//! shop.btrfs.top    mount point of its top level while it is worked on
//! shop.btrfs.below  mount point through which the directory below the volume is reached
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use serde::{Deserialize, Serialize};

use super::loop_device;
use crate::attach;
use crate::btrfs::ioctl;
use crate::error::Error;
use crate::mounts::{self, Mount};

/// What a volume is and stands for; lies beside the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Where it is mounted.
    pub directory: PathBuf,
    /// The image file.
    pub image: PathBuf,
    /// UUID of the file system in it.
    pub filesystem: String,
    /// Where the mount unit lies, if there is one.
    pub units: Option<PathBuf>,
}

impl Volume {
    /// All volumes whose images lie in `volumes`.
    pub fn all(volumes: &Path) -> Result<Vec<Volume>, Error> {
        let mut all = Vec::new();
        for entry in fs::read_dir(volumes).map_err(Error::io("list", volumes))? {
            let path = entry.map_err(Error::io("list", volumes))?.path();
            if path.extension() != Some("json".as_ref()) {
                continue;
            }
            let text = fs::read(&path).map_err(Error::io("read", &path))?;
            all.push(
                serde_json::from_slice(&text).map_err(|error| Error::Damaged { path, reason: error.to_string() })?,
            );
        }
        Ok(all)
    }

    /// The volume that a directory was moved to, of those whose images lie in `volumes`.
    pub fn find(volumes: &Path, directory: &Path) -> Result<Option<Volume>, Error> {
        Ok(Volume::all(volumes)?.into_iter().find(|volume| volume.directory == directory))
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.image.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    }

    pub(super) fn description(&self) -> PathBuf {
        self.beside(".json")
    }

    pub(super) fn top(&self) -> PathBuf {
        self.beside(".top")
    }

    pub(super) fn below(&self) -> PathBuf {
        self.beside(".below")
    }

    /// The tree that the directory shows, seen from the top level.
    pub(super) fn tree(&self) -> PathBuf {
        self.top().join(super::SUBVOLUME)
    }

    /// The directory below the volume's mount, while that is reachable.
    pub(super) fn old_tree(&self) -> PathBuf {
        self.below().join(self.directory.file_name().unwrap_or_default())
    }

    /// Allocates the image, and describes it.
    pub(super) fn allocate(&self, bytes: u64) -> Result<(), Error> {
        let mut options = OpenOptions::new();
        let file =
            options.create(true).truncate(false).read(true).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let file = file.open(&self.image).map_err(Error::io("create", &self.image))?;
        allocate(&file, &self.image, bytes)?;
        file.sync_all().map_err(Error::io("sync", &self.image))?;
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::refused(format!("{}: {error}", self.image.display())))?;
        let (path, unfinished) = (self.description(), self.beside(".json.tmp"));
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(true).write(true).mode(0o600).open(&unfinished);
        let mut file = file.map_err(Error::io("create", &unfinished))?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(Error::io("write", &unfinished))?;
        fs::rename(&unfinished, &path).map_err(Error::io("rename", &unfinished))?;
        self.sync_directory()
    }

    /// Removes the image, which must not be in use, and all beside it.
    pub(super) fn discard(&self) -> Result<(), Error> {
        if let Some(mount) = self.mounts()?.first() {
            let message = format!("{} is mounted at {}", self.image.display(), mount.point.display());
            return Err(Error::refused(message).or("unmount it first"));
        }
        for path in [self.image.clone(), self.beside(".json.tmp"), self.description()] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                removed => removed.map_err(Error::io("remove", &path))?,
            }
        }
        self.sync_directory()
    }

    fn sync_directory(&self) -> Result<(), Error> {
        let directory = self.image.parent().unwrap_or(Path::new("/"));
        File::open(directory).and_then(|opened| opened.sync_all()).map_err(Error::io("sync", directory))
    }

    /// Where the volume is mounted, in the order in which that was done.
    pub(super) fn mounts(&self) -> Result<Vec<Mount>, Error> {
        let devices = loop_device::devices(&self.image)?;
        let mut mounts = mounts::mounts()?;
        mounts.retain(|mount| mount.kind == "btrfs" && devices.iter().any(|device| *device == *mount.source));
        Ok(mounts)
    }

    /// Whether the volume is mounted in the directory's place.
    pub(super) fn is_in_place(&self) -> Result<bool, Error> {
        Ok(self.mounts()?.iter().any(|mount| mount.point == self.directory))
    }

    /// Mounts the top level aside, and attaches a loop device if there is none.
    pub(super) fn mount_top(&self) -> Result<(), Error> {
        let top = self.top();
        make_private_directory(&top)?;
        if self.mounts()?.iter().any(|mount| mount.point == top) {
            return Ok(());
        }
        let (device, _open) = loop_device::attached(&self.image)?;
        rustix::mount::mount(&device, &top, "btrfs", MountFlags::empty(), c"subvolid=5,nodiscard")
            .map_err(Error::io("mount the file system in", &self.image))?;
        loop_device::take_no_discards(&device)?;
        let opened = File::open(&top).map_err(Error::io("open", &top))?;
        let found = ioctl::filesystem(&opened).map_err(|error| Error::io("ask for the file system at", &top)(error))?;
        if found != self.filesystem {
            return Err(Error::refused(format!(
                "{} holds another file system than it did: {found}, not {}",
                self.image.display(),
                self.filesystem
            )));
        }
        Ok(())
    }

    /// Takes the top level's mount away; the loop device goes with the last mount.
    pub(super) fn unmount_top(&self) -> Result<(), Error> {
        unmount_and_remove(&self.top())
    }

    /// Makes what lies below the volume's mount reachable: the parent directory once more, without what is mounted in
    /// it.
    pub(super) fn mount_below(&self) -> Result<(), Error> {
        let point = self.below();
        make_private_directory(&point)?;
        if mounts::mounts()?.iter().any(|mount| mount.point == point) {
            return Ok(());
        }
        let parent = self.directory.parent().unwrap_or(Path::new("/"));
        attach::attach(&attach::clone_of_directory(parent)?, rustix::fs::CWD, &point)
    }

    pub(super) fn unmount_below(&self) -> Result<(), Error> {
        unmount_and_remove(&self.below())
    }

    /// Makes the volume larger while it is mounted. The file system takes all of it, also after a crash in between.
    ///
    /// # Errors
    /// Refused if it would become smaller, or the disk has not that much room.
    pub fn grow(&self, bytes: u64) -> Result<(), Error> {
        let bytes = super::whole_blocks(bytes);
        let file = OpenOptions::new().read(true).write(true).open(&self.image);
        let file = file.map_err(Error::io("open", &self.image))?;
        let now = file.metadata().map_err(Error::io("look at", &self.image))?.len();
        if bytes < now {
            let message = format!("{} has {now} bytes already; volumes do not shrink", self.image.display());
            return Err(Error::refused(message));
        }
        if !self.is_in_place()? {
            return Err(Error::refused(format!("the volume of {} is not mounted", self.directory.display())));
        }
        super::refuse_without_room(self.image.parent().unwrap_or(Path::new("/")), bytes - now)?;
        if let Err(error) = allocate(&file, &self.image, bytes) {
            // Nothing lies in what was added yet.
            let _ = file.set_len(now);
            return Err(error);
        }
        file.sync_all().map_err(Error::io("sync", &self.image))?;
        for device in loop_device::devices(&self.image)? {
            loop_device::grow(&device)?;
        }
        let opened = File::open(&self.directory).map_err(Error::io("open", &self.directory))?;
        ioctl::resize(opened.as_fd(), "max").map_err(Error::io("grow the file system at", &self.directory))
    }

    /// What a mount unit cannot ask for, done again after each boot: the loop device goes past the page cache and takes
    /// no discards, and blocks of the image that were discarded nevertheless (fstrim(8)) are reserved again.
    ///
    /// # Errors
    /// Refused if the disk below has no room any more for what was discarded.
    pub fn keep_up(&self) -> Result<(), Error> {
        for device in loop_device::devices(&self.image)? {
            loop_device::go_direct(&device)?;
            loop_device::take_no_discards(&device)?;
        }
        let file = OpenOptions::new().read(true).write(true).open(&self.image);
        let file = file.map_err(Error::io("open", &self.image))?;
        let bytes = file.metadata().map_err(Error::io("look at", &self.image))?.len();
        allocate(&file, &self.image, bytes)
    }
}

/// Real blocks, not a sparse file: a file system whose blocks turn out not to be there fails in the middle of writing,
/// and turns read-only.
fn allocate(file: &File, image: &Path, bytes: u64) -> Result<(), Error> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Err(Errno::NOSPC) => {
            Err(Error::refused(format!("the disk has no {bytes} bytes of room for {}", image.display()))
                .or("give a smaller size, or another place for the image"))
        }
        Err(Errno::OPNOTSUPP) => {
            let message = format!("the file system of {} cannot reserve room for a file", image.display());
            Err(Error::refused(message).or("give another place for the image"))
        }
        allocated => allocated.map_err(Error::io("allocate", image)),
    }
}

fn make_private_directory(path: &Path) -> Result<(), Error> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map_err(Error::io("create", path)),
    }
}

/// How often a mount point is tried that somebody is looking at just now, and how long it is waited in between.
const TRIES: usize = 100;
const PAUSE: Duration = Duration::from_millis(20);

fn unmount_and_remove(point: &Path) -> Result<(), Error> {
    let mut tries = 0;
    while mounts::mounts()?.iter().any(|mount| mount.point == point) {
        match rustix::mount::unmount(point, UnmountFlags::empty()) {
            Err(Errno::BUSY) if tries < TRIES => std::thread::sleep(PAUSE),
            unmounted => unmounted.map_err(Error::io("unmount", point))?,
        }
        tries += 1;
    }
    match fs::remove_dir(point) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(Error::io("remove", point)),
    }
}
