//! Small repositories in memory, made through the public API.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use repository::blob::BlobKind;
use repository::blob_writer::{BlobSaver, BlobWriter, Destination};
use repository::check::{self, ReadData, Report};
use repository::crypto::KeyCost;
use repository::holder::Holder;
use repository::id::Id;
use repository::lock::{Lock, LockTimes};
use repository::progress::Unwatched;
use repository::record::BackupRecord;
use repository::storage::memory::Memory;
use repository::storage::{FileKind, Storage, StoredFile};
use repository::tree::{Node, NodeKind, Timestamp, Tree, TreeEncoder};
use repository::{Error, InitOptions, Repository};

pub(crate) const PASSWORD: &[u8] = b"correct horse";

/// Files by path below the root, one directory deep.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

pub(crate) fn holder() -> Holder {
    Holder {
        hostname: "host".to_owned(),
        username: "user".to_owned(),
        uid: 0,
        gid: 0,
        pid: std::process::id(),
        now: || Timestamp::from_unix(1_800_000_000, 0, 0),
    }
}

pub(crate) fn init() -> (Arc<Memory>, Arc<Repository>) {
    let storage = Arc::new(Memory::new());
    let repository = Repository::init(
        storage.clone(),
        PASSWORD,
        &InitOptions { key_cost: KeyCost::NONE, ..InitOptions::default() },
        &holder(),
    )
    .unwrap();
    (storage, Arc::new(repository))
}

pub(crate) fn open(storage: &Arc<Memory>) -> Arc<Repository> {
    Arc::new(Repository::open(storage.clone(), PASSWORD).unwrap())
}

pub(crate) fn lock(repository: &Arc<Repository>, exclusive: bool) -> Result<Arc<Lock>, Error> {
    let times = LockTimes { settle: Duration::from_millis(1), ..LockTimes::default() };
    let lock = Lock::acquire_with(repository, exclusive, &holder(), times)?;
    lock.confirm()?;
    Ok(Arc::new(lock))
}

/// Bytes that do not compress, different for each seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A text that compresses.
pub(crate) fn text(seed: u64, length: usize) -> Vec<u8> {
    let line = format!("line of file {seed}, again and again\n");
    line.bytes().cycle().take(length).collect()
}

/// Three directories with files of each kind: empty, small, of several blobs. `common` files are the same in all
/// backups that have the same seed for them.
pub(crate) fn files(common: u64, own: u64) -> Files {
    let mut files = Files::new();
    files.insert("common/empty".to_owned(), Vec::new());
    files.insert("common/noise".to_owned(), noise(common, 30_000));
    files.insert("common/text".to_owned(), text(common, 40_000));
    files.insert("own/noise".to_owned(), noise(own, 25_000));
    files.insert("own/text".to_owned(), text(own, 10_000));
    files.insert("single/one".to_owned(), noise(own ^ common, 700));
    files
}

pub(crate) fn node(name: &[u8], kind: NodeKind) -> Node {
    let time = Timestamp::from_unix(1_700_000_000, 5, 0);
    Node {
        name: name.into(),
        mode: if kind == NodeKind::Dir { 1 << 31 | 0o755 } else { 0o644 },
        kind,
        mtime: time,
        atime: time,
        ctime: time,
        uid: 0,
        gid: 0,
        user: Arc::default(),
        group: Arc::default(),
        inode: 0,
        device_id: 0,
        size: 0,
        links: 1,
        link_target: Box::default(),
        extended_attributes: Vec::new(),
        generic_attributes: None,
        device: 0,
        content: None,
        subtree: None,
        error: Box::default(),
    }
}

pub(crate) fn save_tree(saver: &mut BlobSaver, nodes: &[Node]) -> Result<Id, Error> {
    let mut encoder = TreeEncoder::new();
    nodes.iter().for_each(|node| encoder.push(node).unwrap());
    Ok(saver.save(BlobKind::Tree, &encoder.finish())?.id)
}

/// What lies on one blob here; small, so that files have several.
const PIECE: usize = 8_000;

pub(crate) fn file_node(saver: &mut BlobSaver, name: &[u8], bytes: &[u8]) -> Result<Node, Error> {
    let mut node = node(name, NodeKind::File);
    node.size = bytes.len() as u64;
    let content: Result<Vec<Id>, Error> =
        bytes.chunks(PIECE).map(|piece| Ok(saver.save(BlobKind::Data, piece)?.id)).collect();
    node.content = Some(content?);
    Ok(node)
}

