//! The ioctls of btrfs that snapshots need, as safe functions. Structures and numbers are those of the kernel's
//! `include/uapi/linux/btrfs.h`; what each one demands and answers is in `fs/btrfs/ioctl.c`.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use linux_raw_sys::btrfs::{
    BTRFS_LOGICAL_INO_ARGS_IGNORE_OFFSET, BTRFS_SEND_FLAG_NO_FILE_DATA, BTRFS_SUBVOL_RDONLY, btrfs_ioctl_dev_info_args,
    btrfs_ioctl_fs_info_args, btrfs_ioctl_get_subvol_info_args, btrfs_ioctl_ino_lookup_args, btrfs_ioctl_ino_path_args,
    btrfs_ioctl_logical_ino_args, btrfs_ioctl_send_args, btrfs_ioctl_vol_args, btrfs_ioctl_vol_args_v2,
};
use linux_raw_sys::ioctl as number;
use rustix::ioctl::{Opcode, Updater, ioctl};

/// What the kernel knows of a subvolume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subvolume {
    /// Its number: the id of its tree.
    pub(crate) id: u64,
    /// Its UUID, as text.
    pub(crate) uuid: String,
    /// The transaction that made it. What is written to the source of a snapshot later has a higher generation.
    pub(crate) made_in: u64,
    /// The last transaction that changed it.
    pub(crate) changed_in: u64,
    /// Whether it is read-only.
    pub(crate) is_read_only: bool,
}

/// Calls an ioctl whose argument is a structure that the kernel reads and writes.
///
/// # Safety
/// The structure must be the one that belongs to the number, and pointers in it must be valid for the call.
pub(crate) unsafe fn update<const NUMBER: Opcode, T>(fd: impl AsFd, value: &mut T) -> io::Result<()> {
    // SAFETY: as the caller promises.
    unsafe { Ok(ioctl(fd, Updater::<NUMBER, T>::new(value))?) }
}

/// An argument of all zero bytes, which all of btrfs's arguments allow: integers, arrays of them, nullable pointers.
fn zeroed<T: Argument>() -> T {
    // SAFETY: see `Argument`.
    unsafe { std::mem::zeroed() }
}

/// # Safety
/// All zero bytes are a value of the type.
unsafe trait Argument {}
// SAFETY: integers and arrays of integers; a pointer may be null.
unsafe impl Argument for btrfs_ioctl_vol_args_v2 {}
// SAFETY: integers and arrays of integers.
unsafe impl Argument for btrfs_ioctl_vol_args {}
// SAFETY: integers and arrays of integers.
unsafe impl Argument for btrfs_ioctl_get_subvol_info_args {}
// SAFETY: integers and arrays of integers.
unsafe impl Argument for btrfs_ioctl_fs_info_args {}
// SAFETY: integers and arrays of integers.
unsafe impl Argument for btrfs_ioctl_dev_info_args {}
// SAFETY: integers and arrays of integers.
unsafe impl Argument for btrfs_ioctl_ino_lookup_args {}

/// The argument that names an entry of a directory.
fn named(name: &str) -> io::Result<btrfs_ioctl_vol_args_v2> {
    let mut args: btrfs_ioctl_vol_args_v2 = zeroed();
    // SAFETY: both variants of the union are plain integers, and all of it is initialized.
    let field = unsafe { &mut args.__bindgen_anon_2.name };
    if name.len() >= field.len() || name.contains('\0') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in field.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed() as _;
    }
    Ok(args)
}

/// Makes a snapshot of a subvolume as an entry of a directory. When it returns, it is on the disk: the ioctl commits
/// the transaction.
pub(crate) fn create_snapshot(source: BorrowedFd, to: impl AsFd, name: &str, is_read_only: bool) -> io::Result<()> {
    let mut args = named(name)?;
    args.fd = source.as_raw_fd().into();
    args.flags = if is_read_only { BTRFS_SUBVOL_RDONLY.into() } else { 0 };
    // SAFETY: number and structure belong together.
    unsafe { update::<{ number::BTRFS_IOC_SNAP_CREATE_V2 }, _>(to, &mut args) }
}

/// Makes an empty subvolume as an entry of a directory.
pub(crate) fn create_subvolume(to: impl AsFd, name: &str) -> io::Result<()> {
    // SAFETY: number and structure belong together.
    unsafe { update::<{ number::BTRFS_IOC_SUBVOL_CREATE_V2 }, _>(to, &mut named(name)?) }
}

