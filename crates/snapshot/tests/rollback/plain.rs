//! A provider over plain directories: copies for snapshots, an exchange of directories for the switch. Slow and not
//! atomic, but every step can be cut short, performed again and taken back, as the trait demands.

use std::fs::{self, File, FileTimes};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::json;
use snapshot::error::Error;
use snapshot::id::Id;
use snapshot::provider::{Abilities, Changed, Handle, Kind, Provider, Space, Step, View};

#[derive(Clone)]
pub(crate) struct Plain {
    pub(crate) directory: PathBuf,
    /// Where snapshots lie.
    pub(crate) store: PathBuf,
    /// The switch keeps the old tree; else a safety snapshot is made first, and the old tree is removed.
    pub(crate) keeps_old_tree: bool,
    /// Called at the beginning and at the end of every act that changes something.
    pub(crate) clock: Option<Arc<dyn Fn() + Send + Sync>>,
}

struct Shown(PathBuf);

impl View for Shown {
    fn path(&self) -> &Path {
        &self.0
    }
}

impl Plain {
    fn place(&self, id: Id) -> PathBuf {
        self.store.join(id.to_string())
    }

    fn timed<T>(&self, act: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let tick = || self.clock.iter().for_each(|clock| clock());
        tick();
        let done = act();
        tick();
        done
    }

    fn staging(&self) -> PathBuf {
        self.store.join("staging")
    }
}

impl Provider for Plain {
    fn kind(&self) -> Kind {
        Kind::Reflink
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            is_atomic: false,
            switches_live: true,
            keeps_snapshot: true,
            keeps_old_tree: self.keeps_old_tree,
            knows_changes: false,
            works_unprivileged: true,
            spares_state: false,
        }
    }

    fn directory(&self) -> &Path {
        &self.directory
    }

    fn list(&self) -> Result<Vec<(Id, Handle)>, Error> {
        let entries = fs::read_dir(&self.store).map_err(Error::io("list", &self.store))?;
        let paths = entries.map(|entry| entry.unwrap().path());
        let named = |path: PathBuf| Some((path.file_name()?.to_str()?.parse().ok()?, Handle::Reflink { path }));
        Ok(paths.filter_map(named).collect())
    }

    fn create(&self, id: Id) -> Result<Handle, Error> {
        self.timed(|| copy(&self.directory, &self.place(id)))?;
        Ok(Handle::Reflink { path: self.place(id) })
    }

    fn delete(&self, handle: &Handle) -> Result<(), Error> {
        self.timed(|| remove(path_of(handle)))
    }

    fn view(&self, handle: &Handle) -> Result<Box<dyn View>, Error> {
        Ok(Box::new(Shown(path_of(handle).to_owned())))
    }

    fn space(&self, _: &Handle) -> Result<Space, Error> {
        Ok(Space::default())
    }

    fn plan_switch(&self, to: &Handle, old: Id) -> Result<Vec<Step>, Error> {
        let arguments = json!({ "to": path_of(to), "old": self.place(old), "inode": inode(&self.directory) });
        let names = ["copy", "exchange", if self.keeps_old_tree { "keep" } else { "leave" }];
        Ok(names.map(|name| Step { name: name.to_owned(), arguments: arguments.clone() }).into())
    }

    fn perform(&self, step: &Step) -> Result<(), Error> {
        let (old, before) = (Path::new(step.arguments["old"].as_str().unwrap()), step.arguments["inode"].as_u64());
        let is_switched = inode(&self.directory) != before;
        self.timed(|| match step.name.as_str() {
            "copy" if !is_switched => {
                remove(&self.staging())?;
                copy(Path::new(step.arguments["to"].as_str().unwrap()), &self.staging())
            }
            "exchange" if !is_switched => self.exchange(),
            "keep" if inode(&self.staging()) == before => rename(&self.staging(), old),
            _ => Ok(()),
        })
    }

    fn revert(&self, step: &Step) -> Result<(), Error> {
        let (old, before) = (Path::new(step.arguments["old"].as_str().unwrap()), step.arguments["inode"].as_u64());
        self.timed(|| match step.name.as_str() {
            "keep" if inode(old) == before => rename(old, &self.staging()),
            "exchange" if inode(&self.directory) != before => self.exchange(),
            "copy" if inode(&self.directory) == before => remove(&self.staging()),
            _ => Ok(()),
        })
    }

    fn changed_paths(&self, _: &Handle, _: Option<&Handle>) -> Result<Option<Vec<Changed>>, Error> {
        Ok(None)
    }
}

impl Plain {
    fn exchange(&self) -> Result<(), Error> {
        renameat_with(CWD, self.staging(), CWD, &self.directory, RenameFlags::EXCHANGE)
            .map_err(Error::io("exchange", &self.directory))
    }
}

fn path_of(handle: &Handle) -> &Path {
    let Handle::Reflink { path } = handle else { panic!("not one of ours: {handle:?}") };
    path
}

fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).map(|stat| stat.ino()).ok()
}

fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(Error::io("rename", from))
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(Error::io("remove", path)),
    }
}

/// Files and directories with their modes and times; there is nothing else.
fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let copied = copy_entry(from, to);
    copied.map_err(Error::io("copy", from))
}

fn copy_entry(from: &Path, to: &Path) -> io::Result<()> {
    let stat = fs::symlink_metadata(from)?;
    if stat.is_dir() {
        fs::create_dir(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy_entry(&entry.path(), &to.join(entry.file_name()))?;
        }
        fs::set_permissions(to, stat.permissions())?;
    } else {
        fs::copy(from, to)?;
    }
    let times = FileTimes::new().set_accessed(stat.accessed()?).set_modified(stat.modified()?);
    File::open(to)?.set_times(times)
}
