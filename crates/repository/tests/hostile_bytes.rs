//! Damaged and forged bytes for every parser of what a repository stores: no panic, bounded memory, and an error that
//! names the thing. The fuzz targets look deeper; these run with every change.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};

use proptest::prelude::*;
use repository::blob::{BlobKind, PackedBlob};
use repository::chunker::Polynomial;
use repository::config::Config;
use repository::crypto::{KeyCost, KeyFile, MasterKey};
use repository::hash::sha256;
use repository::holder::Holder;
use repository::id::Id;
use repository::index::{IndexBuilder, file};
use repository::lock_record::LockRecord;
use repository::pack::{PackBuilder, expected_size, parse_entries, parse_header};
use repository::record::BackupRecord;
use repository::storage::memory::Memory;
use repository::storage::{FileKind, Storage as _, StoredFile};
use repository::tree::{Timestamp, Tree, TreeEncoder};
use repository::{InitOptions, Repository, Unpacking, list_keys};

/// The system's allocator, and how much of it is in use.
struct Counting {
    used: AtomicUsize,
    most: AtomicUsize,
}

impl Counting {
    fn more(&self, bytes: usize) {
        let used = self.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.most.fetch_max(used, Ordering::Relaxed);
    }

    fn less(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.more(layout.size());
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.more(layout.size());
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        self.less(layout.size());
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.more(size);
        self.less(layout.size());
        // SAFETY: the caller keeps the contract.
        unsafe { System.realloc(place, layout, size) }
    }
}

#[global_allocator]
static MEMORY: Counting = Counting { used: AtomicUsize::new(0), most: AtomicUsize::new(0) };

/// What a parser may take for the few kilobytes it gets here.
const FOR_SMALL: usize = 16 << 20;
/// What may be taken for the largest thing that is unpacked, 1 GiB, and for what it had before it grew to that.
const FOR_LARGEST: usize = (1 << 30) + (1 << 29) + (64 << 20);

/// One at a time, so that each sees its own memory.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Runs `parse`, which may take so much memory.
fn within<T>(limit: usize, parse: impl FnOnce() -> T) -> T {
    let before = MEMORY.used.load(Ordering::Relaxed);
    MEMORY.most.store(before, Ordering::Relaxed);
    let result = parse();
    let most = MEMORY.most.load(Ordering::Relaxed).saturating_sub(before);
    assert!(most <= limit, "took {most} bytes");
    result
}

fn holder() -> Holder {
    Holder {
        hostname: "host".to_owned(),
        username: "user".to_owned(),
        uid: 0,
        gid: 0,
        pid: std::process::id(),
        now: || Timestamp::from_unix(1_800_000_000, 0, 0),
    }
}

fn init() -> (Arc<Memory>, Repository) {
    let storage = Arc::new(Memory::new());
    let options = InitOptions { key_cost: KeyCost::NONE, ..InitOptions::default() };
    let repository = Repository::init(storage.clone(), b"password", &options, &holder()).unwrap();
    (storage, repository)
}

static REPOSITORY: LazyLock<(Arc<Memory>, Repository)> = LazyLock::new(init);

fn sealed(repository: &Repository, plain: &[u8]) -> Vec<u8> {
    let mut sealed = vec![0; 16];
    sealed.extend_from_slice(plain);
    repository.key().seal_in_place(&mut sealed);
    sealed
}

/// One thing that may happen to bytes.
#[derive(Clone, Debug)]
enum Change {
    Flip(prop::sample::Index, u8),
    Insert(prop::sample::Index, &'static str),
    Replace(prop::sample::Index, &'static str),
    Remove(prop::sample::Index, u8),
    Repeat(prop::sample::Index, u8),
    Truncate(prop::sample::Index),
}

fn change() -> impl Strategy<Value = Change> {
    let place = any::<prop::sample::Index>();
    let token = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        "\"",
        "\\",
        ",",
        ":",
        "null",
        "true",
        "-1",
        "1e99",
        "18446744073709551616",
        "4294967295",
        "[[[[[[[[[[[[[[[[",
        "\\u0000",
        "\\ud800",
        "\\\\xff",
        "\0",
        "\u{fffd}",
        "..",
        "/",
        "{}",
        "[]",
        "\"\"",
        "0.5",
        "9999-99-99T99:99:99Z",
        "0000-01-01T00:00:00+23:59",
    ]);
    prop_oneof![
        (place.clone(), 1_u8..).prop_map(|(place, bits)| Change::Flip(place, bits)),
        (place.clone(), token.clone()).prop_map(|(place, token)| Change::Insert(place, token)),
        (place.clone(), token).prop_map(|(place, token)| Change::Replace(place, token)),
        (place.clone(), any::<u8>()).prop_map(|(place, length)| Change::Remove(place, length)),
        (place.clone(), any::<u8>()).prop_map(|(place, length)| Change::Repeat(place, length)),
        place.prop_map(Change::Truncate),
    ]
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec(change(), 0..6)
}

