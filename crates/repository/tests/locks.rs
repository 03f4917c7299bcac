//! Locks: who may work with a repository at the same time, also beside the real restic.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use repository::blob::BlobKind;
use repository::blob_writer::{BlobWriter, Destination};
use repository::crypto::KeyCost;
use repository::holder::Holder;
use repository::id::Id;
use repository::lock::{self, Lock, LockTimes};
use repository::lock_record::LockRecord;
use repository::storage::memory::Memory;
use repository::storage::{FileKind, Local, Storage, StorageError, StoredFile};
use repository::tree::Timestamp;
use repository::{Error, InitOptions, Repository};

const PASSWORD: &str = "correct horse";
const QUICK: LockTimes =
    LockTimes { settle: Duration::from_millis(1), refresh: Duration::from_secs(300), lost: Duration::from_secs(1320) };

#[expect(clippy::disallowed_methods, reason = "somebody must know what time it is")]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_unix(since.as_secs() as i64, 0, 0)
}

fn holder() -> Holder {
    let (hostname, username) = ("here".to_owned(), "somebody".to_owned());
    Holder { hostname, username, uid: 0, gid: 0, pid: std::process::id(), now }
}

fn init(storage: Arc<dyn Storage>) -> Arc<Repository> {
    let options = InitOptions { key_cost: KeyCost::NONE, ..InitOptions::default() };
    Arc::new(Repository::init(storage, PASSWORD.as_bytes(), &options, &holder()).unwrap())
}

fn memory() -> (Arc<Memory>, Arc<Repository>) {
    let memory = Arc::new(Memory::new());
    let repository = init(memory.clone());
    (memory, repository)
}

fn acquire(repository: &Arc<Repository>, exclusive: bool) -> Result<Lock, Error> {
    let lock = Lock::acquire_with(repository, exclusive, &holder(), QUICK)?;
    lock.confirm()?;
    Ok(lock)
}

/// Leaves a lock as somebody else would.
fn leave(repository: &Repository, exclusive: bool, hostname: &str, pid: u32, age_secs: i64) {
    let time = Timestamp::from_unix(now().secs - age_secs, 0, 0);
    let username = "other".to_owned();
    let record = LockRecord { time, exclusive, hostname: hostname.to_owned(), username, pid, uid: 0, gid: 0 };
    repository.save(FileKind::Lock, &serde_json::to_vec(&record).unwrap()).unwrap();
}

fn locks(repository: &Repository) -> usize {
    repository.storage().list(FileKind::Lock).unwrap().len()
}

/// The number of a process that was there and is gone.
fn dead_process() -> u32 {
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    child.id()
}

#[track_caller]
fn assert_locked(result: Result<Lock, Error>, by: &str) {
    match result {
        Err(error @ Error::Locked(_)) => assert!(error.to_string().contains(by), "{error}"),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("the lock was given"),
    }
}

#[test]
fn shared_locks_are_held_together_and_leave_nothing_behind() {
    let (_, repository) = memory();
    let (one, other) = (acquire(&repository, false).unwrap(), acquire(&repository, false).unwrap());
    assert_eq!(locks(&repository), 2);
    drop(one);
    assert_eq!(locks(&repository), 1);
    drop(other);
    assert_eq!(locks(&repository), 0);
}

#[test]
fn an_exclusive_lock_excludes_all_others() {
    let (_, repository) = memory();
    let exclusive = acquire(&repository, true).unwrap();
    assert_locked(acquire(&repository, false), "exclusively");
    assert_locked(acquire(&repository, true), &format!("process {} of somebody on here", std::process::id()));
    assert_eq!(locks(&repository), 1);
    drop(exclusive);
    acquire(&repository, true).unwrap();
}

#[test]
fn a_shared_lock_excludes_an_exclusive_one() {
    let (_, repository) = memory();
    let shared = acquire(&repository, false).unwrap();
    assert_locked(acquire(&repository, true), "for a backup");
    drop(shared);
    acquire(&repository, true).unwrap();
}

#[test]
fn of_many_that_come_at_once_at_most_one_is_alone() {
    let (_, repository) = memory();
    let times = LockTimes { settle: Duration::from_millis(100), ..QUICK };
    for _ in 0..5 {
        let start = std::sync::Barrier::new(4);
        let confirmed = Mutex::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    start.wait();
                    let Ok(lock) = Lock::acquire_with(&repository, true, &holder(), times) else { return };
                    if lock.confirm().is_ok() {
                        *confirmed.lock().unwrap() += 1;
                        std::thread::sleep(Duration::from_millis(200));
                    }
                });
            }
        });
        assert!(*confirmed.lock().unwrap() <= 1);
        assert_eq!(locks(&repository), 0);
    }
}

