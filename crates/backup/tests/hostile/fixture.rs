//! A repository in memory whose trees are written by hand, and a directory that no restore may touch.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use backup::progress::Progress;
use backup::restore::{self, Options, Outcome, Overwrite, restore};
use repository::blob::{BlobKind, PackedBlob};
use repository::blob_writer::{BlobWriter, Destination};
use repository::crypto::KeyCost;
use repository::holder::Holder;
use repository::id::Id;
use repository::index::{Index, IndexBuilder};
use repository::lock::Lock;
use repository::storage::FileKind;
use repository::storage::memory::Memory;
use repository::tree::Timestamp;
use repository::{Error, InitOptions, Repository};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A piece of a file.
#[derive(Clone, Copy)]
pub(crate) struct Data {
    pub(crate) id: Id,
    length: usize,
}

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Progress for Told {
    fn error(&self, path: &Path, error: &dyn std::fmt::Display) {
        self.0.lock().unwrap().push(format!("{}: {error}", path.display()));
    }
}

pub(crate) struct Restored {
    pub(crate) outcome: Outcome,
    pub(crate) errors: Vec<String>,
}

pub(crate) struct Fixture {
    place: TempDir,
    repository: Arc<Repository>,
    lock: Arc<Lock>,
    /// Writes what is not yet in a pack.
    writer: Mutex<Option<BlobWriter>>,
    before: BTreeMap<PathBuf, String>,
}

impl Fixture {
    pub(crate) fn new() -> Fixture {
        // The tests' need of open files must not depend on what the machine allows.
        setrlimit(Resource::Nofile, Rlimit { current: Some(1024), ..getrlimit(Resource::Nofile) }).unwrap();
        let place = tempfile::tempdir().unwrap();
        fs::create_dir_all(place.path().join("outside/directory")).unwrap();
        fs::write(place.path().join("outside/secret"), "secret").unwrap();
        fs::write(place.path().join("outside/directory/file"), "file").unwrap();
        let holder = Holder {
            hostname: "web1".to_owned(),
            username: "root".to_owned(),
            uid: 0,
            gid: 0,
            pid: std::process::id(),
            now: || Timestamp::from_unix(1_767_323_045, 0, 60),
        };
        let storage = Arc::new(Memory::new());
        let repository = Repository::init(
            storage,
            b"correct horse",
            &InitOptions { key_cost: KeyCost::NONE, ..InitOptions::default() },
            &holder,
        )
        .unwrap();
        let repository = Arc::new(repository);
        let lock = Arc::new(Lock::acquire(&repository, false, &holder).unwrap());
        let before = listing(&place.path().join("outside"));
        Fixture { place, repository, lock, writer: Mutex::default(), before }
    }

    pub(crate) fn target(&self) -> PathBuf {
        self.place.path().join("target")
    }

    pub(crate) fn outside(&self) -> PathBuf {
        self.place.path().join("outside")
    }

    pub(crate) fn clear_target(&self) {
        if self.target().exists() {
            fs::remove_dir_all(self.target()).unwrap();
        }
    }

