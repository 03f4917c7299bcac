//! What the kernel itself holds: files behind loop devices, and swap files.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use super::{By, Hold, Holder, Tree, device_of};

/// `LOOP_GET_STATUS64`, linux/loop.h.
const LOOP_GET_STATUS64: libc::Ioctl = 0x4c05;

/// `struct loop_info64`, of which the beginning is of use.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rest: [u64; 27],
}

/// One holder for each loop device and each swap file.
pub(super) fn holders(tree: &Tree) -> Vec<Holder> {
    let holder = |command: String, by, path| {
        let holds = vec![Hold { by, path }];
        Holder { pid: 0, command, unit: None, holds }
    };
    let loops = loops(tree).into_iter().map(|(device, path)| holder(format!("[{device}]"), By::LoopDevice, path));
    let swaps = swaps(tree).into_iter().map(|path| holder("[swap]".to_owned(), By::Swap, path));
    loops.chain(swaps).collect()
}

fn loops(tree: &Tree) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let used = names.filter(|name| name.starts_with("loop")).filter_map(|name| {
        let text = fs::read_to_string(Path::new("/sys/block").join(&name).join("loop/backing_file")).ok()?;
        // The name at the time of the asking: it follows a rename of what is above.
        Some((name, PathBuf::from(text.trim_end_matches('\n'))))
    });
    used.filter(|(name, path)| match tree {
        Tree::Below(root) => path.starts_with(root),
        Tree::Device(major, minor) => backing_device(name) == Some((*major, *minor)),
    })
    .collect()
}

/// `st_dev` of the file behind a loop device.
fn backing_device(name: &str) -> Option<(u32, u32)> {
    let file = File::open(Path::new("/dev").join(name)).ok()?;
    let mut info = LoopInfo { device: 0, inode: 0, rest: [0; 27] };
    // SAFETY: the structure is as long as the kernel's (232 bytes), which fills it, and lives until the call returns.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) };
    (answer == 0).then(|| (rustix::fs::major(info.device), rustix::fs::minor(info.device)))
}

fn swaps(tree: &Tree) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let files = text.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let path = fields.next()?;
        (fields.next() == Some("file")).then(|| PathBuf::from(path))
    });
    files
        .filter(|path| match tree {
            Tree::Below(root) => path.starts_with(root),
            Tree::Device(major, minor) => device_of(path) == Some((*major, *minor)),
        })
        .collect()
}