fn changed(bytes: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for change in changes {
        let length = bytes.len();
        let at = |place: &prop::sample::Index| place.index(length + 1);
        let end = |start: usize, long: usize| (start + long).min(length);
        match change {
            Change::Flip(place, bits) if length > 0 => bytes[place.index(length)] ^= bits,
            Change::Flip(..) => {}
            Change::Insert(place, token) => drop(bytes.splice(at(place)..at(place), token.bytes())),
            Change::Replace(place, token) => {
                let start = at(place);
                drop(bytes.splice(start..end(start, token.len()), token.bytes()));
            }
            Change::Remove(place, long) => drop(bytes.drain(at(place)..end(at(place), usize::from(*long)))),
            Change::Repeat(place, long) => {
                let start = at(place);
                let part = bytes[start..end(start, usize::from(*long))].to_vec();
                drop(bytes.splice(start..start, part));
            }
            Change::Truncate(place) => bytes.truncate(at(place)),
        }
    }
    bytes
}

const TREE: &[u8] = include_bytes!("data/tree-of-restic-0.19.1.json");

fn id(byte: u8) -> Id {
    Id([byte; 32])
}

fn blobs() -> Vec<PackedBlob> {
    let blob = |byte, kind, offset, length, uncompressed_length| PackedBlob {
        id: id(byte),
        kind,
        offset,
        length,
        uncompressed_length,
    };
    vec![blob(1, BlobKind::Data, 0, 100, 0), blob(2, BlobKind::Tree, 100, 50, 400), blob(3, BlobKind::Data, 150, 9, 7)]
}

fn record() -> Vec<u8> {
    let time = Timestamp::from_unix(1_800_000_000, 5, 60);
    let record = serde_json::json!({
        "time": time, "parent": id(1), "tree": id(2), "paths": ["/srv"], "hostname": "h", "username": "u", "uid": 5,
        "excludes": ["*.o"], "tags": ["t"], "original": id(3), "program_version": "restic 0.19.1",
        "summary": { "backup_start": time, "backup_end": time, "files_new": 1, "total_bytes_processed": 7 },
    });
    record.to_string().into_bytes()
}

