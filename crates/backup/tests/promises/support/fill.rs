//! Files to be backed up.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat, lsetxattr,
    makedev, mkdirat, mknodat, openat, utimensat,
};

/// `length` bytes that do not compress and do not repeat, the same for the same seed.
pub(crate) fn random(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub(crate) fn name(bytes: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

pub(crate) fn chmod(path: &Path, mode: u32) {
    chmodat(CWD, path, Mode::from_raw_mode(mode), AtFlags::empty()).unwrap();
}

pub(crate) fn chown(path: &Path, uid: u32, gid: u32) {
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

pub(crate) fn set_mtime(path: &Path, secs: i64, nanos: u32) {
    let time = Timespec { tv_sec: secs, tv_nsec: nanos.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

pub(crate) fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

pub(crate) fn mknod(path: &Path, kind: FileType, major: u32, minor: u32) {
    mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), makedev(major, minor)).unwrap();
}

/// A file with data at some places and holes between them.
pub(crate) fn sparse(path: &Path, size: u64, data: &[(u64, usize)]) {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    for (offset, length) in data {
        // No zeros, so that every block of data is one.
        let bytes: Vec<u8> = random(*offset, *length).into_iter().map(|byte| byte | 1).collect();
        file.write_all_at(&bytes, *offset).unwrap();
    }
    file.sync_all().unwrap();
}

/// Files of all sizes at which something changes: pieces, buffers, blocks.
pub(crate) fn sizes(directory: &Path) {
    const K: usize = 1 << 10;
    let sizes = [0, 1, 4095, 4096, 4097, 256 * K, 511 * K, 512 * K - 1, 512 * K, 512 * K + 1, 768 * K, 1024 * K];
    for size in sizes.into_iter().chain([8192 * K, 8192 * K + 1, 20_480 * K]) {
        fs::write(directory.join(format!("{size}-random")), random(size as u64, size)).unwrap();
    }
    let text = b"the same line again and again\n".repeat(300_000);
    for size in [511 * K, 512 * K + 1, 8192 * K + 1] {
        fs::write(directory.join(format!("{size}-text")), &text[..size]).unwrap();
        fs::write(directory.join(format!("{size}-zeros")), vec![0; size]).unwrap();
    }
}

/// What needs no privileges: names, links, times, modes, sparse files.
pub(crate) fn plain(directory: &Path) {
    let at = |name: &str| directory.join(name);
    fs::create_dir_all(at("a/b/c")).unwrap();
    fs::create_dir(at("empty")).unwrap();
    fs::write(at("a/file"), "hello").unwrap();
    fs::write(at("a/empty"), "").unwrap();
    for (mode, name) in [(0o4755, "setuid"), (0o2755, "setgid"), (0o1644, "sticky"), (0o400, "read")] {
        fs::write(at(name), name).unwrap();
        chmod(&at(name), mode);
    }
    for (mode, name) in [(0o1777, "tmp"), (0o2775, "shared"), (0o500, "locked")] {
        fs::create_dir(at(name)).unwrap();
        fs::write(at(name).join("inside"), name).unwrap();
        chmod(&at(name), mode);
    }
    for bytes in
        [&b"caf\xc3\xa9"[..], b"caf\xe9", b"\xff\xfe", b"new\nline", b"quote\"\\back", b"<&>\x01\x7f", b" ", b"-rf"]
    {
        fs::write(directory.join(name(bytes)), bytes).unwrap();
    }
    fs::write(directory.join("n".repeat(255)), "long").unwrap();
    fs::create_dir(directory.join("d".repeat(255))).unwrap();
    symlink("a/file", at("link")).unwrap();
    symlink("/nowhere/at all", at("dangling")).unwrap();
    symlink(name(b"not \xff\xe9 UTF-8"), at("odd link")).unwrap();
    // XFS takes no more than 1024 bytes.
    symlink("x/".repeat(511), at("long link")).unwrap();
    symlink(".", at("loop")).unwrap();
    mknod(&at("fifo"), FileType::Fifo, 0, 0);
    for (first, further) in [("a/file", "a/same"), ("a/file", "empty/same"), ("link", "a/b/link"), ("fifo", "a/fifo")] {
        rustix::fs::linkat(CWD, at(first), CWD, at(further), AtFlags::empty()).unwrap();
    }
    fs::write(at("a/b/large"), random(77, 1_500_000)).unwrap();
    fs::hard_link(at("a/b/large"), at("a/b/c/large")).unwrap();
    set_xattr(&at("a/file"), "user.note", b"\x00binary\xff");
    set_xattr(&at("a/b"), "user.empty", b"");
    set_xattr(&at("a/b"), "user.long", &random(5, 2000));
    sparse(&at("hole"), 3 << 20, &[(1 << 20, 4096)]);
    sparse(&at("hole only"), 5_000_000, &[]);
    sparse(&at("holes"), 40 << 20, &[(0, 4096), (700 << 10, 65_536), (20 << 20, 1 << 20), ((40 << 20) - 4096, 4096)]);
    set_mtime(&at("a/file"), -1, 999_999_999);
    set_mtime(&at("a/empty"), -1_000_000_000, 1);
    set_mtime(&at("hole"), 2_147_483_646, 500_000_000);
    set_mtime(&at("link"), 1_234_567_890, 123_456_789);
    set_mtime(&at("fifo"), 0, 0);
    set_mtime(&at("a/b"), 1, 1);
    set_mtime(&at("a"), 4_000_000_000, 4);
}

/// What only root can make: owners, devices, ACLs, capabilities, other namespaces' attributes.
pub(crate) fn privileged(directory: &Path) {
    const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let at = |name: &str| directory.join(name);
    mknod(&at("block"), FileType::BlockDevice, 7, 200);
    mknod(&at("null"), FileType::CharacterDevice, 1, 3);
    // XFS has 9 bits and 18.
    mknod(&at("large numbers"), FileType::CharacterDevice, 511, 262_143);
    for (name, uid, gid) in [("owned", 1234, 5678), ("nobody", 65534, 65534), ("large", 4_000_000_000, 4_000_000_001)] {
        fs::write(at(name), name).unwrap();
        chown(&at(name), uid, gid);
        chmod(&at(name), 0o6711);
    }
    fs::write(at("nothing"), "nobody else may read it").unwrap();
    chmod(&at("nothing"), 0o000);
    symlink("owned", at("owned link")).unwrap();
    chown(&at("owned link"), 1234, 5678);
    fs::write(at("capable"), "ping").unwrap();
    set_xattr(&at("capable"), "security.capability", &CAPABILITY);
    fs::write(at("owned and capable"), "ping").unwrap();
    chown(&at("owned and capable"), 1234, 5678);
    set_xattr(&at("owned and capable"), "security.capability", &CAPABILITY);
    set_xattr(&at("capable"), "trusted.overlay.opaque", b"y");
    set_xattr(&at("owned link"), "trusted.of.a.link", b"1");
    let acl = |entries: &[[u16; 4]]| -> Vec<u8> {
        let entries = entries.iter().flatten().flat_map(|part| part.to_le_bytes());
        2_u32.to_le_bytes().into_iter().chain(entries).collect()
    };
    let some = acl(&[
        [1, 6, 0xffff, 0xffff],
        [2, 4, 1234, 0],
        [4, 4, 0xffff, 0xffff],
        [16, 4, 0xffff, 0xffff],
        [32, 0, 0xffff, 0xffff],
    ]);
    fs::write(at("acl"), "acl").unwrap();
    set_xattr(&at("acl"), "system.posix_acl_access", &some);
    fs::create_dir(at("default acl")).unwrap();
    fs::write(at("default acl/before"), "has none").unwrap();
    fs::create_dir(at("default acl/plain")).unwrap();
    set_xattr(&at("default acl"), "system.posix_acl_default", &some);
    fs::write(at("default acl/after"), "has inherited it").unwrap();
    fs::create_dir(at("default acl/inherits")).unwrap();
    symlink("x", at("default acl/link")).unwrap();
    mknod(&at("default acl/fifo"), FileType::Fifo, 0, 0);
}

/// A chain of directories, each with one file, far longer than any path may be.
pub(crate) fn deep(directory: &Path, depth: usize) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut open: OwnedFd = openat(CWD, directory, flags, Mode::empty()).unwrap();
    for level in 0..depth {
        let file = openat(&open, "file", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o640)).unwrap();
        rustix::io::write(&file, format!("level {level}").as_bytes()).unwrap();
        mkdirat(&open, "below", Mode::from_raw_mode(0o755)).unwrap();
        open = openat(&open, "below", flags, Mode::empty()).unwrap();
    }
}