/// Backs files up and returns the record's id.
pub(crate) fn back_up(repository: &Arc<Repository>, secs: i64, files: &Files) -> Result<Id, Error> {
    back_up_tree(repository, secs, &|saver| {
        let mut directories: BTreeMap<&str, Vec<Node>> = BTreeMap::new();
        for (path, bytes) in files {
            let (directory, name) = path.split_once('/').unwrap();
            let node = file_node(saver, name.as_bytes(), bytes)?;
            directories.entry(directory).or_default().push(node);
        }
        let mut root = Vec::new();
        for (name, nodes) in directories {
            let mut directory = node(name.as_bytes(), NodeKind::Dir);
            directory.subtree = Some(save_tree(saver, &nodes)?);
            root.push(directory);
        }
        save_tree(saver, &root)
    })
}

/// As [`back_up`], of trees that the caller makes.
pub(crate) fn back_up_tree(
    repository: &Arc<Repository>,
    secs: i64,
    make: &dyn Fn(&mut BlobSaver) -> Result<Id, Error>,
) -> Result<Id, Error> {
    let lock = lock(repository, false)?;
    let index = Arc::new(repository.load_index()?);
    let writer = BlobWriter::new(repository, &index, Destination::Repository(lock.clone()));
    let mut saver = writer.saver();
    let tree = make(&mut saver)?;
    drop(saver);
    writer.finish()?;
    let record = BackupRecord {
        time: Timestamp::from_unix(secs, 0, 60),
        parent: None,
        tree,
        paths: vec!["/data".to_owned()],
        hostname: "host".to_owned(),
        username: "user".to_owned(),
        uid: 0,
        gid: 0,
        excludes: Vec::new(),
        tags: vec!["daily".to_owned()],
        original: None,
        program_version: "snapback test".to_owned(),
        summary: None,
    };
    lock.confirm()?;
    repository.save_record(&record)
}

/// Everything a backup holds, verified blob by blob.
pub(crate) fn load(repository: &Repository, backup: Id) -> Result<Files, Error> {
    let record = repository.load_record(backup)?;
    let index = repository.load_index()?;
    let mut reader = repository.reader(&index);
    let mut files = Files::new();
    let mut open = vec![(String::new(), record.tree)];
    let mut piece = Vec::new();
    while let Some((path, tree)) = open.pop() {
        let tree: Tree = reader.load_tree(&tree)?;
        for node in tree.nodes {
            let name = String::from_utf8_lossy(&node.name);
            let path = if path.is_empty() { name.into_owned() } else { format!("{path}/{name}") };
            match node.subtree {
                Some(subtree) => open.push((path, subtree)),
                None => {
                    let mut bytes = Vec::new();
                    for id in node.content.iter().flatten() {
                        reader.load(BlobKind::Data, id, &mut piece)?;
                        bytes.extend_from_slice(&piece);
                    }
                    files.insert(path, bytes);
                }
            }
        }
    }
    Ok(files)
}

pub(crate) fn check_all(repository: &Repository) -> Report {
    let options = check::Options { read_data: ReadData::All };
    check::check(repository, &options, &Unwatched).unwrap()
}

/// Panics with what is wrong, unless nothing is.
pub(crate) fn assert_clean(repository: &Repository) {
    let report = check_all(repository);
    let errors: Vec<String> = report.errors.iter().map(ToString::to_string).collect();
    assert!(report.is_clean(), "{errors:#?}");
}

pub(crate) fn list(storage: &Memory, kind: FileKind) -> Vec<Id> {
    storage.list(kind).unwrap().into_iter().map(|(id, _)| id).collect()
}

pub(crate) fn remove(storage: &Memory, kind: FileKind, id: Id) {
    storage.remove(&StoredFile::new(kind, id)).unwrap();
}

/// Lets `run` die after each of its changing operations in turn, and calls `after` with what each crash leaves and the
/// number of operations that were carried out. `run` works on a copy of the storage each time.
pub(crate) fn crash_everywhere(
    storage: &Memory,
    run: &dyn Fn(&Arc<Memory>) -> Result<(), Error>,
    after: &dyn Fn(Arc<Memory>, u64),
) -> u64 {
    for operations in 0.. {
        let copy = Arc::new(storage.copy());
        copy.fail_after(Some(operations));
        let result = run(&copy);
        after(Arc::new(copy.copy()), operations);
        if result.is_ok() {
            return operations;
        }
    }
    unreachable!()
}
