//! Storages that count, fail, freeze, and can be exchanged under an open repository.

use std::sync::{Arc, Condvar, Mutex};

use repository::id::Id;
use repository::storage::{FileKind, Storage, StorageError, StoredFile};

type Result<T> = std::result::Result<T, StorageError>;

/// What was done to a storage, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    List(FileKind),
    Read(FileKind),
    Write(FileKind),
    Remove(FileKind),
}

/// Passes everything on to a storage that can be exchanged, as if a repository were closed here and opened there
/// (which takes a quarter of a second for the password each time).
pub(crate) struct Switch {
    behind: Mutex<Arc<dyn Storage>>,
    operations: Mutex<Vec<Operation>>,
    frozen: Mutex<Frozen>,
    thawed: Condvar,
}

#[derive(Default)]
struct Frozen {
    /// Changes until the storage freezes.
    after: Option<u64>,
    is_frozen: bool,
}

impl Switch {
    pub(crate) fn to(behind: Arc<dyn Storage>) -> Arc<Switch> {
        let (behind, operations) = (Mutex::new(behind), Mutex::default());
        Arc::new(Switch { behind, operations, frozen: Mutex::default(), thawed: Condvar::new() })
    }

    pub(crate) fn exchange(&self, behind: Arc<dyn Storage>) {
        *self.behind.lock().unwrap() = behind;
    }

    fn behind(&self) -> Arc<dyn Storage> {
        Arc::clone(&self.behind.lock().unwrap())
    }

    fn note(&self, operation: Operation) {
        self.operations.lock().unwrap().push(operation);
    }

    /// What was done since this was asked last.
    pub(crate) fn take_operations(&self) -> Vec<Operation> {
        std::mem::take(&mut self.operations.lock().unwrap())
    }

    /// Lets so many changes through; whoever wants to make the next one waits for [`Switch::thaw`].
    pub(crate) fn freeze_after(&self, changes: u64) {
        *self.frozen.lock().unwrap() = Frozen { after: Some(changes), is_frozen: false };
    }

    /// Waits until somebody waits for the storage; false if nobody did until then.
    pub(crate) fn wait_until_frozen(&self, over: impl Fn() -> bool) -> bool {
        while !over() {
            if self.frozen.lock().unwrap().is_frozen {
                return true;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        self.frozen.lock().unwrap().is_frozen
    }

    pub(crate) fn thaw(&self) {
        *self.frozen.lock().unwrap() = Frozen::default();
        self.thawed.notify_all();
    }

    fn change(&self) {
        let mut frozen = self.frozen.lock().unwrap();
        loop {
            match &mut frozen.after {
                None => return,
                Some(0) => {
                    frozen.is_frozen = true;
                    frozen = self.thawed.wait(frozen).unwrap();
                }
                Some(after) => {
                    *after -= 1;
                    return;
                }
            }
        }
    }
}

impl Storage for Switch {
    fn location(&self) -> String {
        self.behind().location()
    }

    fn list(&self, kind: FileKind) -> Result<Vec<(Id, u64)>> {
        self.note(Operation::List(kind));
        self.behind().list(kind)
    }

    fn read_range(&self, file: &StoredFile, offset: u64, length: u64, into: &mut Vec<u8>) -> Result<()> {
        self.note(Operation::Read(file.kind));
        self.behind().read_range(file, offset, length, into)
    }

    fn read(&self, file: &StoredFile, into: &mut Vec<u8>) -> Result<()> {
        self.note(Operation::Read(file.kind));
        self.behind().read(file, into)
    }

    fn size(&self, file: &StoredFile) -> Result<u64> {
        self.behind().size(file)
    }

    fn write(&self, file: &StoredFile, bytes: &[u8]) -> Result<()> {
        self.change();
        self.note(Operation::Write(file.kind));
        self.behind().write(file, bytes)
    }

    fn remove(&self, file: &StoredFile) -> Result<()> {
        self.change();
        self.note(Operation::Remove(file.kind));
        self.behind().remove(file)
    }

    fn create(&self) -> Result<()> {
        self.behind().create()
    }
}