fn lock() -> Vec<u8> {
    let time = Timestamp::from_unix(1_800_000_000, 5, 60);
    serde_json::json!({ "time": time, "exclusive": true, "hostname": "h", "username": "u", "pid": 7, "uid": 5 })
        .to_string()
        .into_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn trees(changes in changes()) {
        let _alone = alone();
        let bytes = changed(TREE, &changes);
        if let Ok(tree) = within(FOR_SMALL, || Tree::decode(&bytes)) {
            let mut encoder = TreeEncoder::new();
            if tree.nodes.iter().all(|node| encoder.push(node).is_ok()) {
                prop_assert!(Tree::decode(&encoder.finish()).is_ok());
            }
        }
    }

    #[test]
    fn index_files(changes in changes()) {
        let _alone = alone();
        let blobs = blobs();
        let plain = file::encode([(id(9), &blobs[..2]), (id(8), &blobs[2..])]);
        let bytes = changed(&plain, &changes);
        let decoded = within(FOR_SMALL, || {
            let packs = file::decode(&bytes)?;
            let mut builder = IndexBuilder::default();
            packs.iter().for_each(|(pack, blobs)| builder.add(*pack, blobs));
            let index = builder.build();
            for blob in packs.iter().flat_map(|(_, blobs)| blobs) {
                assert!(index.locations(blob.kind, &blob.id).any(|location| location.blob == *blob));
            }
            Ok::<_, serde_json::Error>(())
        });
        let (storage, repository) = &*REPOSITORY;
        let file = store(storage, FileKind::Index, &sealed(repository, &bytes));
        match within(FOR_SMALL, || repository.load_index_file(file.id)) {
            Ok(_) => prop_assert!(decoded.is_ok()),
            Err(error) => prop_assert!(names(&error, &file), "{error}"),
        }
        storage.remove(&file).unwrap();
    }

    #[test]
    fn records_and_locks(changes in changes(), is_lock in any::<bool>()) {
        let _alone = alone();
        let (storage, repository) = &*REPOSITORY;
        let bytes = changed(&if is_lock { lock() } else { record() }, &changes);
        if let Ok(lock) = within(FOR_SMALL, || serde_json::from_slice::<LockRecord>(&bytes)) {
            let _ = (lock.is_stale(&holder()), lock.to_string());
        }
        let file = store(storage, FileKind::Backup, &sealed(repository, &bytes));
        match within(FOR_SMALL, || repository.load_record(file.id)) {
            Ok(record) => {
                let again: BackupRecord = serde_json::from_slice(&serde_json::to_vec(&record).unwrap()).unwrap();
                prop_assert_eq!(again.tree, record.tree);
                let _ = record.summary();
            }
            Err(error) => prop_assert!(names(&error, &file), "{error}"),
        }
        storage.remove(&file).unwrap();
    }

    #[test]
    fn headers_of_packs(changes in changes(), blob_bytes in prop_oneof![Just(159), any::<u64>()]) {
        let _alone = alone();
        let (_, repository) = &*REPOSITORY;
        let mut builder = PackBuilder::default();
        for blob in blobs() {
            builder.push(blob.id, blob.kind, &vec![0; blob.length as usize], blob.uncompressed_length);
        }
        let pack = builder.finish(repository.key()).bytes;
        let header = pack[159..pack.len() - 4].to_vec();
        prop_assert_eq!(parse_header(repository.key(), &mut header.clone(), 159).unwrap(), blobs());
        let mut opened = header.clone();
        let plain = changed(repository.key().open_in_place(&mut opened).unwrap(), &changes);
        if let Ok(blobs) = within(FOR_SMALL, || parse_entries(&plain, blob_bytes)) {
            prop_assert!(expected_size(&blobs) > blob_bytes);
        }
        let mut damaged = changed(&header, &changes);
        if damaged != header {
            prop_assert!(within(FOR_SMALL, || parse_header(repository.key(), &mut damaged, 159)).is_err());
        }
    }

    #[test]
    fn blobs_unpacked(changes in changes(), text in "[ab]{0,300}", claimed in prop_oneof![0_u32..600, any::<u32>()]) {
        let _alone = alone();
        let (_, repository) = &*REPOSITORY;
        let packed = changed(&zstd::bulk::compress(text.as_bytes(), 3).unwrap(), &changes);
        let mut sealed = sealed(repository, &packed);
        let length = sealed.len() as u32;
        let blob = PackedBlob { id: id(5), kind: BlobKind::Data, offset: 0, length, uncompressed_length: claimed };
        let mut plain = Vec::new();
        // What the few bytes of a frame may claim at the most, and the decompressor's window.
        let limit = FOR_SMALL + packed.len() * (32 << 10);
        let opened = within(limit, || {
            repository.open_blob_unhashed(id(6), &blob, &mut sealed, &mut Unpacking::new(), &mut plain)
        });
        match opened {
            Ok(()) => prop_assert_eq!(plain.len() as u64, blob.plain_length()),
            Err(error) => {
                let error = error.to_string();
                prop_assert!(error.contains(&blob.id.short().to_string()), "{}", error);
            }
        }
    }

    #[test]
    fn master_keys(changes in changes()) {
        let _alone = alone();
        let json = MasterKey::random().to_json();
        let _ = within(FOR_SMALL, || MasterKey::from_json(&changed(&json, &changes)));
    }

    #[test]
    fn configurations(changes in changes()) {
        let _alone = alone();
        let (storage, repository) = &*REPOSITORY;
        let plain = serde_json::to_vec(repository.config()).unwrap();
        let bytes = changed(&plain, &changes);
        if let Ok(config) = within(FOR_SMALL, || serde_json::from_slice::<Config>(&bytes)) {
            let _ = config.chunker_polynomial.parse::<Polynomial>();
        }
        let other = Arc::new(Memory::new());
        other.create().unwrap();
        for (id, _) in storage.list(FileKind::Key).unwrap() {
            let mut key = Vec::new();
            storage.read(&StoredFile::new(FileKind::Key, id), &mut key).unwrap();
            other.write(&StoredFile::new(FileKind::Key, id), &key).unwrap();
        }
        other.write(&StoredFile::CONFIG, &sealed(repository, &bytes)).unwrap();
        if let Err(error) = within(FOR_SMALL, || Repository::open(other, b"password")) {
            let error = error.to_string();
            prop_assert!(error.contains("config") || error.contains("version"), "{}", error);
        }
    }

    #[test]
    fn key_files(changes in changes()) {
        let _alone = alone();
        let master = MasterKey::random();
        let key = KeyFile::create(b"password", &master, KeyCost::NONE, "2026-01-02T03:04:05Z", "u", "h");
        let bytes = changed(&serde_json::to_vec(&key).unwrap(), &changes);
        let storage = Memory::new();
        storage.create().unwrap();
        let file = store(&storage, FileKind::Key, &bytes);
        let (_, parsed) = within(FOR_SMALL, || list_keys(&storage)).unwrap().remove(0);
        match parsed {
            Err(error) => prop_assert!(names(&error, &file), "{error}"),
            // More would be honest work.
            Ok(key) if key.n.saturating_mul(u64::from(key.r) * u64::from(key.p)) < 1 << 10 => {
                let _ = within(FOR_SMALL, || key.open(b"password"));
            }
            Ok(_) => {}
        }
    }
}

