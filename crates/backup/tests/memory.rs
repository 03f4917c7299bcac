//! Memory stays bounded: the largest it ever was, of a process of its own for each run.

use std::fmt::Display;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use backup::archive::{self, archive};
use backup::attributes::Zone;
use backup::progress::Progress;
use backup::restore::{self, Overwrite, restore};
use repository::blob::{BlobKind, PackedBlob};
use repository::blob_writer::Destination;
use repository::crypto::KeyCost;
use repository::hash::sha256;
use repository::holder::Holder;
use repository::id::Id;
use repository::index;
use repository::lock::{Lock, LockTimes};
use repository::storage::{FileKind, Local};
use repository::tree::Timestamp;
use repository::{InitOptions, Repository};

/// What the product may take for the benchmark's data.
const LIMIT_MB: u64 = 160;
/// Tells the process what to do: the run, and the directory.
const TASK: &str = "SNAPBACK_TEST_TASK";
/// How many small files; set to a million, this measures that.
const FILES: &str = "SNAPBACK_TEST_FILES";
/// How many blobs a repository has; set to ten million, this measures that.
const BLOBS: &str = "SNAPBACK_TEST_BLOBS";

struct Quiet;

impl Progress for Quiet {
    fn error(&self, path: &Path, error: &dyn Display) {
        panic!("{}: {error}", path.display());
    }
}

#[expect(clippy::disallowed_methods, reason = "somebody must know what time it is")]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_unix(since.as_secs() as i64, 0, 0)
}

fn holder() -> Holder {
    let (hostname, username) = ("here".to_owned(), "somebody".to_owned());
    Holder { hostname, username, uid: 0, gid: 0, pid: std::process::id(), now }
}

fn back_up(place: &Path, parent: Option<Id>) -> Id {
    let storage = Arc::new(Local::new(place.join("repository")));
    let repository = Arc::new(Repository::open(storage, b"password").unwrap());
    let times = LockTimes { settle: Duration::from_millis(1), ..LockTimes::default() };
    let lock = Arc::new(Lock::acquire_with(&repository, false, &holder(), times).unwrap());
    let index = Arc::new(repository.load_index().unwrap());
    let options = archive::Options {
        paths: vec![place.join("source")],
        elsewhere: Vec::new(),
        changed: None,
        exclude: None,
        exclude_caches: false,
        exclude_larger_than: None,
        one_file_system: false,
        parent,
        zone: Zone::utc(),
        progress: &Quiet,
    };
    archive(&repository, &index, Destination::Repository(lock), &options).unwrap().tree.unwrap()
}

fn bring_back(place: &Path, tree: Id) {
    let storage = Arc::new(Local::new(place.join("repository")));
    let repository = Repository::open(storage, b"password").unwrap();
    let index = repository.load_index().unwrap();
    let options = restore::Options {
        path: None,
        include: None,
        exclude: None,
        delete: Vec::new(),
        overwrite: Overwrite::Always,
        dry_run: false,
        verify: false,
        progress: &Quiet,
    };
    restore(&repository, &index, tree, &place.join("target"), &options).unwrap();
}

/// Does one run if this process was started for it.
#[test]
#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "the other side of `peak_mb`")]
fn a_task_of_another_process() {
    let Some(task) = std::env::var_os(TASK) else { return };
    let task = task.into_string().unwrap();
    let (run, place) = task.split_once(' ').unwrap();
    let place = Path::new(place);
    let tree = || fs::read_to_string(place.join("tree")).unwrap().parse::<Id>().unwrap();
    match run {
        "first" => fs::write(place.join("tree"), back_up(place, None).to_string()).unwrap(),
        "again" => drop(back_up(place, Some(tree()))),
        _ => bring_back(place, tree()),
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    println!("peak: {}", peak.trim());
}

/// The most memory that a run takes, in MB.
fn peak_mb(run: &str, place: &Path) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "a_task_of_another_process", "--nocapture"]);
    let output = child.env(TASK, format!("{run} {}", place.display())).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{run}: {said}{}", String::from_utf8_lossy(&output.stderr));
    let kib = said.split("peak: ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    kib.parse::<u64>().unwrap() * 1024 / 1_000_000
}

