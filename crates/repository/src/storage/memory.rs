//! A repository in memory: quick, and able to fail on purpose. For tests; it passes the same conformance suite.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;

use crate::id::Id;
use crate::storage::{FileKind, Storage, StorageError, StoredFile};

/// A repository in memory.
#[derive(Default)]
pub struct Memory {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    created: bool,
    files: BTreeMap<StoredFile, Vec<u8>>,
    /// Changing operations that still succeed; `None` is without limit.
    left: Option<u64>,
    changes: u64,
}

impl State {
    /// Counts a changing operation, and fails it where the storage was told to die.
    fn change(&mut self, file: &StoredFile) -> Result<(), StorageError> {
        if let Some(left) = &mut self.left {
            if *left == 0 {
                return Err(StorageError::Io {
                    action: "write",
                    path: file.path(),
                    source: io::Error::other("the storage failed on purpose"),
                });
            }
            *left -= 1;
        }
        self.changes += 1;
        Ok(())
    }
}

impl Memory {
    /// An empty place.
    pub fn new() -> Self {
        Memory::default()
    }

    /// Lets `operations` more changing operations (write, remove) through, then fails all of them, like a
    /// cable that was pulled; `None` heals it.
    pub fn fail_after(&self, operations: Option<u64>) {
        self.lock().left = operations;
    }

    /// How many changing operations were carried out so far.
    pub fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// A copy of all files, healed: what a crash at this moment leaves.
    pub fn copy(&self) -> Memory {
        let state = self.lock();
        let copy = State { created: state.created, files: state.files.clone(), left: None, changes: 0 };
        Memory { state: Mutex::new(copy) }
    }

    /// Changes a file's bytes behind the repository's back: damage.
    pub fn damage(&self, file: &StoredFile, change: impl FnOnce(&mut Vec<u8>)) {
        change(self.lock().files.get_mut(file).expect("the file to damage exists"));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the lock is held")
    }

    fn with_file<T>(&self, file: &StoredFile, then: impl FnOnce(&Vec<u8>) -> T) -> Result<T, StorageError> {
        let state = self.lock();
        let bytes = state.files.get(file);
        bytes.map(then).ok_or_else(|| StorageError::NotFound { file: *file, location: self.location() })
    }
}

impl Storage for Memory {
    fn location(&self) -> String {
        "memory".to_owned()
    }

    fn list(&self, kind: FileKind) -> Result<Vec<(Id, u64)>, StorageError> {
        let state = self.lock();
        if !state.created {
            return Err(StorageError::Io {
                action: "list",
                path: kind.directory().to_owned(),
                source: io::ErrorKind::NotFound.into(),
            });
        }
        let files = state.files.iter().filter(|(file, _)| file.kind == kind);
        Ok(files.map(|(file, bytes)| (file.id, bytes.len() as u64)).collect())
    }

    fn read_range(&self, file: &StoredFile, offset: u64, length: u64, into: &mut Vec<u8>) -> Result<(), StorageError> {
        into.clear();
        let (wanted, got) = self.with_file(file, |bytes| {
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            let end = usize::try_from(offset + length).unwrap_or(usize::MAX).min(bytes.len());
            into.extend_from_slice(&bytes[start..end]);
            (offset + length, end as u64)
        })?;
        if got < wanted {
            return Err(StorageError::Truncated { file: *file, location: self.location(), wanted, got });
        }
        Ok(())
    }

    fn read(&self, file: &StoredFile, into: &mut Vec<u8>) -> Result<(), StorageError> {
        into.clear();
        self.with_file(file, |bytes| into.extend_from_slice(bytes))
    }

    fn size(&self, file: &StoredFile) -> Result<u64, StorageError> {
        self.with_file(file, |bytes| bytes.len() as u64)
    }

    fn write(&self, file: &StoredFile, bytes: &[u8]) -> Result<(), StorageError> {
        let mut state = self.lock();
        if file.kind == FileKind::Config && state.files.contains_key(file) {
            return Err(StorageError::Exists { file: *file, location: self.location() });
        }
        state.change(file)?;
        state.files.insert(*file, bytes.to_owned());
        Ok(())
    }

    fn remove(&self, file: &StoredFile) -> Result<(), StorageError> {
        let mut state = self.lock();
        state.change(file)?;
        state.files.remove(file);
        Ok(())
    }

    fn create(&self) -> Result<(), StorageError> {
        self.lock().created = true;
        Ok(())
    }
}