#[test]
fn half_an_hour_without_a_refreshment_makes_a_lock_stale() {
    let (_, repository) = memory();
    leave(&repository, true, "elsewhere", 1, 29 * 60);
    assert_locked(acquire(&repository, false), "on elsewhere");
    assert_eq!(lock::remove(&repository, &holder(), false).unwrap(), 0);
    assert_eq!(lock::remove(&repository, &holder(), true).unwrap(), 1);
    leave(&repository, true, "elsewhere", 1, 31 * 60);
    let lock = acquire(&repository, true).unwrap();
    assert_eq!(locks(&repository), 1);
    drop(lock);
}

#[test]
fn the_lock_of_a_dead_process_of_this_machine_is_stale() {
    let (_, repository) = memory();
    leave(&repository, true, "here", dead_process(), 60);
    acquire(&repository, true).unwrap();
    // Process 1 lives on every machine.
    leave(&repository, true, "here", 1, 60);
    assert_locked(acquire(&repository, false), "process 1 of other on here");
}

#[test]
fn of_another_machines_processes_we_know_nothing() {
    let (_, repository) = memory();
    leave(&repository, true, "elsewhere", dead_process(), 60);
    assert_locked(acquire(&repository, false), "on elsewhere");
}

#[test]
fn an_empty_lock_file_is_no_lock() {
    let (memory, repository) = memory();
    memory.write(&StoredFile::new(FileKind::Lock, Id([7; 32])), b"").unwrap();
    acquire(&repository, true).unwrap();
}

#[test]
fn a_damaged_lock_is_refused_by_name_and_can_be_removed() {
    let (memory, repository) = memory();
    memory.write(&StoredFile::new(FileKind::Lock, Id([7; 32])), b"not a lock at all, but long enough").unwrap();
    for exclusive in [false, true] {
        match acquire(&repository, exclusive) {
            Err(error @ Error::Damaged { .. }) => {
                assert!(error.to_string().starts_with("lock 07070707 is damaged"), "{error}");
            }
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("the lock was given"),
        }
    }
    assert_eq!(lock::remove(&repository, &holder(), true).unwrap(), 1);
    acquire(&repository, true).unwrap();
}

/// Notes in which order locks come and go.
struct Noting {
    memory: Memory,
    notes: Mutex<Vec<(&'static str, Id)>>,
}

impl Storage for Noting {
    fn location(&self) -> String {
        self.memory.location()
    }

    fn list(&self, kind: FileKind) -> Result<Vec<(Id, u64)>, StorageError> {
        self.memory.list(kind)
    }

    fn read_range(&self, file: &StoredFile, offset: u64, length: u64, into: &mut Vec<u8>) -> Result<(), StorageError> {
        self.memory.read_range(file, offset, length, into)
    }

    fn read(&self, file: &StoredFile, into: &mut Vec<u8>) -> Result<(), StorageError> {
        self.memory.read(file, into)
    }

    fn size(&self, file: &StoredFile) -> Result<u64, StorageError> {
        self.memory.size(file)
    }

    fn write(&self, file: &StoredFile, bytes: &[u8]) -> Result<(), StorageError> {
        if file.kind == FileKind::Lock {
            self.notes.lock().unwrap().push(("write", file.id));
        }
        self.memory.write(file, bytes)
    }

    fn remove(&self, file: &StoredFile) -> Result<(), StorageError> {
        self.notes.lock().unwrap().push(("remove", file.id));
        self.memory.remove(file)
    }