/// Gives a file system another size: in bytes, or `max` for all of its device.
pub(crate) fn resize(fd: impl AsFd, size: &str) -> io::Result<()> {
    let mut args: btrfs_ioctl_vol_args = zeroed();
    for (to, from) in args.name.iter_mut().zip(size.bytes()) {
        *to = from.cast_signed() as _;
    }
    // SAFETY: number and structure belong together.
    unsafe { update::<{ number::BTRFS_IOC_RESIZE }, _>(fd, &mut args) }
}

/// Deletes the subvolume that is an entry of a directory. The kernel does not refuse this for one that is mounted.
pub(crate) fn destroy_subvolume(directory: impl AsFd, name: &str) -> io::Result<()> {
    // SAFETY: number and structure belong together.
    unsafe { update::<{ number::BTRFS_IOC_SNAP_DESTROY_V2 }, _>(directory, &mut named(name)?) }
}

/// What the kernel knows of the subvolume that a file lies in.
pub(crate) fn subvolume(fd: impl AsFd) -> io::Result<Subvolume> {
    let mut args: btrfs_ioctl_get_subvol_info_args = zeroed();
    // SAFETY: number and structure belong together.
    unsafe { update::<{ number::BTRFS_IOC_GET_SUBVOL_INFO }, _>(fd, &mut args)? };
    // The flags are those of the tree's root item: BTRFS_ROOT_SUBVOL_RDONLY.
    let is_read_only = args.flags & 1 != 0;
    Ok(Subvolume {
        id: args.treeid,
        uuid: uuid(&args.uuid),
        made_in: args.otransid,
        changed_in: args.ctransid,
        is_read_only,
    })
}

/// The UUID of the file system.
pub(crate) fn filesystem(fd: impl AsFd) -> io::Result<String> {
    Ok(uuid(&fs_info(fd)?.fsid))
}

