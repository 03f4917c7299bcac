//! A server's directory on a real ext4.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use snapshot::adopt::{self, Plan, Request, Volume};
use snapshot::error::Error;
use snapshot::runner::{Outcome, Runner, System};
use snapshot::state::{Lock, State};

use crate::disk::{Disk, describe, fill};

/// The real commands, but for systemctl: a test does not touch the system's units.
#[derive(Default)]
pub(crate) struct Commands {
    pub(crate) of_systemd: Mutex<Vec<String>>,
    pub(crate) has_no_mkfs: bool,
}

impl Runner for Commands {
    fn run(&self, program: &str, arguments: &[OsString]) -> io::Result<Outcome> {
        match program {
            "systemctl" => {
                let words: Vec<_> = arguments.iter().map(|word| word.to_string_lossy()).collect();
                self.of_systemd.lock().unwrap().push(words.join(" "));
                Ok(Outcome { code: Some(0), stdout: Vec::new(), stderr: Vec::new() })
            }
            "mkfs.btrfs" if self.has_no_mkfs => Err(io::ErrorKind::NotFound.into()),
            _ => System.run(program, arguments),
        }
    }
}

/// Where everything lies, on a disk that is mounted at `root`.
pub(crate) struct Site {
    pub(crate) root: PathBuf,
    pub(crate) commands: Commands,
}

impl Site {
    pub(crate) fn at(root: &Path) -> Site {
        Site { root: root.to_owned(), commands: Commands::default() }
    }

    pub(crate) fn new(disk: &Disk) -> Site {
        let site = Site::at(&disk.path());
        for directory in [site.directory(), site.volumes(), site.units()] {
            std::fs::create_dir_all(directory).unwrap();
        }
        fill(&site.directory());
        site
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.root.join("srv/my shop")
    }

    pub(crate) fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    pub(crate) fn units(&self) -> PathBuf {
        self.root.join("units")
    }

    pub(crate) fn state(&self) -> State {
        State::open(self.root.join("state")).unwrap()
    }

    pub(crate) fn lock(&self) -> Lock {
        self.state().lock(&mut || panic!("nobody else holds it")).unwrap()
    }

    pub(crate) fn request(&self) -> Request {
        Request {
            directory: self.directory(),
            image: self.volumes().join("shop.btrfs"),
            bytes: 280 << 20,
            units: Some(self.units()),
            stop: vec!["shop.service".to_owned()],
            keeps_old: true,
        }
    }

    pub(crate) fn plan(&self) -> Plan {
        adopt::plan(&self.request(), &self.commands).unwrap()
    }

    pub(crate) fn plan_back(&self) -> Plan {
        adopt::plan_back(&self.volume().unwrap(), Vec::new()).unwrap()
    }

    pub(crate) fn volume(&self) -> Option<Volume> {
        Volume::find(&self.volumes(), &self.directory()).unwrap()
    }

    pub(crate) fn adopt(&self) -> Result<(), Error> {
        self.plan().job.run(&self.lock(), &self.commands, &mut |_| {})
    }

    pub(crate) fn go_back(&self) -> Result<(), Error> {
        self.plan_back().job.run(&self.lock(), &self.commands, &mut |_| {})
    }

    pub(crate) fn describe(&self) -> BTreeMap<PathBuf, String> {
        describe(&self.directory())
    }

    /// Mount points at or below the root of the site.
    pub(crate) fn mounts(&self) -> Vec<PathBuf> {
        let mounts = snapshot::mounts::mounts().unwrap().into_iter().map(|mount| mount.point);
        mounts.filter(|point| point.starts_with(&self.root) && *point != self.root).collect()
    }

    /// Nothing is left of a volume, in files or mounts.
    #[track_caller]
    pub(crate) fn assert_without_volume(&self, when: &str) {
        assert_eq!(self.mounts(), [] as [PathBuf; 0], "{when}");
        for directory in [self.volumes(), self.units()] {
            let left: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert_eq!(left, [] as [PathBuf; 0], "{when}");
        }
        assert!(adopt::Job::unfinished(&self.state()).unwrap().is_empty(), "{when}");
    }

    /// The volume is in place, and nothing else is mounted.
    #[track_caller]
    pub(crate) fn assert_with_volume(&self, when: &str) {
        assert_eq!(self.mounts(), [self.directory()], "{when}");
        assert!(self.units().join(adopt::unit_name(&self.directory())).exists(), "{when}");
        assert!(adopt::Job::unfinished(&self.state()).unwrap().is_empty(), "{when}");
    }
}

/// An ext4 with room for a volume.
pub(crate) fn ext4() -> Disk {
    Disk::new("ext4", &["-q", "-F"], 700)
}
