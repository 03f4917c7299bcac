//! A live directory with a state directory beside it, and what a tree looks like as text.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use jiff::Timestamp;
use snapshot::error::Error;
use snapshot::manage;
use snapshot::provider::{Handle, Provider};
use snapshot::record::{Purpose, Record};
use snapshot::rollback::{self, Plan};
use snapshot::runner::{Outcome, Runner};
use snapshot::state::{Lock, State};

use crate::plain::Plain;

pub(crate) const NOW: Timestamp = Timestamp::constant(1_750_000_000, 0);

/// A directory with some content, of which there may be snapshots.
pub(crate) struct Site {
    pub(crate) state: State,
    pub(crate) plain: Plain,
}

impl Site {
    /// In a directory that is there: the same names again give the same site.
    pub(crate) fn at(root: &Path, keeps_old_tree: bool) -> Site {
        let root = root.canonicalize().unwrap();
        for name in ["live", "store"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        let plain = Plain { directory: root.join("live"), store: root.join("store"), keeps_old_tree, clock: None };
        Site { state: State::open(root.join("state")).unwrap(), plain }
    }

    pub(crate) fn lock(&self) -> Lock {
        self.state.lock(&mut || {}).unwrap()
    }

    pub(crate) fn live(&self, name: &str) -> PathBuf {
        self.plain.directory.join(name)
    }

    pub(crate) fn snapshot(&self) -> Record {
        manage::create(&self.lock(), &self.plain, asked(), NOW).unwrap()
    }

    pub(crate) fn plan(&self, runner: &dyn Runner, to: &Record, request: rollback::Request) -> Plan {
        rollback::gather(&self.state, &[rollback::Member::new(&self.plain, to)], runner, request).unwrap()
    }

    /// Finds the provider of whatever directory: there is one only.
    pub(crate) fn open(&self) -> impl Fn(&Path, &Handle) -> Result<Box<dyn Provider>, Error> + use<> {
        let plain = self.plain.clone();
        move |_: &Path, _: &Handle| Ok(Box::new(plain.clone()) as Box<dyn Provider>)
    }
}

pub(crate) fn asked() -> manage::Request {
    manage::Request { note: String::new(), expires: None, is_held: false, purpose: Purpose::Asked }
}

/// Fills a directory with one of two states that differ in every way a tree can.
pub(crate) fn fill(directory: &Path, is_new: bool) {
    let word = if is_new { "new" } else { "old" };
    fs::create_dir_all(directory.join("below")).unwrap();
    fs::write(directory.join("same"), "the same").unwrap();
    fs::write(directory.join("changed"), word).unwrap();
    fs::write(directory.join("below").join(word), word).unwrap();
    let _ = fs::remove_file(directory.join("below").join(if is_new { "old" } else { "new" }));
}

/// Every path of a tree with its mode, owner, time, and content.
pub(crate) fn look(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let stat = fs::symlink_metadata(&path).unwrap();
        let content = if stat.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        if stat.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let name = path.strip_prefix(root).unwrap().display();
        let (mode, uid, time) = (stat.mode(), stat.uid(), (stat.mtime(), stat.mtime_nsec()));
        lines.push(format!("{name} {mode:o} {uid} {time:?} {content:?}"));
    }
    lines.sort();
    lines
}

/// Plays systemd: all units are there and run; writes down what it is told, and fails where it is told to.
#[derive(Default)]
pub(crate) struct Commands {
    pub(crate) told: Mutex<Vec<String>>,
    pub(crate) failing: Option<&'static str>,
}

impl Runner for Commands {
    fn run(&self, program: &str, arguments: &[OsString]) -> io::Result<Outcome> {
        let words: Vec<_> = arguments.iter().map(|argument| argument.to_str().unwrap()).collect();
        let line = format!("{program} {}", words.join(" "));
        let mut outcome = Outcome { code: Some(0), stdout: Vec::new(), stderr: Vec::new() };
        if words.first() == Some(&"show") {
            outcome.stdout = b"LoadState=loaded\nActiveState=active\n".to_vec();
            return Ok(outcome);
        }
        if self.failing == Some(line.as_str()) {
            outcome.code = Some(1);
            outcome.stderr = b"it does not work".to_vec();
        }
        self.told.lock().unwrap().push(line);
        Ok(outcome)
    }
}