    fn create(&self) -> Result<(), StorageError> {
        self.memory.create()
    }
}

#[test]
fn a_refreshed_lock_is_there_before_the_old_one_goes() {
    let storage = Arc::new(Noting { memory: Memory::new(), notes: Mutex::default() });
    let repository = init(storage.clone());
    let times = LockTimes { refresh: Duration::from_millis(10), ..QUICK };
    let lock = Lock::acquire_with(&repository, false, &holder(), times).unwrap();
    while storage.notes.lock().unwrap().len() < 7 {
        std::thread::sleep(Duration::from_millis(1));
    }
    lock.confirm().unwrap();
    drop(lock);
    let notes = storage.notes.lock().unwrap();
    // write 1, then for each refreshment: write the next, remove the one before; at last remove the last.
    let mut current = notes[0].1;
    for pair in notes[1..notes.len() - 1].chunks(2) {
        assert_eq!((pair[0].0, pair[1]), ("write", ("remove", current)));
        assert_ne!(pair[0].1, current);
        current = pair[0].1;
    }
    assert_eq!(notes[notes.len() - 1], ("remove", current));
    assert_eq!(locks(&repository), 0);
}

/// Waits until the lock is lost, and says why.
#[track_caller]
fn lost(lock: &Lock) -> String {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(20) {
        match lock.confirm() {
            Ok(()) => std::thread::sleep(Duration::from_millis(1)),
            Err(error @ Error::LockLost(_)) => return error.to_string(),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the lock is held still");
}

#[test]
fn whose_lock_was_removed_must_stop() {
    let (_, repository) = memory();
    let times = LockTimes { refresh: Duration::from_millis(10), ..QUICK };
    let lock = Lock::acquire_with(&repository, false, &holder(), times).unwrap();
    lock.confirm().unwrap();
    // A refreshment may come between the listing and the removal.
    while locks(&repository) > 0 && lock.confirm().is_ok() {
        lock::remove(&repository, &holder(), true).unwrap();
    }
    let lock = Arc::new(lock);
    let index = Arc::new(repository.load_index().unwrap());
    let writer = BlobWriter::new(&repository, &index, Destination::Repository(Arc::clone(&lock)));
    writer.saver().save(BlobKind::Data, b"late").unwrap();
    let start = Instant::now();
    while lock.confirm().is_ok() {
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    assert!(writer.finish().is_err());
    assert!(repository.storage().list(FileKind::Pack).unwrap().is_empty());
}

#[test]
fn who_cannot_refresh_in_time_must_stop_and_says_why() {
    let (memory, repository) = memory();
    let times = LockTimes { refresh: Duration::from_millis(10), lost: Duration::from_secs(2), ..QUICK };
    let lock = Lock::acquire_with(&repository, false, &holder(), times).unwrap();
    lock.confirm().unwrap();
    let start = Instant::now();
    memory.fail_after(Some(0));
    let reason = lost(&lock);
    // The clock that goes on while a machine sleeps is read in whole seconds.
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
    assert!(reason.contains("failed on purpose"), "{reason}");
}

#[test]
fn who_cannot_refresh_for_a_moment_goes_on() {
    let (memory, repository) = memory();
    let times = LockTimes { refresh: Duration::from_millis(10), lost: Duration::from_secs(20), ..QUICK };
    let lock = Lock::acquire_with(&repository, false, &holder(), times).unwrap();
    lock.confirm().unwrap();
    memory.fail_after(Some(0));
    std::thread::sleep(Duration::from_millis(100));
    memory.fail_after(None);
    let before = memory.changes();
    while memory.changes() < before + 4 {
        std::thread::sleep(Duration::from_millis(1));
    }
    lock.confirm().unwrap();
    drop(lock);
    assert_eq!(locks(&repository), 0);
}

#[expect(clippy::print_stderr, clippy::disallowed_methods, reason = "the only way a test can tell that it did not run")]
fn restic() -> Option<PathBuf> {
    let program = PathBuf::from(std::env::var_os("SNAPBACK_TEST_RESTIC").unwrap_or_else(|| "restic".into()));
    if Command::new(&program).arg("version").output().is_ok_and(|said| said.status.success()) {
        return Some(program);
    }
    let why = format!("no {}: install Debian's package restic", program.display());
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{why}");
    eprintln!("skipped: {why}");
    None
}

fn command(program: &Path, repository: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(["--no-cache", "--quiet"]).args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
    command.env("RESTIC_REPOSITORY", repository).env("RESTIC_PASSWORD", PASSWORD).stdin(Stdio::null());
    command
}

/// A restic that waits for its standard input, and holds its lock meanwhile.
struct Waiting(Child);

impl Drop for Waiting {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn restics_lock_is_honoured() {
    let Some(program) = restic() else { return };
    let place = tempfile::tempdir().unwrap();
    let repository = init(Arc::new(Local::new(place.path())));
    let child = command(&program, place.path(), &["backup", "--stdin"]).stdin(Stdio::piped()).spawn().unwrap();
    let waiting = Waiting(child);
    let start = Instant::now();
    while lock::list(&repository).unwrap().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(60), "restic takes no lock");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_locked(acquire(&repository, true), &format!("process {}", waiting.0.id()));
    drop(acquire(&repository, false).unwrap());
    assert_eq!(lock::remove(&repository, &holder(), false).unwrap(), 0);
    drop(waiting);
    acquire(&repository, true).unwrap();
}

#[test]
fn restic_honours_our_locks() {
    let Some(program) = restic() else { return };
    let place = tempfile::tempdir().unwrap();
    let repository = init(Arc::new(Local::new(place.path())));
    let said = |arguments: &[&str]| {
        let output = command(&program, place.path(), arguments).output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let exclusive = acquire(&repository, true).unwrap();
    let (done, message) = said(&["backup", "/etc/hostname"]);
    assert!(!done && message.contains("locked exclusively"), "{message}");
    drop(exclusive);

    let shared = acquire(&repository, false).unwrap();
    let (done, message) = said(&["backup", "/etc/hostname"]);
    assert!(done, "{message}");
    let (done, message) = said(&["prune"]);
    assert!(!done && message.contains("locked"), "{message}");
    assert!(message.contains(&format!("PID {}", std::process::id())), "{message}");
    drop(shared);
    let (done, message) = said(&["prune"]);
    assert!(done, "{message}");
}
