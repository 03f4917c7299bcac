//! A directory of a backup as a tar archive: POSIX's pax format, which GNU tar, bsdtar and Python read, with times to
//! the nanosecond and extended attributes (`SCHILY.xattr.*`, as GNU tar and star write them).
//!
//! Names are the backup's, without the `/` before them. Source: pax(1p), "ustar Interchange Format" and "pax Header
//! Block".

use std::collections::HashMap;
use std::io::Write;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use repository::index::Index;
use repository::tree::{Node, NodeKind, Timestamp, st_mode_from_file_mode};
use repository::{BlobReader, Repository};

use crate::progress::Progress;
use crate::read::content::{ContentError, write_content};
use crate::read::path::Found;
use crate::read::walk::{Descend, walk};

const BLOCK: usize = 512;
const NAME_BYTES: usize = 100;
const OWNER_BYTES: usize = 31;
/// The largest numbers of seven and eleven octal digits.
const MAX_SMALL: u64 = 0o7_777_777;
const MAX_LARGE: u64 = 0o77_777_777_777;

/// Writes what a backup has at `path`, with everything below it. An archive that could not be written to its end is an
/// error; so nobody takes it for whole.
pub fn write_tar(
    repository: &Repository,
    index: &Index,
    found: &Found,
    path: &Path,
    progress: &dyn Progress,
    into: &mut dyn Write,
) -> Result<(), ContentError> {
    let mut tar = Tar { repository, index, into, links: HashMap::new() };
    let mut reader = repository.reader(index);
    if let Found::Entry(node) = found {
        tar.entry(&mut reader, path, node)?;
    }
    if let Some(tree) = found.tree() {
        walk(&mut reader, tree, path, progress, &mut |reader, path, node| {
            tar.entry(reader, path, node)?;
            Ok::<_, ContentError>(Descend::Into)
        })?;
    }
    tar.into.write_all(&[0; 2 * BLOCK])?;
    Ok(())
}

struct Tar<'a> {
    repository: &'a Repository,
    index: &'a Index,
    into: &'a mut dyn Write,
    /// The first name of each file with several.
    links: HashMap<(u64, u64), Vec<u8>>,
}

/// What kind of entry follows (`typeflag`).
mod kind {
    pub(super) const FILE: u8 = b'0';
    pub(super) const HARD_LINK: u8 = b'1';
    pub(super) const SYMLINK: u8 = b'2';
    pub(super) const CHAR_DEVICE: u8 = b'3';
    pub(super) const BLOCK_DEVICE: u8 = b'4';
    pub(super) const DIRECTORY: u8 = b'5';
    pub(super) const FIFO: u8 = b'6';
    pub(super) const PAX: u8 = b'x';
}

impl Tar<'_> {
    fn entry(&mut self, reader: &mut BlobReader<'_>, path: &Path, node: &Node) -> Result<(), ContentError> {
        let mut name = path.as_os_str().as_bytes().strip_prefix(b"/").unwrap_or_default().to_vec();
        let mut target = &*node.link_target;
        let first;
        let mut kind = match node.kind {
            NodeKind::File => kind::FILE,
            NodeKind::Dir => kind::DIRECTORY,
            NodeKind::Symlink => kind::SYMLINK,
            NodeKind::BlockDevice => kind::BLOCK_DEVICE,
            NodeKind::CharDevice => kind::CHAR_DEVICE,
            NodeKind::Fifo => kind::FIFO,
            // Tar has nothing for it.
            NodeKind::Socket | NodeKind::Other(_) => return Ok(()),
        };
        if kind == kind::DIRECTORY {
            name.push(b'/');
        } else if node.links > 1 {
            let inode = (node.device_id, node.inode);
            match self.links.get(&inode) {
                Some(known) => {
                    first = known.clone();
                    (kind, target) = (kind::HARD_LINK, &first);
                }
                None => drop(self.links.insert(inode, name.clone())),
            }
        }
        let size = if kind == kind::FILE { node.size } else { 0 };
        let header = Header { kind, name: &name, target, size, node };
        let extended = header.extended();
        if !extended.is_empty() {
            let mut pax = Block::new(kind::PAX, b"PaxHeaders/entry", extended.len() as u64);
            pax.octal(Field::Mode, 0o644);
            self.into.write_all(&pax.finish())?;
            self.into.write_all(&extended)?;
            self.pad(extended.len() as u64)?;
        }
        self.into.write_all(&header.block())?;
        if kind == kind::FILE {
            write_content(self.repository, self.index, reader, node, self.into)?;
            self.pad(size)?;
        }
        Ok(())
    }

    fn pad(&mut self, written: u64) -> Result<(), ContentError> {
        let over = (written % BLOCK as u64) as usize;
        if over > 0 {
            self.into.write_all(&[0; BLOCK][over..])?;
        }
        Ok(())
    }
}

