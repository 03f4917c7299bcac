//! A project `shop` on a btrfs of its own, with a subvolume in its subvolume, and repositories beside it.
#![allow(clippy::disallowed_methods, reason = "records and locks bear the time")]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::catalog::Recorder;
use engine::config::{self, BackupPlan, Config, Hooks, PasswordSource, Plan, Project, SnapshotOptions, Timing};
use engine::job::{self, BackupRequest, Backups, Context, Error, Meter, Watch};
use engine::moment::Clock;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use policy::Keep;
use repository::Repository;
use repository::crypto::KeyCost;
use repository::holder::Holder;
use repository::storage::Local;
use snapshot::error::Error as SnapshotError;
use snapshot::record::Record;
use snapshot::state::{Lock, State};
use tempfile::TempDir;

pub(crate) struct Site {
    directory: TempDir,
    mount: Option<PathBuf>,
    pub(crate) state: State,
    pub(crate) config: Config,
    pub(crate) told: Told,
    pub(crate) is_cancelled: Arc<AtomicBool>,
    pub(crate) recorder: Recorder<'static>,
    pub(crate) looks_at_everything: bool,
}

/// What jobs said, and whether they are to end.
#[derive(Default)]
pub(crate) struct Told(pub(crate) Mutex<Vec<String>>, Arc<AtomicBool>, pub(crate) Phases);

/// Something to be done when a prune begins one of its phases, which are counted.
#[derive(Default)]
pub(crate) struct Phases(pub(crate) Mutex<Option<Box<dyn FnMut() + Send>>>);

struct Silent<'a>(&'a Told, bool);

impl backup::progress::Progress for Silent<'_> {
    fn error(&self, path: &Path, error: &dyn std::fmt::Display) {
        self.0.say(&format!("{}: {error}", path.display()));
    }

    fn is_cancelled(&self) -> bool {
        self.0.1.load(Ordering::Relaxed)
    }
}

impl repository::progress::Progress for Silent<'_> {
    fn begin(&self, _: repository::progress::Phase, _: Option<u64>, _: Option<u64>) {
        let Told(_, _, Phases(act)) = self.0;
        if let (true, Some(act)) = (self.1, &mut *act.lock().unwrap()) {
            act();
        }
    }
}

impl Watch for Told {
    fn meter<'a>(&'a self, label: &str) -> Box<dyn Meter + 'a> {
        Box::new(Silent(self, label.starts_with("pruning")))
    }

    fn say(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }

    fn warn(&self, text: &str) {
        self.say(text);
    }
}

impl Told {
    pub(crate) fn all(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }
}

struct Now;

