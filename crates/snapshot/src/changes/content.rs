//! The lines in which two text files differ, in the unified format of diff(1).

use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use similar::{Algorithm, DiffOp, DiffTag, capture_diff_slices, group_diff_ops};

use crate::error::Error;
use crate::reflink::descend;

/// Lines around a difference.
const CONTEXT: usize = 3;

/// A file with a NUL among so many of its first bytes is no text, as for git.
const LOOKED_AT_BYTES: usize = 8000;

/// How the contents of a file differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContentDiff {
    /// They do not.
    Same,
    /// The hunks, without a head; lines may be of any encoding.
    Text(Vec<u8>),
    /// At least one of them is no text, or longer than the limit: not compared by lines.
    NotText,
}

/// Compares the content of one file in two trees; one that is missing in one of them is taken for empty. Files longer
/// than `limit` bytes are not compared by lines.
///
/// # Errors
/// If it is in neither, or in one of them is not a regular file.
pub fn content(before: &Path, after: &Path, file: &Path, limit: u64) -> Result<ContentDiff, Error> {
    let (one, other) = (read(before, file, limit)?, read(after, file, limit)?);
    if let (Read::Missing, Read::Missing) = (&one, &other) {
        return Err(Error::refused(format!("there is no file {} in either", file.display())));
    }
    let (Some(one), Some(other)) = (one.text(), other.text()) else { return Ok(ContentDiff::NotText) };
    if one == other {
        return Ok(ContentDiff::Same);
    }
    let is_text = |bytes: &[u8]| !bytes[..bytes.len().min(LOOKED_AT_BYTES)].contains(&0);
    if !is_text(&one) || !is_text(&other) {
        return Ok(ContentDiff::NotText);
    }
    Ok(ContentDiff::Text(unified(&one, &other)))
}

enum Read {
    Missing,
    TooLong,
    Bytes(Vec<u8>),
}

impl Read {
    fn text(self) -> Option<Vec<u8>> {
        match self {
            Read::Missing => Some(Vec::new()),
            Read::TooLong => None,
            Read::Bytes(bytes) => Some(bytes),
        }
    }
}

fn read(root: &Path, below: &Path, limit: u64) -> Result<Read, Error> {
    let path = root.join(below);
    let (Some(parent), Some(name)) = (below.parent(), below.file_name()) else {
        return Err(Error::refused(format!("{} is not a file", path.display())));
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(root, flags, Mode::empty()).map_err(Error::io("open", root))?;
    let name = std::ffi::CString::new(name.as_encoded_bytes()).map_err(|_| Error::refused("a name with a NUL"))?;
    let opened = descend::directory(fd.as_fd(), parent).and_then(|dir| descend::file(dir.as_fd(), &name));
    let file = match opened {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Read::Missing),
        Err(Errno::LOOP) => return Err(Error::refused(format!("{} is a symbolic link", path.display()))),
        opened => File::from(opened.map_err(Error::io("open", &path))?),
    };
    let stat = file.metadata().map_err(Error::io("look at", &path))?;
    if !stat.is_file() {
        return Err(Error::refused(format!("{} is not a regular file", path.display())));
    }
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(Error::io("read", &path))?;
    Ok(if bytes.len() as u64 > limit { Read::TooLong } else { Read::Bytes(bytes) })
}

fn unified(one: &[u8], other: &[u8]) -> Vec<u8> {
    let lines = |text| <[u8]>::split_inclusive(text, |byte| *byte == b'\n').collect::<Vec<&[u8]>>();
    let (one, other) = (lines(one), lines(other));
    let mut text = Vec::new();
    for hunk in group_diff_ops(capture_diff_slices(Algorithm::Myers, &one, &other), CONTEXT) {
        let (Some(first), Some(last)) = (hunk.first(), hunk.last()) else { continue };
        let before = range(first.old_range().start, last.old_range().end);
        let after = range(first.new_range().start, last.new_range().end);
        text.extend_from_slice(format!("@@ -{before} +{after} @@\n").as_bytes());
        for op in &hunk {
            write(&mut text, op, &one, &other);
        }
    }
    text
}

/// As diff(1) writes it: lines count from one, an empty range names the line before it, a single line has no length.
fn range(start: usize, end: usize) -> String {
    match end - start {
        0 => format!("{start},0"),
        1 => format!("{}", start + 1),
        length => format!("{},{length}", start + 1),
    }
}

fn write(text: &mut Vec<u8>, op: &DiffOp, one: &[&[u8]], other: &[&[u8]]) {
    let mut write = |mark: u8, lines: &[&[u8]]| {
        for line in lines {
            text.push(mark);
            text.extend_from_slice(line);
            if !line.ends_with(b"\n") {
                text.extend_from_slice(b"\n\\ No newline at end of file\n");
            }
        }
    };
    match op.tag() {
        DiffTag::Equal => write(b' ', &one[op.old_range()]),
        _ => {
            write(b'-', &one[op.old_range()]);
            write(b'+', &other[op.new_range()]);
        }
    }
}