/// What the header of an entry says, in the old fields where it fits, else in pax records.
struct Header<'a> {
    kind: u8,
    name: &'a [u8],
    target: &'a [u8],
    size: u64,
    node: &'a Node,
}

impl Header<'_> {
    fn extended(&self) -> Vec<u8> {
        let node = self.node;
        let mut records = Records(Vec::new());
        if self.name.len() > NAME_BYTES {
            records.add("path", self.name);
        }
        if self.target.len() > NAME_BYTES {
            records.add("linkpath", self.target);
        }
        for (key, number, limit) in [
            ("size", self.size, MAX_LARGE),
            ("uid", u64::from(node.uid), MAX_SMALL),
            ("gid", u64::from(node.gid), MAX_SMALL),
        ] {
            if number > limit {
                records.add(key, number.to_string().as_bytes());
            }
        }
        for (key, owner) in [("uname", &node.user), ("gname", &node.group)] {
            if owner.len() > OWNER_BYTES {
                records.add(key, owner.as_bytes());
            }
        }
        if node.mtime.nanos != 0 || !(0..=MAX_LARGE as i64).contains(&node.mtime.secs) {
            records.add("mtime", decimal(node.mtime).as_bytes());
        }
        // A hard link is only a name.
        if self.kind != kind::HARD_LINK {
            for attribute in &node.extended_attributes {
                let name = attribute.name.replace('%', "%25").replace('=', "%3D");
                records.add(&format!("SCHILY.xattr.{name}"), attribute.value.as_deref().unwrap_or_default());
            }
        }
        records.0
    }

    fn block(&self) -> [u8; BLOCK] {
        let node = self.node;
        let mut block = Block::new(self.kind, self.name, if self.size > MAX_LARGE { 0 } else { self.size });
        block.octal(Field::Mode, u64::from(st_mode_from_file_mode(node.mode) & 0o7777));
        block.octal(Field::Uid, u64::from(node.uid).min(MAX_SMALL));
        block.octal(Field::Gid, u64::from(node.gid).min(MAX_SMALL));
        block.octal(Field::Mtime, u64::try_from(node.mtime.secs).unwrap_or(0).min(MAX_LARGE));
        block.text(Field::Linkname, self.target);
        block.text(Field::Uname, node.user.as_bytes());
        block.text(Field::Gname, node.group.as_bytes());
        if matches!(self.kind, kind::BLOCK_DEVICE | kind::CHAR_DEVICE) {
            block.octal(Field::Devmajor, u64::from(rustix::fs::major(node.device)).min(MAX_SMALL));
            block.octal(Field::Devminor, u64::from(rustix::fs::minor(node.device)).min(MAX_SMALL));
        }
        block.finish()
    }
}