    pub(crate) fn names_in(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.target().join(directory)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Neither its entries, nor their contents, modes and times.
    pub(crate) fn assert_outside_is_untouched(&self) {
        assert_eq!(listing(&self.outside()), self.before);
        assert!(!Path::new("/etc/snapback-test").exists());
    }

    pub(crate) fn blob(&self, kind: BlobKind, bytes: &[u8]) -> Id {
        let mut writer = self.writer.lock().unwrap();
        let writer = writer.get_or_insert_with(|| {
            let index = Arc::new(self.repository.load_index().unwrap());
            BlobWriter::new(&self.repository, &index, Destination::Repository(Arc::clone(&self.lock)))
        });
        writer.saver().save(kind, bytes).unwrap().id
    }

    pub(crate) fn data(&self, bytes: &[u8]) -> Data {
        Data { id: self.blob(BlobKind::Data, bytes), length: bytes.len() }
    }

    pub(crate) fn tree(&self, nodes: &[Value]) -> Id {
        self.blob(BlobKind::Tree, json!({ "nodes": nodes }).to_string().as_bytes())
    }

    fn finish_writing(&self) {
        if let Some(writer) = self.writer.lock().unwrap().take() {
            writer.finish().unwrap();
        }
    }

    /// The index, with some entries changed.
    pub(crate) fn index_with(&self, change: impl Fn(&mut PackedBlob)) -> Index {
        self.build_index(|blobs| blobs.iter_mut().for_each(&change))
    }

    /// The index, with further entries.
    pub(crate) fn index_with_more(&self, more: impl Fn(&PackedBlob) -> Option<PackedBlob>) -> Index {
        self.build_index(|blobs| {
            let added: Vec<_> = blobs.iter().filter_map(&more).collect();
            blobs.extend(added);
        })
    }

    fn build_index(&self, change: impl Fn(&mut Vec<PackedBlob>)) -> Index {
        self.finish_writing();
        let mut builder = IndexBuilder::default();
        for (id, _) in self.repository.storage().list(FileKind::Index).unwrap() {
            for (pack, mut blobs) in self.repository.load_index_file(id).unwrap() {
                change(&mut blobs);
                builder.add(pack, &blobs);
            }
        }
        builder.build()
    }

    pub(crate) fn restore(&self, tree: Id, change: impl FnOnce(&mut Options<'_>)) -> Restored {
        self.try_restore(tree, change).unwrap()
    }

    pub(crate) fn try_restore(&self, tree: Id, change: impl FnOnce(&mut Options<'_>)) -> Result<Restored, Error> {
        let index = self.index_with(|_| {});
        self.run(&index, tree, change)
    }

    pub(crate) fn restore_with(&self, index: &Index, tree: Id, change: impl FnOnce(&mut Options<'_>)) -> Restored {
        self.run(index, tree, change).unwrap()
    }

    fn run(&self, index: &Index, tree: Id, change: impl FnOnce(&mut Options<'_>)) -> Result<Restored, Error> {
        let told = Told::default();
        let mut options = restore::Options {
            path: None,
            include: None,
            exclude: None,
            delete: Vec::new(),
            overwrite: Overwrite::Always,
            dry_run: false,
            verify: false,
            progress: &told,
        };
        change(&mut options);
        let outcome = restore(&self.repository, index, tree, &self.target(), &options)?;
        let errors = told.0.into_inner().unwrap();
        assert_eq!(outcome.errors, errors.len() as u64);
        Ok(Restored { outcome, errors })
    }
}

/// An entry of a tree. Names are in the escapes of Go, as trees have them.
pub(crate) fn named(name: &str, kind: &str) -> Value {
    let (type_bits, mode) = match kind {
        "dir" => (1_u32 << 31, 0o755),
        "symlink" => (1 << 27, 0o777),
        "fifo" => (1 << 25, 0o600),
        _ => (0, 0o644),
    };
    let time = "2023-11-14T22:13:20Z";
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    json!({
        "name": name, "type": kind, "mode": type_bits | mode, "uid": uid, "gid": gid,
        "mtime": time, "atime": time, "ctime": time,
    })
}

/// A file of one blob.
pub(crate) fn file(name: &str, content: &Data) -> Value {
    let mut node = named(name, "file");
    node["content"] = json!([content.id]);
    node["size"] = content.length.into();
    node
}

pub(crate) fn link(name: &str, target: &str) -> Value {
    let mut node = named(name, "symlink");
    node["linktarget"] = target.into();
    node
}

pub(crate) fn directory(name: &str, subtree: Id) -> Value {
    let mut node = named(name, "dir");
    node["subtree"] = json!(subtree);
    node
}

fn listing(directory: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(path) = waiting.pop() {
        let metadata = path.symlink_metadata().unwrap();
        let content = if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        if metadata.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let times = (metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec());
        found.insert(path, format!("{:o} {times:?} {content:?}", metadata.mode()));
    }
    found
}
