//! Writing the configuration and passwords: whole and durable, or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use zeroize::Zeroizing;

use super::ProtectError;

/// The configuration file while one process changes it.
#[derive(Debug)]
pub struct ConfigLock {
    /// Without symbolic links in its last part.
    path: PathBuf,
    /// The directory, whose lock it is: the file itself is replaced.
    _directory: File,
}

impl ConfigLock {
    /// Makes the directory if it is not there, and waits for whoever else changes the file.
    ///
    /// # Errors
    /// If the directory cannot be made or opened.
    pub fn take(path: &Path) -> Result<ConfigLock, ProtectError> {
        // A link to the file stays one.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let directory = above(&path);
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .map_err(ProtectError::io("create", directory))?;
        let open = File::open(directory).map_err(ProtectError::io("open", directory))?;
        rustix::io::retry_on_intr(|| flock(&open, FlockOperation::LockExclusive))
            .map_err(|error| ProtectError::io("lock", directory)(error.into()))?;
        Ok(ConfigLock { path, _directory: open })
    }

    /// What the file says; nothing if there is none.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(&self) -> Result<String, ProtectError> {
        match fs::read_to_string(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            text => text.map_err(ProtectError::io("read", &self.path)),
        }
    }

    /// Replaces the file, keeping its mode and owner.
    ///
    /// # Errors
    /// If it cannot be written; it is then as it was.
    pub fn replace(&self, text: &str) -> Result<(), ProtectError> {
        let before = fs::metadata(&self.path).ok();
        let mode = before.as_ref().map_or(0o644, |before| before.mode() & 0o7777);
        let (mut file, unfinished) = unfinished(&self.path, mode)?;
        let written = || {
            file.write_all(text.as_bytes())?;
            file.set_permissions(Permissions::from_mode(mode))?;
            if let Some(before) = before {
                std::os::unix::fs::fchown(&file, Some(before.uid()), Some(before.gid()))?;
            }
            file.sync_all()?;
            fs::rename(&unfinished, &self.path)
        };
        finish(written, &unfinished, &self.path)
    }
}

/// Writes a file that is not there yet.
///
/// # Errors
/// If it cannot be written, or is there: then it is not touched.
pub fn write_new(path: &Path, text: &[u8], mode: u32) -> Result<(), ProtectError> {
    let directory = above(path);
    DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(ProtectError::io("create", directory))?;
    let (mut file, unfinished) = unfinished(path, mode)?;
    let written = || {
        file.write_all(text)?;
        file.sync_all()?;
        match renameat_with(CWD, &unfinished, CWD, path, RenameFlags::NOREPLACE) {
            // A file system that does not know how: NFS, say.
            Err(rustix::io::Errno::INVAL) => {
                fs::hard_link(&unfinished, path)?;
                fs::remove_file(&unfinished)
            }
            renamed => Ok(renamed?),
        }
    };
    finish(written, &unfinished, path)
}

/// A password that nobody can guess, in a file that only its owner reads; one that is there stays.
pub(super) fn make_password(path: &Path) -> Result<(), ProtectError> {
    if path.exists() {
        return Ok(());
    }
    // 32 of 32 letters are 160 bits; none that is taken for another.
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut random = Zeroizing::new([0; 32]);
    let source = Path::new("/dev/urandom");
    File::open(source).and_then(|mut file| file.read_exact(&mut *random)).map_err(ProtectError::io("read", source))?;
    let mut text = Zeroizing::new(Vec::with_capacity(64));
    for (number, byte) in random.iter().enumerate() {
        if number > 0 && number % 4 == 0 {
            text.push(b'-');
        }
        text.push(LETTERS[usize::from(byte % 32)]);
    }
    text.push(b'\n');
    match write_new(path, &text, 0o600) {
        // Somebody was first; theirs counts.
        Err(ProtectError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        written => written,
    }
}

/// Makes the name of a file or directory durable.
pub(super) fn sync_above(path: &Path) -> Result<(), ProtectError> {
    let directory = above(path);
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(ProtectError::io("sync", directory))
}

fn above(path: &Path) -> &Path {
    path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A new file beside another. One that a killed process left has its process's number, and is replaced by whoever gets
/// the number again.
fn unfinished(path: &Path, mode: u32) -> Result<(File, PathBuf), ProtectError> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.unfinished", std::process::id()));
    let unfinished = PathBuf::from(name);
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(ProtectError::io("remove", &unfinished)(error));
        }
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&unfinished);
    Ok((file.map_err(ProtectError::io("write", path))?, unfinished))
}

fn finish(written: impl FnOnce() -> io::Result<()>, unfinished: &Path, path: &Path) -> Result<(), ProtectError> {
    if let Err(error) = written() {
        // It is of no use; the error that counts is the other.
        let _ = fs::remove_file(unfinished);
        return Err(ProtectError::io("write", path)(error));
    }
    sync_above(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_random_readable_by_its_owner_alone_and_made_once() {
        let directory = tempfile::tempdir().unwrap();
        let (one, other) = (directory.path().join("new/one"), directory.path().join("new/other"));
        make_password(&one).unwrap();
        make_password(&other).unwrap();
        let text = fs::read_to_string(&one).unwrap();
        assert_eq!(text.len(), 40);
        assert_ne!(text, fs::read_to_string(&other).unwrap());
        assert_eq!(fs::metadata(&one).unwrap().mode() & 0o7777, 0o600);
        make_password(&one).unwrap();
        assert_eq!(fs::read_to_string(&one).unwrap(), text);
        assert_eq!(fs::read_dir(directory.path().join("new")).unwrap().count(), 2);
    }

    #[test]
    fn the_file_is_replaced_with_its_mode_and_a_link_to_it_stays_one() {
        let directory = tempfile::tempdir().unwrap();
        let (real, link) = (directory.path().join("real.toml"), directory.path().join("snapback.toml"));
        fs::write(&real, "old").unwrap();
        fs::set_permissions(&real, Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("real.toml", &link).unwrap();
        let lock = ConfigLock::take(&link).unwrap();
        assert_eq!(lock.read().unwrap(), "old");
        lock.replace("new").unwrap();
        assert_eq!(
            (fs::read_to_string(&real).unwrap().as_str(), fs::metadata(&real).unwrap().mode() & 0o7777),
            ("new", 0o640)
        );
        assert!(link.is_symlink());
    }

    #[test]
    fn what_is_there_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        write_new(&path, b"first", 0o644).unwrap();
        assert!(write_new(&path, b"second", 0o644).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