/// Seconds since 1970 with a fraction, as pax has them.
fn decimal(time: Timestamp) -> String {
    // -1 s and 0.25 s more is -0.75 s.
    let (sign, secs, nanos) = match (time.secs, time.nanos) {
        (secs @ ..0, nanos @ 1..) => ("-", (secs + 1).unsigned_abs(), 1_000_000_000 - nanos),
        (secs @ ..0, 0) => ("-", secs.unsigned_abs(), 0),
        (secs, nanos) => ("", secs.unsigned_abs(), nanos),
    };
    let text = format!("{sign}{secs}.{nanos:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Pax records: `LENGTH KEY=VALUE\n`, where the length counts itself.
struct Records(Vec<u8>);

impl Records {
    fn add(&mut self, key: &str, value: &[u8]) {
        let rest = key.len() + value.len() + 3;
        let mut length = rest;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        self.0.extend(format!("{length} {key}=").bytes());
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }
}

/// The fields of a ustar header that differ from entry to entry.
#[derive(Clone, Copy)]
enum Field {
    Name,
    Mode,
    Uid,
    Gid,
    Size,
    Mtime,
    Linkname,
    Uname,
    Gname,
    Devmajor,
    Devminor,
}

impl Field {
    fn range(self) -> std::ops::Range<usize> {
        match self {
            Field::Name => 0..100,
            Field::Mode => 100..108,
            Field::Uid => 108..116,
            Field::Gid => 116..124,
            Field::Size => 124..136,
            Field::Mtime => 136..148,
            Field::Linkname => 157..257,
            Field::Uname => 265..297,
            Field::Gname => 297..329,
            Field::Devmajor => 329..337,
            Field::Devminor => 337..345,
        }
    }
}

struct Block([u8; BLOCK]);

impl Block {
    fn new(kind: u8, name: &[u8], size: u64) -> Self {
        let mut block = Block([0; BLOCK]);
        block.0[156] = kind;
        block.0[257..265].copy_from_slice(b"ustar\x0000");
        block.text(Field::Name, name);
        for field in [Field::Mode, Field::Uid, Field::Gid, Field::Mtime, Field::Devmajor, Field::Devminor] {
            block.octal(field, 0);
        }
        block.octal(Field::Size, size);
        block
    }

    /// What is too long is cut: a pax record has all of it.
    fn text(&mut self, field: Field, text: &[u8]) {
        let room = &mut self.0[field.range()];
        // A name and a link's target may fill their fields; owners end with a NUL.
        let length = text.len().min(if room.len() == NAME_BYTES { NAME_BYTES } else { OWNER_BYTES });
        room[..length].copy_from_slice(&text[..length]);
    }

    fn octal(&mut self, field: Field, number: u64) {
        let room = &mut self.0[field.range()];
        let digits = room.len() - 1;
        room[..digits].copy_from_slice(format!("{number:0digits$o}").as_bytes());
    }

    fn finish(mut self) -> [u8; BLOCK] {
        // The sum is over a header whose checksum is blanks.
        self.0[148..156].fill(b' ');
        let sum: u64 = self.0.iter().map(|byte| u64::from(*byte)).sum();
        self.0[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        let mut records = Records(Vec::new());
        records.add("a", b"b");
        records.add("path", &[b'x'; 90]);
        records.add("path", &[b'x'; 91]);
        let text = String::from_utf8(records.0).unwrap();
        for line in text.lines() {
            let (length, _) = line.split_once(' ').unwrap();
            assert_eq!(length.parse::<usize>().unwrap(), line.len() + 1);
        }
        assert_eq!(text.lines().count(), 3);
    }

    #[test]
    fn times_before_1970_count_backwards() {
        let at = |secs, nanos| decimal(Timestamp { secs, nanos, offset_minutes: 0 });
        assert_eq!(at(1, 500_000_000), "1.5");
        assert_eq!(at(0, 1), "0.000000001");
        assert_eq!(at(10, 0), "10");
        assert_eq!(at(-1, 250_000_000), "-0.75");
        assert_eq!(at(-2, 0), "-2");
    }
}
