//! The repository of the nets: made when it is first needed, opened once, and what lies in it.
//!
//! Its password protects nothing from whoever can read the state directory, and everything from whoever finds the
//! repository without it. It is made before the repository and never shown. A backup is a net by its tag `net`, and its
//! name is in the tag `id=`; one that is no net any more stays for a while under the tag `net-base`, as parent of the
//! next, which would else read every file.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use repository::crypto::{KeyCost, fill_random};
use repository::holder::Holder;
use repository::index::Index;
use repository::lock::{Lock, LockTimes};
use repository::record::BackupRecord;
use repository::storage::{Local, Storage, StorageError, StoredFile};
use repository::{InitOptions, Repository};
use snapshot::error::Error;
use snapshot::id::Id;
use snapshot::provider::Handle;

/// Of all nets.
const NET: &str = "net";
/// Of what was one.
const BASE: &str = "net-base";
/// Before the name.
const NAME: &str = "id=";

/// A random password of 256 bits needs no slow derivation: nobody guesses at it.
const KEY_COST: KeyCost = KeyCost { n: 1 << 10, r: 8, p: 1 };

/// On a local disk a lock is seen at once; and whoever changes nets holds the lock of the state directory, too.
const SETTLE: Duration = Duration::from_millis(10);

/// Where a repository of nets lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// A directory.
    pub repository: PathBuf,
    /// What opens it.
    pub password_file: PathBuf,
}

impl Place {
    /// In the state directory.
    pub fn in_state(state: &Path) -> Place {
        let net = state.join("net");
        Place { repository: net.join("repository"), password_file: net.join("password") }
    }

    /// In a directory of its own, on a larger disk for example. The password stays in the state directory: whoever finds
    /// the repository has not found it.
    pub fn in_directory(directory: &Path, state: &Path) -> Place {
        Place { repository: directory.join("repository"), ..Place::in_state(state) }
    }
}

/// The repository, opened when it is first needed.
pub(super) struct Store {
    pub(super) place: Place,
    holder: Holder,
    opened: Mutex<Option<Arc<Repository>>>,
}

/// The open repository.
pub(super) struct Open {
    pub(super) repository: Arc<Repository>,
    pub(super) holder: Holder,
    location: String,
}

/// One backup that is, or was, a net.
pub(super) struct Kept {
    pub(super) backup: repository::id::Id,
    pub(super) record: BackupRecord,
    /// `None` for what was one.
    pub(super) name: Option<Id>,
}

impl Store {
    pub(super) fn new(place: Place, holder: Holder) -> Store {
        Store { place, holder, opened: Mutex::default() }
    }

    /// The repository; `None` if none was ever made.
    pub(super) fn open_if_there(&self) -> Result<Option<Open>, Error> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let repository = match &*opened {
            Some(repository) => Arc::clone(repository),
            None => {
                let storage: Arc<dyn Storage> = Arc::new(Local::new(&self.place.repository));
                match storage.size(&StoredFile::CONFIG) {
                    Err(StorageError::NotFound { .. }) => return Ok(None),
                    Err(error) => return Err(self.failed(error.into())),
                    Ok(_) => {}
                }
                let password = self.password()?.ok_or_else(|| self.lost())?;
                let repository = Arc::new(Repository::open(storage, &password).map_err(|error| self.failed(error))?);
                *opened = Some(Arc::clone(&repository));
                repository
            }
        };
        Ok(Some(self.open_with(repository)))
    }

    /// The repository, made if there is none.
    pub(super) fn open_or_make(&self) -> Result<Open, Error> {
        if let Some(open) = self.open_if_there()? {
            return Ok(open);
        }
        for directory in [Some(&*self.place.repository), self.place.password_file.parent()].into_iter().flatten() {
            DirBuilder::new().mode(0o700).recursive(true).create(directory).map_err(Error::io("create", directory))?;
        }
        let password = match self.password()? {
            Some(password) => password,
            None => make_password(&self.place.password_file)?,
        };
        let storage: Arc<dyn Storage> = Arc::new(Local::new(&self.place.repository));
        let options = InitOptions { polynomial: None, key_cost: KEY_COST };
        let made = Repository::init(storage, &password, &options, &self.holder).map_err(|error| self.failed(error))?;
        let made = Arc::new(made);
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&made));
        Ok(self.open_with(made))
    }

    fn open_with(&self, repository: Arc<Repository>) -> Open {
        Open { repository, holder: self.holder.clone(), location: self.place.repository.display().to_string() }
    }

    fn password(&self) -> Result<Option<Vec<u8>>, Error> {
        let path = &self.place.password_file;
        match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", path)(error)),
            Ok(text) => Ok(Some(text.trim_ascii_end().to_vec()).filter(|password| !password.is_empty())),
        }
    }

    fn lost(&self) -> Error {
        let (repository, file) = (self.place.repository.display(), self.place.password_file.display());
        Error::refused(format!("the password of the net's repository at {repository} is lost: there is no {file}"))
            .or(format!("bring {file} back from a backup; or remove {repository}, and with it all nets kept there"))
    }

    pub(super) fn failed(&self, error: repository::Error) -> Error {
        failed(&self.place.repository.display().to_string(), error)
    }

    pub(super) fn handle(&self, backup: repository::id::Id) -> Handle {
        let Place { repository, password_file } = self.place.clone();
        Handle::Backup { repository, password_file, backup: backup.to_string() }
    }

    /// The backup that a handle names.
    pub(super) fn backup(&self, handle: &Handle) -> Result<repository::id::Id, Error> {
        match handle {
            Handle::Backup { repository, backup, .. } if *repository == self.place.repository => backup_id(backup),
            _ => Err(Error::refused(format!(
                "the snapshot is no backup in the net's repository at {}",
                self.place.repository.display()
            ))),
        }
    }
}