/// A directory with an empty `source`, and a repository.
fn place() -> tempfile::TempDir {
    // Hundreds of thousands of files are made much faster in memory, where there is enough of it.
    let shared = Path::new("/dev/shm");
    let has_room = rustix::fs::statvfs(shared).is_ok_and(|found| found.f_bavail * found.f_frsize > 4 << 30);
    let place = if has_room { tempfile::tempdir_in(shared) } else { tempfile::tempdir() }.unwrap();
    fs::create_dir(place.path().join("source")).unwrap();
    let options = InitOptions { key_cost: KeyCost::NONE, ..InitOptions::default() };
    let storage = Arc::new(Local::new(place.path().join("repository")));
    Repository::init(storage, b"password", &options, &holder()).unwrap();
    place
}

#[expect(clippy::print_stdout, reason = "the figures are what this test is for")]
fn assert_bounded(what: &str, limit_mb: u64, fill: impl Fn(&Path)) {
    let place = place();
    fill(&place.path().join("source"));
    for run in ["first", "again", "restore"] {
        let peak = peak_mb(run, place.path());
        println!("{what}, {run}: {peak} MB");
        assert!(peak <= limit_mb, "{what}, {run}: {peak} MB");
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "more files than every run of the tests can bear")]
fn many_small_files_take_little_memory() {
    let files: u32 = std::env::var(FILES).map_or(200_000, |number| number.parse().unwrap());
    // A run remembers each blob that it has stored: its id, in a table that is half empty at times.
    let limit_mb = LIMIT_MB + u64::from(files.saturating_sub(200_000)) * 80 / 1_000_000;
    assert_bounded(&format!("{files} files"), limit_mb, |source| {
        for directory in 0..files / 500 {
            let directory_path = source.join(format!("{}/{directory}", directory % 20));
            fs::create_dir_all(&directory_path).unwrap();
            for file in 0..500 {
                fs::write(directory_path.join(file.to_string()), format!("{directory} {file}")).unwrap();
            }
        }
    });
}

#[test]
fn a_sparse_file_of_50_gb_takes_little_memory() {
    assert_bounded("a sparse file of 50 GB", LIMIT_MB, |source| {
        fs::File::create(source.join("sparse")).unwrap().set_len(50_000_000_000).unwrap();
    });
}

/// Index files name blobs of packs that are not there, as no backup looks for them.
#[test]
#[expect(clippy::disallowed_methods, reason = "more blobs than every run of the tests can bear")]
#[expect(clippy::print_stdout, reason = "the figures are what this test is for")]
fn a_repository_of_many_blobs_takes_at_most_64_bytes_a_blob() {
    let blobs: u32 = std::env::var(BLOBS).map_or(1_000_000, |number| number.parse().unwrap());
    let place = place();
    fs::write(place.path().join("source/file"), "content").unwrap();
    let storage = Arc::new(Local::new(place.path().join("repository")));
    let repository = Repository::open(storage, b"password").unwrap();
    let add = |file: u32| {
        let blob = |number: u32| PackedBlob {
            id: sha256(&(file * 50_000 + number).to_le_bytes()),
            kind: BlobKind::Data,
            offset: number % 40 * 400_000,
            length: 400_000,
            uncompressed_length: 1_000_000,
        };
        let all: Vec<_> = (0..50_000).map(blob).collect();
        // Forty of 0.4 MB are a pack.
        let packs = all.chunks(40).map(|blobs| (sha256(&blobs[0].id.0), blobs));
        repository.save(FileKind::Index, &index::file::encode(packs)).unwrap();
    };
    // A few files take room for what is read of them at once, however many more there are.
    (0..4).for_each(add);
    let without = peak_mb("first", place.path());
    (4..4 + blobs / 50_000).for_each(add);
    let with = peak_mb("first", place.path());
    let each = with.saturating_sub(without) * 1_000_000 / u64::from(blobs);
    println!("{blobs} blobs: {with} MB, {without} without: {each} bytes each");
    assert!(each <= 64, "{with} MB, {without} without");
}
