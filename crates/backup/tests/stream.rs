//! Streams as the one file of a backup.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backup::archive::{Outcome, StreamError, StreamFile, archive_stream};
use backup::progress::Progress;
use repository::blob::BlobKind;
use repository::blob_writer::Destination;
use repository::crypto::KeyCost;
use repository::holder::Holder;
use repository::lock::Lock;
use repository::storage::FileKind;
use repository::storage::memory::Memory;
use repository::tree::Timestamp;
use repository::{Error, InitOptions, Repository};

#[derive(Default)]
struct Watcher {
    cancelled: AtomicBool,
}

impl Progress for Watcher {
    fn error(&self, path: &Path, error: &dyn std::fmt::Display) {
        panic!("{}: {error}", path.display());
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

struct Fixture {
    storage: Arc<Memory>,
    repository: Arc<Repository>,
    lock: Arc<Lock>,
    watcher: Watcher,
}

impl Fixture {
    fn new() -> Fixture {
        let holder = Holder {
            hostname: "web1".to_owned(),
            username: "root".to_owned(),
            uid: 0,
            gid: 0,
            pid: std::process::id(),
            now: || Timestamp::from_unix(1_767_323_045, 0, 60),
        };
        let storage = Arc::new(Memory::new());
        let opened = Repository::init(
            storage.clone(),
            b"correct horse",
            &InitOptions { key_cost: KeyCost::NONE, ..InitOptions::default() },
            &holder,
        );
        let repository = Arc::new(opened.unwrap());
        let lock = Arc::new(Lock::acquire(&repository, false, &holder).unwrap());
        Fixture { storage, repository, lock, watcher: Watcher::default() }
    }

    fn archive(&self, path: &str, stream: &mut dyn Read) -> Result<Outcome, StreamError> {
        let index = Arc::new(self.repository.load_index().unwrap());
        let file = file(path);
        let destination = Destination::Repository(Arc::clone(&self.lock));
        archive_stream(&self.repository, &index, destination, stream, file, &self.watcher)
    }

    fn content(&self, outcome: &Outcome, path: &[&str]) -> Vec<u8> {
        let index = self.repository.load_index().unwrap();
        let mut reader = self.repository.reader(&index);
        let mut tree = outcome.tree.unwrap();
        let (name, above) = path.split_last().unwrap();
        let find = |reader: &mut repository::BlobReader<'_>, tree, name: &str| {
            let nodes = reader.load_tree(&tree).unwrap().nodes;
            assert_eq!(nodes.len(), 1);
            nodes.into_iter().find(|node| &*node.name == name.as_bytes()).unwrap()
        };
        for name in above {
            tree = find(&mut reader, tree, name).subtree.unwrap();
        }
        let node = find(&mut reader, tree, name);
        let mut whole = Vec::new();
        for id in node.content.unwrap() {
            let mut piece = Vec::new();
            reader.load(BlobKind::Data, &id, &mut piece).unwrap();
            whole.extend(piece);
        }
        assert_eq!(node.size, whole.len() as u64);
        whole
    }
}

fn file(path: &str) -> StreamFile {
    StreamFile {
        path: path.into(),
        permissions: 0o644,
        time: Timestamp::from_unix(1_767_323_045, 0, 60),
        uid: 0,
        gid: 0,
        user: "root".into(),
        group: "root".into(),
    }
}

/// Bytes that do not repeat.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next).take(length.div_ceil(8)).flatten().take(length).collect()
}

/// Gives its bytes in small and uneven parts, with interruptions, and then fails if it is told to.
struct Producer<'a> {
    bytes: &'a [u8],
    calls: usize,
    fails: bool,
}

impl Read for Producer<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.calls += 1;
        if self.calls.is_multiple_of(5) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if self.bytes.is_empty() && self.fails {
            return Err(io::Error::other("the producer broke"));
        }
        let length = into.len().min(1 + self.calls * 977 % 70_000).min(self.bytes.len());
        let (now, later) = self.bytes.split_at(length);
        into[..length].copy_from_slice(now);
        self.bytes = later;
        Ok(length)
    }
}

#[test]
fn a_stream_comes_back_however_it_is_cut_by_the_producer() {
    for length in [0, 1, 65_536, 524_288, 9_000_001] {
        let fixture = Fixture::new();
        let bytes = noise(length);
        let outcome = fixture.archive("/db/dump.sql", &mut Producer { bytes: &bytes, calls: 0, fails: false }).unwrap();
        assert_eq!(outcome.summary.total_bytes_processed, length as u64);
        assert!(fixture.content(&outcome, &["db", "dump.sql"]) == bytes, "{length}");
        // In one part it is cut into the same pieces.
        let again = fixture.archive("/db/dump.sql", &mut &*bytes).unwrap();
        assert_eq!((again.tree, again.added.data_blobs), (outcome.tree, 0));
    }
}

#[test]
fn a_producer_that_breaks_leaves_no_backup() {
    for length in [0, 1000, 5_000_000] {
        let fixture = Fixture::new();
        let bytes = noise(length);
        let result = fixture.archive("/dump", &mut Producer { bytes: &bytes, calls: 0, fails: true });
        assert!(matches!(result, Err(StreamError::Read(error)) if error.to_string() == "the producer broke"));
        assert_eq!(fixture.repository.storage().list(FileKind::Backup).unwrap(), []);
    }
}

#[test]
fn a_repository_that_fails_ends_an_endless_stream() {
    let fixture = Fixture::new();
    fixture.storage.fail_after(Some(0));
    let chunk = noise(1 << 20);
    let mut number = 0_u64;
    let mut endless = std::iter::repeat_with(|| {
        number += 1;
        number
    });
    struct Endless<'a>(&'a [u8], &'a mut dyn Iterator<Item = u64>);
    impl Read for Endless<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let number = self.1.next().unwrap_or(0);
            let length = into.len().min(self.0.len());
            into[..length].copy_from_slice(&self.0[..length]);
            let stamp = number.to_le_bytes();
            let stamped = length.min(stamp.len());
            into[..stamped].copy_from_slice(&stamp[..stamped]);
            Ok(length)
        }
    }
    let result = fixture.archive("/dump", &mut Endless(&chunk, &mut endless));
    assert!(matches!(result, Err(StreamError::Repository(Error::Storage(_)))), "{:?}", result.err());
}

#[test]
fn cancelling_ends_a_stream_and_names_are_names() {
    let fixture = Fixture::new();
    for name in ["", "/", "/a/..", "..", "../x"] {
        assert!(matches!(fixture.archive(name, &mut io::empty()), Err(StreamError::Path(_))), "{name}");
    }
    fixture.watcher.cancelled.store(true, Ordering::Relaxed);
    let result = fixture.archive("/dump", &mut io::repeat(7));
    assert!(matches!(result, Err(StreamError::Repository(Error::Cancelled))));
}