pub(super) fn backup_id(text: &str) -> Result<repository::id::Id, Error> {
    text.parse().map_err(|_| Error::refused(format!("{text:?} is not the id of a backup")))
}

fn failed(location: &str, error: repository::Error) -> Error {
    let hint = match &error {
        repository::Error::Locked(_) => "wait until whoever works with it has ended".to_owned(),
        repository::Error::WrongPassword(_) | repository::Error::NoKey(_) => {
            format!("bring its password file back from a backup; or remove {location}, and with it all nets kept there")
        }
        _ => format!("`snapback repo check -r {location}` tells more; without it, there is no way back by this net"),
    };
    Error::refused(format!("the net's repository at {location}: {error}")).or(hint)
}

/// A new password, durable before it is used.
fn make_password(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = [0; 32];
    fill_random(&mut bytes);
    let password: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let unfinished = path.with_extension("tmp");
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(true).write(true).mode(0o600).open(&unfinished);
    let mut file = file.map_err(Error::io("create", &unfinished))?;
    let written = writeln!(file, "{password}").and_then(|()| file.sync_all());
    written.map_err(Error::io("write", &unfinished))?;
    fs::rename(&unfinished, path).map_err(Error::io("rename", &unfinished))?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(Error::io("sync", parent))?;
    Ok(password.into_bytes())
}

impl Open {
    pub(super) fn failed(&self, error: repository::Error) -> Error {
        failed(&self.location, error)
    }

    pub(super) fn lock(&self, exclusive: bool) -> Result<Arc<Lock>, Error> {
        let times = LockTimes { settle: SETTLE, ..LockTimes::default() };
        let lock = Lock::acquire_with(&self.repository, exclusive, &self.holder, times);
        lock.map(Arc::new).map_err(|error| self.failed(error))
    }

    pub(super) fn index(&self) -> Result<Arc<Index>, Error> {
        self.repository.load_index().map(Arc::new).map_err(|error| self.failed(error))
    }

    /// Backups of a directory that are nets or were, oldest first.
    pub(super) fn nets_of(&self, directory: &Path) -> Result<Vec<Kept>, Error> {
        let path = directory.to_string_lossy();
        let (records, damaged) = self.repository.backups().map_err(|error| self.failed(error))?;
        if let Some(error) = damaged.into_iter().next() {
            return Err(self.failed(error));
        }
        let kept = records.into_iter().filter_map(|(backup, record)| {
            let has = |tag: &str| record.tags.iter().any(|other| other == tag);
            let is_of_it = record.hostname == self.holder.hostname && record.paths == [&*path];
            let name = record.tags.iter().find_map(|tag| tag.strip_prefix(NAME)?.parse().ok());
            let name: Option<Id> = if has(NET) { name } else { None };
            (is_of_it && (name.is_some() || has(BASE))).then_some(Kept { backup, record, name })
        });
        Ok(kept.collect())
    }

    /// One of them.
    pub(super) fn net_of(&self, directory: &Path, backup: repository::id::Id) -> Result<Option<Kept>, Error> {
        Ok(self.nets_of(directory)?.into_iter().find(|kept| kept.backup == backup && kept.name.is_some()))
    }
}

/// The tags of a net of this name.
pub(super) fn tags(name: Id) -> Vec<String> {
    vec![NET.to_owned(), name_tag(name)]
}

/// The tag by which one net is told from the others.
pub(super) fn name_tag(name: Id) -> String {
    format!("{NAME}{name}")
}

/// The tags of what was one.
pub(super) fn base_tags() -> Vec<String> {
    vec![BASE.to_owned()]
}