/// The paths of the file system's devices, as the kernel knows them.
pub(crate) fn devices(fd: impl AsFd) -> io::Result<Vec<Vec<u8>>> {
    let mut paths = Vec::new();
    // Device 0 is there while one is being replaced.
    for device in 1..=fs_info(&fd)?.max_id {
        let mut args: btrfs_ioctl_dev_info_args = zeroed();
        args.devid = device;
        // SAFETY: number and structure belong together.
        match unsafe { update::<{ number::BTRFS_IOC_DEV_INFO }, _>(&fd, &mut args) } {
            Ok(()) => paths.push(args.path.iter().copied().take_while(|byte| *byte != 0).collect()),
            // Removed long ago.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(paths)
}

fn fs_info(fd: impl AsFd) -> io::Result<btrfs_ioctl_fs_info_args> {
    let mut args: btrfs_ioctl_fs_info_args = zeroed();
    // SAFETY: number and structure belong together.
    unsafe { update::<{ number::BTRFS_IOC_FS_INFO }, _>(fd, &mut args)? };
    Ok(args)
}

/// Where a directory lies in its subvolume: empty for the root, else with a slash at the end.
pub(crate) fn directory_path(fd: impl AsFd, subvolume: u64, inode: u64) -> io::Result<Vec<u8>> {
    let mut args: btrfs_ioctl_ino_lookup_args = zeroed();
    (args.treeid, args.objectid) = (subvolume, inode);
    // SAFETY: number and structure belong together.
    unsafe { update::<{ number::BTRFS_IOC_INO_LOOKUP }, _>(fd, &mut args)? };
    Ok(args.name.iter().map(|byte| *byte as u8).take_while(|byte| *byte != 0).collect())
}

/// Makes a subvolume the one that is mounted where no other is asked for.
pub(crate) fn set_default(fd: impl AsFd, mut subvolume: u64) -> io::Result<()> {
    // SAFETY: number and structure belong together.
    unsafe { update::<{ number::BTRFS_IOC_DEFAULT_SUBVOL }, _>(fd, &mut subvolume) }
}

/// Makes a subvolume read-only or writable.
pub(crate) fn set_read_only(subvolume: impl AsFd, is_read_only: bool) -> io::Result<()> {
    let mut flags = 0_u64;
    // SAFETY: number and structure belong together.
    unsafe { update::<{ number::BTRFS_IOC_SUBVOL_GETFLAGS }, _>(&subvolume, &mut flags)? };
    let flag = u64::from(BTRFS_SUBVOL_RDONLY);
    let mut flags = if is_read_only { flags | flag } else { flags & !flag };
    // SAFETY: number and structure belong together.
    unsafe { update::<{ number::BTRFS_IOC_SUBVOL_SETFLAGS }, _>(&subvolume, &mut flags) }
}

/// Waits until all changes of names and trees made so far are on the disk. Does not wait for data.
pub(crate) fn commit(fd: impl AsFd) -> io::Result<()> {
    let mut transaction = 0_u64;
    // SAFETY: number and structure belong together.
    unsafe { update::<{ number::BTRFS_IOC_START_SYNC }, _>(&fd, &mut transaction)? };
    // SAFETY: number and structure belong together.
    unsafe { update::<{ number::BTRFS_IOC_WAIT_SYNC }, _>(&fd, &mut transaction) }
}

/// Writes what differs between two read-only subvolumes to a file, without the data of files. With `parent` 0 all of
/// it.
pub(crate) fn send(subvolume: impl AsFd, parent: u64, to: BorrowedFd) -> io::Result<()> {
    let mut args = btrfs_ioctl_send_args {
        send_fd: to.as_raw_fd().into(),
        clone_sources_count: 0,
        clone_sources: std::ptr::null_mut(),
        parent_root: parent,
        flags: BTRFS_SEND_FLAG_NO_FILE_DATA.into(),
        version: 0,
        reserved: [0; 28],
    };
    // SAFETY: number and structure belong together; there are no clone sources to point at.
    unsafe { update::<{ number::BTRFS_IOC_SEND }, _>(subvolume, &mut args) }
}

/// All paths of an inode in the subvolume that `fd` lies in; `None` if they are too many to be told.
pub(crate) fn inode_paths(fd: impl AsFd, inode: u64) -> io::Result<Option<Vec<Vec<u8>>>> {
    // 64 KiB are the most that the kernel fills. After a head of 16 bytes come offsets of strings, counted from
    // behind the head.
    let mut buffer = vec![0_u64; 8192];
    let size = std::mem::size_of_val(buffer.as_slice()) as u64;
    let fspath = buffer.as_mut_ptr() as u64;
    let mut args = btrfs_ioctl_ino_path_args { inum: inode, size, reserved: [0; 4], fspath };
    // SAFETY: number and structure belong together; the buffer has the size that it says.
    unsafe { update::<{ number::BTRFS_IOC_INO_PATHS }, _>(fd, &mut args)? };
    let (count, is_complete) = container_head(&buffer);
    if !is_complete {
        return Ok(None);
    }
    let bytes: Vec<u8> = buffer[2..].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let strings = buffer[2..].iter().take(count).map(|offset| {
        let string = usize::try_from(*offset).ok().and_then(|offset| bytes.get(offset..))?;
        Some(string.iter().copied().take_while(|byte| *byte != 0).collect())
    });
    Ok(strings.collect())
}

/// The subvolumes in which any part of an extent is used; `None` if they are too many to be told.
pub(crate) fn users_of_extent(fd: impl AsFd, logical: u64) -> io::Result<Option<Vec<u64>>> {
    let mut buffer = vec![0_u64; 8192];
    let size = std::mem::size_of_val(buffer.as_slice()) as u64;
    let mut args = btrfs_ioctl_logical_ino_args {
        logical,
        size,
        reserved: [0; 3],
        flags: BTRFS_LOGICAL_INO_ARGS_IGNORE_OFFSET.into(),
        inodes: buffer.as_mut_ptr() as u64,
    };
    // SAFETY: number and structure belong together; the buffer has the size that it says.
    unsafe { update::<{ number::BTRFS_IOC_LOGICAL_INO_V2 }, _>(fd, &mut args)? };
    // Threes of inode, offset and subvolume; the count is that of numbers.
    let (count, is_complete) = container_head(&buffer);
    let used = buffer[2..].iter().take(count).skip(2).step_by(3);
    Ok(is_complete.then(|| used.copied().collect()))
}

/// The head of `struct btrfs_data_container`: bytes left, bytes missing, elements, elements missed.
fn container_head(buffer: &[u64]) -> (usize, bool) {
    let halves = |word: u64| {
        let bytes = word.to_ne_bytes();
        let half = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        (half(0), half(4))
    };
    let ((_, bytes_missing), (elements, missed)) = (halves(buffer[0]), halves(buffer[1]));
    (elements as usize, bytes_missing == 0 && missed == 0)
}

fn uuid(bytes: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}
