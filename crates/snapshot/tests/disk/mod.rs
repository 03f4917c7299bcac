//! Real file systems on loop devices, and trees that hold everything Linux knows.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A file system in an image file, mounted until this is dropped.
pub(crate) struct Disk {
    directory: TempDir,
}

impl Disk {
    /// Makes and mounts one, with the options of mkfs and a size in MiB.
    pub(crate) fn new(kind: &str, options: &[&str], size_mib: u64) -> Disk {
        // In memory where that is possible: then a sync costs nothing, and tests sync a lot.
        let directory = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
        let disk = Disk { directory };
        let image = disk.directory.path().join("image");
        File::create(&image).unwrap().set_len(size_mib << 20).unwrap();
        std::fs::create_dir(disk.path()).unwrap();
        run(Command::new(format!("mkfs.{kind}")).args(options).arg(&image));
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(disk.path()));
        disk
    }

    pub(crate) fn xfs() -> Disk {
        Disk::new("xfs", &["-q"], 320)
    }

    pub(crate) fn btrfs() -> Disk {
        Disk::new("btrfs", &["-q"], 320)
    }

    pub(crate) fn ext4() -> Disk {
        Disk::new("ext4", &["-q", "-F"], 320)
    }

    /// Where it is mounted: without symbolic links.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().canonicalize().unwrap().join("mnt")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily and from the top: a test that failed may have left other mounts in it, or open files.
        let _ = Command::new("umount").args(["-q", "-l", "-R"]).arg(self.path()).status();
    }
}

/// Runs a command that must succeed, and gives what it wrote.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Runs a script in a directory, and gives what it wrote, whatever that is.
fn bytes(directory: &Path, script: &str) -> Vec<u8> {
    let output = Command::new("bash").args(["-euc", script]).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Runs a script in a directory.
pub(crate) fn shell(directory: &Path, script: &str) -> String {
    run(Command::new("bash").args(["-euc", script]).current_dir(directory))
}

/// Fills a directory with everything a Linux tree can hold.
pub(crate) fn fill(directory: &Path) {
    std::os::unix::net::UnixListener::bind(directory.join("socket")).unwrap();
    shell(
        directory,
        r#"
        mkdir -p deep/er/still 'with space' sticky empty; chmod 1777 sticky; chmod 2750 deep/er; chmod 0500 empty
        echo one > deep/er/one; echo hidden > .hidden; : > nothing; printf 'a\nb' > $'odd \xff\nname'
        head -c 3000000 /dev/urandom > large
        truncate -s 8M sparse; printf middle | dd of=sparse bs=1M seek=5 conv=notrunc status=none
        ln deep/er/one deep/link; ln deep/er/one 'with space/link'
        ln -s ../no/where deep/dangling; ln -s one deep/er/inside; chown -h 12:34 deep/dangling
        mkfifo -m 640 fifo; mknod -m 600 null c 1 3; mknod -m 660 block b 7 200
        echo program > suid; chown 1000:1001 suid; chmod 4755 suid
        echo ping > ping; setcap cap_net_raw+ep ping; echo secret > secret; chmod 0 secret
        setfattr -n user.comment -v 'a value' large; setfattr -n trusted.hidden -v 0x00ff large
        setfattr -n trusted.link -v x -h deep/dangling; setfattr -n user.on -v directory deep
        setfacl -m u:1000:rw,g:1001:r large; setfacl -d -m u:1002:rwx deep/er/still; setfacl -m u:5:r fifo
        echo inherits > deep/er/still/file
        touch -h -d '2001-02-03 04:05:06.123456789' deep/dangling deep/er/one; touch -d '1969-12-31 23:59:58.5Z' large
        touch -d '2011-01-01 01:01:01.000000001' deep/er deep 'with space' sticky; touch -d '2012-01-01 01:01:01.5' .
        chown 7:8 .; chmod 2751 .; setfattr -n user.root -v yes .
        "#,
    );
}

/// All that a tree holds, for comparison: a line for each path. Written with the system's tools, not with ours.
pub(crate) fn describe(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut entries = BTreeMap::new();
    let mut groups = BTreeMap::new();
    walk(root, Path::new(""), &mut entries, &mut groups);
    for names in groups.values_mut().filter(|names: &&mut Vec<PathBuf>| names.len() > 1) {
        names.sort();
        for name in &*names {
            entries.get_mut(name).unwrap().push_str(&format!(" same as {names:?}"));
        }
    }
    // One process for all of them.
    let sums = bytes(root, "find . -type f -print0 | xargs --null --no-run-if-empty sha256sum --zero");
    for line in sums.split(|byte| *byte == 0).filter(|line| !line.is_empty()) {
        let (sum, name) = (&line[..64], PathBuf::from(OsStr::from_bytes(&line[68..])));
        entries.get_mut(&name).unwrap_or_else(|| panic!("{name:?}")).push_str(std::str::from_utf8(sum).unwrap());
    }
    let xattrs = shell(root, "getfattr -h -R -d -m - -e hex .");
    for block in xattrs.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let (name, values) = block.trim_start().split_once('\n').unwrap();
        let name = name.trim_start_matches("# file: ").trim_start_matches("./");
        let name = if name == "." { PathBuf::new() } else { PathBuf::from(unescape(name)) };
        let mut values: Vec<_> = values.lines().collect();
        values.sort();
        entries.get_mut(&name).unwrap_or_else(|| panic!("{name:?}")).push_str(&format!(" {values:?}"));
    }
    entries
}

