//! A repository in a directory.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use crate::direct;
use crate::id::Id;
use crate::storage::{FileKind, Storage, StorageError, StoredFile};

/// Between a file's name and a number in the name of an unfinished write; restic uses the same.
const UNFINISHED: &str = "-tmp-";

/// A repository in a directory of a mounted file system.
pub struct Local {
    root: PathBuf,
    writes: AtomicU64,
}

impl Local {
    /// Names the directory; nothing is touched.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Local { root: root.into(), writes: AtomicU64::new(0) }
    }

    fn path(&self, file: &StoredFile) -> PathBuf {
        self.root.join(file.path())
    }

    fn open(&self, file: &StoredFile) -> Result<(File, PathBuf), StorageError> {
        let path = self.path(file);
        match File::open(&path) {
            Ok(open) => Ok((open, path)),
            Err(error) => Err(self.error("open", file, &path, error)),
        }
    }

    fn error(&self, action: &'static str, file: &StoredFile, path: &Path, source: io::Error) -> StorageError {
        // ENOTDIR: the repository's root is a file.
        if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
            return StorageError::NotFound { file: *file, location: self.location() };
        }
        io_error(action, path, source)
    }

    fn list_directory(&self, directory: &Path, each: &mut dyn FnMut(&str, &fs::DirEntry)) -> Result<(), StorageError> {
        for entry in fs::read_dir(directory).map_err(|error| io_error("list", directory, error))? {
            let entry = entry.map_err(|error| io_error("list", directory, error))?;
            if let Some(name) = entry.file_name().to_str() {
                each(name, &entry);
            }
        }
        Ok(())
    }

    /// `data/00` to `data/ff`, or the one directory of another kind.
    fn directories(&self, kind: FileKind) -> Result<Vec<PathBuf>, StorageError> {
        let directory = self.root.join(kind.directory());
        if kind != FileKind::Pack {
            return Ok(vec![directory]);
        }
        let mut directories = Vec::with_capacity(256);
        self.list_directory(&directory, &mut |name, entry| {
            if name.len() == 2 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                directories.push(entry.path());
            }
        })?;
        Ok(directories)
    }
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> StorageError {
    StorageError::Io { action, path: path.display().to_string(), source }
}

/// Makes the names in a directory durable. File systems that cannot (some network and FUSE ones) say EINVAL
/// or ENOTSUP, and give no other way.
fn sync_directory(directory: &Path) -> io::Result<()> {
    match File::open(directory)?.sync_all() {
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOTTY)) => {
            Ok(())
        }
        result => result,
    }
}

/// Ranges with more bytes than blobs have are compared with the file before memory is taken for them.
const LARGE: usize = 64 << 20;

fn read_into(file: &File, offset: u64, length: usize, into: &mut Vec<u8>) -> io::Result<()> {
    let mut length = length;
    if length > LARGE {
        // It may be a damaged index that says so.
        let left = file.metadata()?.len().saturating_sub(offset);
        length = length.min(usize::try_from(left).unwrap_or(usize::MAX));
    }
    // Room that was used before is not cleared again.
    into.resize(length, 0);
    let read = direct::read_at(file, into, offset)?;
    into.truncate(read);
    Ok(())
}

impl Storage for Local {
    fn location(&self) -> String {
        self.root.display().to_string()
    }