impl Clock for Now {
    fn wall(&self) -> Timestamp {
        Timestamp::now()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

fn now() -> repository::tree::Timestamp {
    let now = Timestamp::now();
    repository::tree::Timestamp::from_unix(now.as_second(), now.subsec_nanosecond() as u32, 0)
}

impl Site {
    /// On a btrfs: `shop` is a subvolume, `shop/db` a subvolume in it.
    pub(crate) fn new() -> Site {
        let directory = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
        let image = directory.path().join("image");
        fs::File::create(&image).unwrap().set_len(320 << 20).unwrap();
        run("mkfs.btrfs", [OsStr::new("--quiet"), image.as_ref()]);
        let mount = directory.path().canonicalize().unwrap().join("mount");
        fs::create_dir(&mount).unwrap();
        run("mount", [OsStr::new("-o"), "loop".as_ref(), image.as_ref(), mount.as_ref()]);
        let mut site = Site::in_directory(directory);
        site.mount = Some(mount.clone());
        site.project().paths = vec![mount.join("shop")];
        for subvolume in ["shop", "shop/db"] {
            run("btrfs", [OsStr::new("subvolume"), "create".as_ref(), mount.join(subvolume).as_ref()]);
        }
        site.write("index", "one");
        site.write("db/table", "first");
        site
    }

    /// Where there are no snapshots.
    pub(crate) fn plain() -> Site {
        let directory = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
        let site = Site::in_directory(directory);
        fs::create_dir(site.shop()).unwrap();
        site.write("index", "one");
        site
    }

    fn in_directory(directory: TempDir) -> Site {
        let state = State::open(directory.path().join("state")).unwrap();
        let recorder = Recorder::open(&directory.path().join("state/catalog.sqlite"), Timestamp::now(), |_| {});
        let told = Told::default();
        let mut site = Site {
            state,
            config: Config::default(),
            is_cancelled: Arc::clone(&told.1),
            told,
            recorder,
            looks_at_everything: false,
            mount: None,
            directory,
        };
        let shop = site.path("shop");
        let project = Project {
            name: "shop".to_owned(),
            paths: vec![shop],
            exclude: Vec::new(),
            one_file_system: false,
            units: Vec::new(),
            probe: None,
            probe_limit: Duration::from_secs(1),
            plans: vec!["nightly".to_owned()],
            hooks: Hooks::default(),
            snapshot: SnapshotOptions { expire: Duration::from_secs(3600), keep_base: true },
            databases: std::collections::BTreeMap::new(),
        };
        site.config.projects.insert("shop".to_owned(), project);
        let plan = Plan {
            name: "nightly".to_owned(),
            backup: Some(BackupPlan {
                timing: Timing::Every(Duration::from_secs(3600)),
                spread: Duration::ZERO,
                to: Vec::new(),
                full_walk: 7,
            }),
            snapshot: None,
            keep: Keep::default(),
            check: None,
            min_depth: policy::Span::default(),
        };
        site.config.plans.insert("nightly".to_owned(), plan);
        site.add_repository("offsite");
        site
    }

    /// A repository that the plan goes to as well.
    pub(crate) fn add_repository(&mut self, name: &str) {
        let storage = Arc::new(Local::new(self.path(name)));
        let options = repository::InitOptions { key_cost: KeyCost::NONE, ..Default::default() };
        Repository::init(storage, b"secret", &options, &holder()).unwrap();
        let password = self.path("password");
        fs::write(&password, "secret\n").unwrap();
        let repository = config::Repository {
            name: name.to_owned(),
            url: self.path(name).to_str().unwrap().to_owned(),
            password: PasswordSource::File(password),
            limit_upload: None,
            limit_download: None,
            low_priority: true,
            retries: 0,
            append_only: false,
            offline: false,
        };
        self.config.repositories.insert(name.to_owned(), repository);
        self.plan().backup.as_mut().unwrap().to.push(name.to_owned());
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().canonicalize().unwrap().join(name)
    }

    pub(crate) fn project(&mut self) -> &mut Project {
        self.config.projects.get_mut("shop").unwrap()
    }

    pub(crate) fn plan(&mut self) -> &mut Plan {
        self.config.plans.get_mut("nightly").unwrap()
    }

    pub(crate) fn shop(&self) -> PathBuf {
        self.config.projects["shop"].paths[0].clone()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.shop().join(name), text).unwrap();
    }

    /// All snapshots that are known.
    pub(crate) fn snapshots(&self) -> Vec<Record> {
        self.state.records().unwrap()
    }

    pub(crate) fn with_context<T>(&self, act: impl FnOnce(&Context<'_>) -> T) -> T {
        let is_cancelled = Arc::clone(&self.is_cancelled);
        let lock_snapshots = || -> Result<Lock, SnapshotError> { self.state.lock(&mut || {}) };
        act(&Context {
            state: &self.state,
            lock_snapshots: &lock_snapshots,
            holder: &holder(),
            program: "snapback test",
            zone: TimeZone::UTC,
            clock: &Now,
            variable: &|_| None,
            is_cancelled: Arc::new(move || is_cancelled.load(Ordering::Relaxed)),
            patience: Duration::ZERO,
            looks_at_everything: self.looks_at_everything,
            watch: &self.told,
            recorder: &self.recorder,
        })
    }

    pub(crate) fn back_up(&self) -> Result<Backups, Error> {
        let project = &self.config.projects["shop"];
        let to = job::destinations(&self.config, project);
        self.with_context(|context| job::back_up(context, &BackupRequest { config: &self.config, project, to }))
    }

    pub(crate) fn open(&self, repository: &str) -> Arc<Repository> {
        let storage = Arc::new(Local::new(self.path(repository)));
        Arc::new(Repository::open(storage, b"secret").unwrap())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(mount) = &self.mount {
            // Lazily and from the top: a test that failed may have left something open.
            let _ = Command::new("umount").args(["-q", "-l", "-R"]).arg(mount).status();
        }
    }
}

pub(crate) fn holder() -> Holder {
    Holder { hostname: "test".to_owned(), username: "root".to_owned(), uid: 0, gid: 0, pid: std::process::id(), now }
}

fn run<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is needed for this test: {error}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}
