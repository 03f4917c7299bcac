//! Directory trees as the benchmark sees them: their size, reading them once, whether two are the same.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The length of all files below, in bytes.
pub(crate) fn size_bytes(directory: &Path) -> Result<u64> {
    let mut total = 0;
    for entry in entries(directory)? {
        let found = fs::symlink_metadata(&entry).with_context(|| format!("looking at {}", entry.display()))?;
        total += if found.is_dir() { size_bytes(&entry)? } else { found.len() };
    }
    Ok(total)
}

/// Reads every file, so that it is in the system's cache for whoever comes first as for whoever comes later.
pub(crate) fn warm(directory: &Path) -> Result<()> {
    for entry in entries(directory)? {
        if entry.is_dir() {
            warm(&entry)?;
        } else {
            let mut file = File::open(&entry).with_context(|| format!("opening {}", entry.display()))?;
            let mut piece = vec![0; 1 << 18];
            while file.read(&mut piece).with_context(|| format!("reading {}", entry.display()))? > 0 {}
        }
    }
    Ok(())
}

/// An error that names the first difference between the names and contents of two trees.
pub(crate) fn must_be_equal(left: &Path, right: &Path) -> Result<()> {
    let (in_left, in_right) = (entries(left)?, entries(right)?);
    if !in_left.iter().map(|path| path.file_name()).eq(in_right.iter().map(|path| path.file_name())) {
        bail!("{} and {} do not hold the same names", left.display(), right.display());
    }
    for (left, right) in in_left.iter().zip(&in_right) {
        if left.is_dir() {
            must_be_equal(left, right)?;
        } else if !same_content(left, right).with_context(|| format!("comparing {}", right.display()))? {
            bail!("{} and {} differ", left.display(), right.display());
        }
    }
    Ok(())
}

fn same_content(left: &Path, right: &Path) -> io::Result<bool> {
    let (mut left, mut right) = (File::open(left)?, File::open(right)?);
    let mut remaining = left.metadata()?.len();
    if remaining != right.metadata()?.len() {
        return Ok(false);
    }
    let (mut left_piece, mut right_piece) = (vec![0; 1 << 18], vec![0; 1 << 18]);
    while remaining > 0 {
        let count = remaining.min(left_piece.len() as u64) as usize;
        left.read_exact(&mut left_piece[..count])?;
        right.read_exact(&mut right_piece[..count])?;
        if left_piece[..count] != right_piece[..count] {
            return Ok(false);
        }
        remaining -= count as u64;
    }
    Ok(true)
}

/// The paths in a directory, sorted.
fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let reading = || format!("reading {}", directory.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).with_context(reading)? {
        paths.push(entry.with_context(reading)?.path());
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_byte_and_a_missing_file_are_differences() {
        let room = std::env::temp_dir().join(format!("xtask-tree-{}", std::process::id()));
        let (left, right) = (room.join("left"), room.join("right"));
        for side in [&left, &right] {
            fs::create_dir_all(side.join("deep")).unwrap();
            fs::write(side.join("deep/file"), "some bytes").unwrap();
        }
        must_be_equal(&left, &right).unwrap();
        assert_eq!(size_bytes(&left).unwrap(), 10);
        fs::write(right.join("deep/file"), "some bytEs").unwrap();
        must_be_equal(&left, &right).unwrap_err();
        fs::remove_file(right.join("deep/file")).unwrap();
        must_be_equal(&left, &right).unwrap_err();
        fs::remove_dir_all(&room).unwrap();
    }
}
