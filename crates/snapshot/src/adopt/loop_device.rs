//! Loop devices, loop(4): a file as a block device.
//!
//! A device is attached with direct I/O, so that nothing is cached twice, and with automatic detachment: it is gone when
//! the last mount of it is, also after a crash.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use crate::error::Error;

// linux/loop.h
const CTL_GET_FREE: libc::Ioctl = 0x4c82;
const CONFIGURE: libc::Ioctl = 0x4c0a;
const GET_STATUS64: libc::Ioctl = 0x4c05;
const SET_CAPACITY: libc::Ioctl = 0x4c07;
const SET_DIRECT_IO: libc::Ioctl = 0x4c08;
const AUTOCLEAR: u32 = 4;
const DIRECT_IO: u32 = 16;

/// btrfs reads and writes no less.
const BLOCK_BYTES: u32 = 4096;

/// `struct loop_info64`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

impl Default for Info {
    fn default() -> Info {
        Info {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: 0,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        }
    }
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

/// Others may take the free device that was told: it is asked for this often.
const TRIES: usize = 64;

/// The devices that an image is attached to.
pub(super) fn devices(image: &Path) -> Result<Vec<PathBuf>, Error> {
    let block = Path::new("/sys/block");
    let mut devices = Vec::new();
    for entry in std::fs::read_dir(block).map_err(Error::io("list", block))? {
        let name = entry.map_err(Error::io("list", block))?.file_name();
        let backing = block.join(&name).join("loop/backing_file");
        // Not a loop device, or not attached.
        let Ok(file) = std::fs::read_to_string(backing) else { continue };
        if Path::new(file.trim_end_matches('\n')) == image {
            devices.push(Path::new("/dev").join(name));
        }
    }
    Ok(devices)
}

/// The device that an image is attached to, which is done if it is not. As long as the file that is given back is open,
/// or the device is mounted, it stays attached. Never a second one: btrfs would take the two for two disks.
pub(super) fn attached(image: &Path) -> Result<(PathBuf, File), Error> {
    for _ in 0..TRIES {
        let Some(device) = devices(image)?.into_iter().next() else { return attach(image) };
        if let Ok(file) = OpenOptions::new().read(true).write(true).open(&device)
            && is_ready(&file)
        {
            return Ok((device, file));
        }
        // It is being detached, because the last mount of it was just taken away.
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(Error::refused(format!("a loop device of {} does not get ready", image.display()))
        .or("see its state: losetup --list"))
}

/// Whether an open device is attached to something, and not about to be detached.
fn is_ready(device: &File) -> bool {
    let mut info = Info::default();
    // SAFETY: the structure is laid out as the kernel's, which fills it.
    unsafe { libc::ioctl(device.as_raw_fd(), GET_STATUS64, &raw mut info) == 0 }
}

fn attach(image: &Path) -> Result<(PathBuf, File), Error> {
    let opened = OpenOptions::new().read(true).write(true).open(image).map_err(Error::io("open", image))?;
    let control = Path::new("/dev/loop-control");
    let control_file = OpenOptions::new().read(true).write(true).open(control).map_err(Error::io("open", control))?;
    for _ in 0..TRIES {
        let number =
            call(&control_file, CTL_GET_FREE, 0).map_err(Error::io("find a free loop device through", control))?;
        let device = PathBuf::from(format!("/dev/loop{number}"));
        let file = match OpenOptions::new().read(true).write(true).open(&device) {
            // Taken away again.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            file => file.map_err(Error::io("open", &device))?,
        };
        let answer = configure(&file, &opened, AUTOCLEAR | DIRECT_IO);
        match if answer == Err(Errno::INVAL) { configure(&file, &opened, AUTOCLEAR) } else { answer } {
            Err(Errno::BUSY) => {}
            answer => {
                answer.map_err(Error::io("attach a loop device to", image))?;
                return Ok((device, file));
            }
        }
    }
    Err(Error::refused("no loop device is free").or("see which ones are in use: losetup --list"))
}

fn configure(device: &File, image: &File, flags: u32) -> Result<(), Errno> {
    let info = Info { flags, ..Info::default() };
    let fd = image.as_raw_fd().cast_unsigned();
    let config = Config { fd, block_size: BLOCK_BYTES, info, reserved: [0; 8] };
    // SAFETY: the structure is laid out as the kernel's, and outlives the call, which only reads it.
    let answer = unsafe { libc::ioctl(device.as_raw_fd(), CONFIGURE, &raw const config) };
    result(answer).map(|_| ())
}

/// Lets the device be as large as its image has become.
pub(super) fn grow(device: &Path) -> Result<(), Error> {
    let file = OpenOptions::new().read(true).write(true).open(device).map_err(Error::io("open", device))?;
    call(&file, SET_CAPACITY, 0).map(|_| ()).map_err(Error::io("grow", device))
}

/// Makes the device go past the page cache, which mount(8) has no option for; where it cannot, it stays as it is.
pub(super) fn go_direct(device: &Path) -> Result<(), Error> {
    let file = OpenOptions::new().read(true).write(true).open(device).map_err(Error::io("open", device))?;
    match call(&file, SET_DIRECT_IO, 1) {
        Ok(_) | Err(Errno::INVAL) => Ok(()),
        Err(error) => Err(Error::io("set direct I/O of", device)(error)),
    }
}

/// Lets discards fail: they would punch holes into the image, whose blocks are reserved.
pub(super) fn take_no_discards(device: &Path) -> Result<(), Error> {
    let name = device.file_name().unwrap_or_default();
    let path = Path::new("/sys/block").join(name).join("queue/discard_max_bytes");
    std::fs::write(&path, "0").map_err(Error::io("write", &path))
}

fn call(file: impl AsFd, number: libc::Ioctl, argument: libc::c_ulong) -> Result<i32, Errno> {
    // SAFETY: these take an integer, or nothing, as argument.
    result(unsafe { libc::ioctl(file.as_fd().as_raw_fd(), number, argument) })
}

fn result(answer: i32) -> Result<i32, Errno> {
    match answer {
        -1 => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
        answer => Ok(answer),
    }
}