fn unescape(name: &str) -> std::ffi::OsString {
    use std::os::unix::ffi::OsStringExt as _;
    let mut bytes = Vec::new();
    let mut rest = name.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        match (byte, after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok())) {
            (b'\\', Some(digits)) if u8::from_str_radix(digits, 8).is_ok() => {
                bytes.push(u8::from_str_radix(digits, 8).unwrap());
                rest = &after[3..];
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes)
}

fn walk(
    root: &Path,
    below: &Path,
    entries: &mut BTreeMap<PathBuf, String>,
    groups: &mut BTreeMap<(u64, u64), Vec<PathBuf>>,
) {
    let path = root.join(below);
    let stat = std::fs::symlink_metadata(&path).unwrap();
    let mut text = format!(
        "{:o} {}:{} {}.{:09} {}",
        stat.mode(),
        stat.uid(),
        stat.gid(),
        stat.mtime(),
        stat.mtime_nsec(),
        stat.rdev()
    );
    if stat.is_dir() {
        for entry in std::fs::read_dir(&path).unwrap() {
            walk(root, &below.join(entry.unwrap().file_name()), entries, groups);
        }
    } else {
        groups.entry((stat.dev(), stat.ino())).or_default().push(below.to_owned());
        text.push_str(&format!(" {} links", stat.nlink()));
    }
    if stat.is_symlink() {
        text.push_str(&format!(" {:?}", std::fs::read_link(&path).unwrap()));
    }
    if stat.is_file() {
        text.push_str(&format!(" {} bytes", stat.size()));
        if stat.size() > stat.blocks() * 1024 {
            text.push_str(" sparse");
        }
    }
    entries.insert(below.to_owned(), text);
}

/// That two trees hold the same.
#[track_caller]
pub(crate) fn assert_same(one: &BTreeMap<PathBuf, String>, other: &BTreeMap<PathBuf, String>) {
    let differing: Vec<_> = one
        .keys()
        .chain(other.keys())
        .filter(|name| one.get(*name) != other.get(*name))
        .map(|name| format!("{name:?}:\n  {:?}\n  {:?}", one.get(name), other.get(name)))
        .collect();
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

/// Whether all of a file's extents are shared with others, as filefrag(8) says.
pub(crate) fn is_shared(file: impl AsRef<OsStr>) -> bool {
    let text = run(Command::new("filefrag").arg("-v").arg(file));
    let extents: Vec<_> =
        text.lines().filter(|line| line.trim_start().starts_with(|c: char| c.is_ascii_digit())).collect();
    !extents.is_empty() && extents.iter().all(|line| line.contains("shared"))
}