fn store(storage: &Memory, kind: FileKind, bytes: &[u8]) -> StoredFile {
    let file = StoredFile::new(kind, sha256(bytes));
    storage.write(&file, bytes).unwrap();
    file
}

fn names(error: &repository::Error, file: &StoredFile) -> bool {
    error.to_string().contains(&file.id.short().to_string())
}

/// A frame of zeros, with or without its length, made without having them.
fn bomb(bytes: u64, with_length: bool) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_contentsize(with_length).unwrap();
    encoder.set_pledged_src_size(Some(bytes)).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..bytes >> 20 {
        encoder.write_all(&zeros).unwrap();
    }
    encoder.finish().unwrap()
}

#[test]
fn bombs_do_not_go_off() {
    let _alone = alone();
    let (storage, repository) = &*REPOSITORY;
    for with_length in [true, false] {
        let frame = bomb(3 << 30, with_length);
        let marked = [&[2], &*frame].concat();
        let file = store(storage, FileKind::Index, &sealed(repository, &marked));
        let limit = if with_length { FOR_SMALL } else { FOR_LARGEST };
        let error = within(limit, || repository.load_index_file(file.id)).unwrap_err();
        assert!(names(&error, &file) && error.to_string().contains("are refused"), "{error}");
        storage.remove(&file).unwrap();
        for claimed in [1, 100 << 20, u32::MAX] {
            let mut sealed = sealed(repository, &frame);
            let length = sealed.len() as u32;
            let blob = PackedBlob { id: id(5), kind: BlobKind::Tree, offset: 0, length, uncompressed_length: claimed };
            let opened = within(FOR_SMALL + (100 << 20), || {
                let mut plain = Vec::new();
                repository.open_blob_unhashed(id(6), &blob, &mut sealed, &mut Unpacking::new(), &mut plain)
            });
            assert!(opened.unwrap_err().to_string().contains("0505"));
        }
    }
}

#[test]
fn a_tree_of_the_shortest_entries_takes_little_memory() {
    let _alone = alone();
    let mut text = b"{\"nodes\":[".to_vec();
    for number in 0..1_000_000 {
        write!(text, "{{\"name\":\"{number:06}\"}},").unwrap();
    }
    text.pop();
    text.extend_from_slice(b"]}");
    let limit = text.len() * 20;
    assert!(within(limit, || Tree::decode(&text)).is_err());
    let nested = [b"{\"nodes\":[{\"name\":\"a\",\"x\":".to_vec(), vec![b'['; 10 << 20]].concat();
    assert!(within(FOR_SMALL, || Tree::decode(&nested)).is_err());
}
