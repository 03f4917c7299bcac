//! A file that lies in the target already: which of its pieces are as in the backup.

use std::os::fd::OwnedFd;

use repository::hash::sha256;
use repository::id::Id;
use rustix::io::Errno;

/// Compares a file with its pieces, given as ids with lengths in bytes. Gives for each whether it differs.
pub(super) fn differing(
    file: &OwnedFd,
    pieces: &[(Id, u64)],
    mut compared: impl FnMut(u64),
) -> Result<Vec<bool>, Errno> {
    let mut buffer = Vec::new();
    let mut offset = 0;
    let mut differs = Vec::with_capacity(pieces.len());
    for (id, length) in pieces {
        let Ok(wanted) = usize::try_from(*length) else {
            differs.push(true);
            continue;
        };
        buffer.resize(wanted, 0);
        let mut read = 0;
        while read < wanted {
            match rustix::io::pread(file, &mut buffer[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        differs.push(read < wanted || sha256(&buffer) != *id);
        offset += length;
        compared(*length);
    }
    Ok(differs)
}