    fn list(&self, kind: FileKind) -> Result<Vec<(Id, u64)>, StorageError> {
        let mut files = Vec::new();
        for directory in self.directories(kind)? {
            let mut failed = None;
            self.list_directory(&directory, &mut |name, entry| {
                let Some(id) = Id::from_hex(name.as_bytes()) else { return };
                match entry.metadata() {
                    Ok(metadata) if metadata.is_file() => files.push((id, metadata.len())),
                    Ok(_) => {}
                    // Removed since the listing: a lock, say.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => failed = Some(io_error("list", &entry.path(), error)),
                }
            })?;
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(files)
    }

    fn read_range(&self, file: &StoredFile, offset: u64, length: u64, into: &mut Vec<u8>) -> Result<(), StorageError> {
        let (open, path) = self.open(file)?;
        let length = usize::try_from(length).expect("a range fits into memory");
        read_into(&open, offset, length, into).map_err(|error| self.error("read", file, &path, error))?;
        if into.len() < length {
            return Err(StorageError::Truncated {
                file: *file,
                location: self.location(),
                wanted: offset + length as u64,
                got: offset + into.len() as u64,
            });
        }
        Ok(())
    }

    fn read(&self, file: &StoredFile, into: &mut Vec<u8>) -> Result<(), StorageError> {
        let (open, path) = self.open(file)?;
        let length = open.metadata().map_err(|error| self.error("read", file, &path, error))?.len();
        let length = usize::try_from(length).expect("a file of a repository fits into memory");
        read_into(&open, 0, length, into).map_err(|error| self.error("read", file, &path, error))
    }

    fn size(&self, file: &StoredFile) -> Result<u64, StorageError> {
        let path = self.path(file);
        let metadata = fs::metadata(&path).map_err(|error| self.error("look at", file, &path, error))?;
        Ok(metadata.len())
    }

    fn write(&self, file: &StoredFile, bytes: &[u8]) -> Result<(), StorageError> {
        let path = self.path(file);
        let directory = path.parent().expect("every file lies in a directory");
        let unfinished = {
            let number = self.writes.fetch_add(1, Ordering::Relaxed);
            let mut name = path.as_os_str().to_owned();
            name.push(format!("{UNFINISHED}{}-{number}", std::process::id()));
            PathBuf::from(name)
        };
        let write = || -> io::Result<()> {
            let mut options = OpenOptions::new();
            // Read-only from the start: nothing should ever change these files.
            options.write(true).create_new(true).mode(0o400);
            let open = match options.open(&unfinished) {
                // A pack directory that somebody tidied away because it was empty.
                Err(error) if error.kind() == io::ErrorKind::NotFound && file.kind == FileKind::Pack => {
                    fs::DirBuilder::new().mode(0o700).recursive(false).create(directory)?;
                    sync_directory(&self.root.join("data"))?;
                    options.open(&unfinished)?
                }
                opened => opened?,
            };
            direct::write_all_at(&open, bytes, 0)?;
            open.sync_all()?;
            drop(open);
            if file.kind == FileKind::Config {
                match rustix::fs::renameat_with(CWD, &unfinished, CWD, &path, RenameFlags::NOREPLACE) {
                    // The file system has no atomic refusal (NFS, say): look, then rename.
                    Err(Errno::INVAL | Errno::NOSYS) if !path.exists() => fs::rename(&unfinished, &path)?,
                    Err(Errno::INVAL | Errno::NOSYS) => return Err(Errno::EXIST.into()),
                    renamed => renamed?,
                }
            } else {
                fs::rename(&unfinished, &path)?;
            }
            sync_directory(directory)
        };
        write().map_err(|error| {
            // The error that counts is the first one.
            let _ = fs::remove_file(&unfinished);
            match error.kind() {
                io::ErrorKind::AlreadyExists => StorageError::Exists { file: *file, location: self.location() },
                _ => io_error("write", &path, error),
            }
        })
    }

    fn remove(&self, file: &StoredFile) -> Result<(), StorageError> {
        let path = self.path(file);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(io_error("remove", &path, error)),
        }
        // Locks come and go often and mean nothing after a crash; the others must not come back half.
        if file.kind == FileKind::Lock {
            return Ok(());
        }
        let directory = path.parent().expect("every file lies in a directory");
        sync_directory(directory).map_err(|error| io_error("remove", &path, error))
    }

    fn create(&self) -> Result<(), StorageError> {
        let create = |directory: &Path, recursive: bool| match fs::DirBuilder::new()
            .mode(0o700)
            .recursive(recursive)
            .create(directory)
        {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => Ok(()),
            result => result.map_err(|error| io_error("create", directory, error)),
        };
        create(&self.root, true)?;
        for kind in FileKind::LISTED {
            create(&self.root.join(kind.directory()), false)?;
        }
        let data = self.root.join("data");
        for first in 0..=255_u8 {
            create(&data.join(format!("{first:02x}")), false)?;
        }
        for directory in [&data, &self.root] {
            sync_directory(directory).map_err(|error| io_error("create", directory, error))?;
        }
        // The repository's own name is durable only with the directory above it.
        if let Some(above) = self.root.canonicalize().ok().and_then(|root| root.parent().map(Path::to_owned)) {
            sync_directory(&above).map_err(|error| io_error("create", &self.root, error))?;
        }
        Ok(())
    }

    fn remove_unfinished(&self) -> Result<u64, StorageError> {
        let mut bytes = 0;
        let mut directories = vec![self.root.clone()];
        for kind in FileKind::LISTED {
            directories.extend(self.directories(kind)?);
        }
        for directory in directories {
            let mut unfinished = Vec::new();
            self.list_directory(&directory, &mut |name, entry| {
                let file = name.split(UNFINISHED).next().unwrap_or_default();
                if name.contains(UNFINISHED) && (file == "config" || Id::from_hex(file.as_bytes()).is_some()) {
                    unfinished.push(entry.path());
                }
            })?;
            for path in unfinished {
                let size = fs::metadata(&path).map(|metadata| metadata.len()).unwrap_or(0);
                fs::remove_file(&path).map_err(|error| io_error("remove", &path, error))?;
                bytes += size;
            }
        }
        Ok(bytes)
    }
}
