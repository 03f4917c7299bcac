//! Files of a backup whose content comes from a stream: what a database's dump writes into a pipe.
//!
//! They lie in directories of their own, below the root, that the file system need not have: what it has there under the
//! same name is not looked at. So nothing of them is ever taken over from the parent without being read.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use repository::blob_writer::Destination;
use repository::index::Index;
use repository::tree::{Node, NodeKind, Timestamp, file_mode_from_st_mode};
use repository::{Error, Repository};

use crate::archive::targets::Target;
use crate::archive::{Options, Outcome, archive_with};
use crate::attributes::Zone;
use crate::progress::Progress;

/// A further file of a backup.
pub struct Stream<'a> {
    /// What it looks like.
    pub file: StreamFile,
    /// Called when its turn has come, with what came of those before it.
    pub open: Open<'a>,
}

/// Begins a stream.
pub type Open<'a> = Box<dyn FnOnce(&[StreamEnd]) -> io::Result<Box<dyn Input + 'a>> + 'a>;

/// What a file that comes from a stream looks like, and the directories above it that no other file made.
#[derive(Clone, Debug)]
pub struct StreamFile {
    /// Absolute, in the backup.
    pub path: PathBuf,
    /// Permissions: `0o600`. Whoever may read the file may enter the directories, `0o700`.
    pub permissions: u32,
    /// All of its times.
    pub time: Timestamp,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Owner's name.
    pub user: Arc<str>,
    /// Group's name.
    pub group: Arc<str>,
}

/// What a stream is read from. An error instead of its end says that it is not whole.
pub trait Input: Read {
    /// What can be waited on (poll(2)) instead of in `read`, which must have nothing left in a buffer of its own when
    /// it is asked for more: so a run that is cancelled does not wait for a stream that stands still.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl Input for File {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }
}

impl<T: AsRef<[u8]>> Input for Cursor<T> {}

/// What came of a stream.
#[derive(Clone, Debug)]
pub struct StreamEnd {
    /// Of the file.
    pub path: PathBuf,
    /// How many bytes it gave. If it failed, the backup does not have the file.
    pub bytes: Result<u64, Arc<io::Error>>,
    /// How long it took.
    pub time: Duration,
}

/// The tree of names that streams make up.
#[derive(Debug)]
pub(super) enum MadeUp {
    /// By its number.
    File(usize),
    /// Never empty.
    Directory(BTreeMap<OsString, MadeUp>),
}

impl MadeUp {
    /// A file of it, which its looks are taken from.
    pub(super) fn first(&self) -> Option<usize> {
        match self {
            MadeUp::File(number) => Some(*number),
            MadeUp::Directory(below) => below.values().find_map(MadeUp::first),
        }
    }
}

/// All that streams make up: what is in the root, and what each file looks like.
#[derive(Debug, Default)]
pub(super) struct MadeUpFiles {
    root: BTreeMap<OsString, MadeUp>,
    files: Vec<StreamFile>,
}

impl MadeUpFiles {
    /// Refuses names that are none, two of the same name, and what lies among the paths of the backup.
    pub(super) fn new(streams: &[Stream<'_>], target: &Target) -> Result<MadeUpFiles, Error> {
        let files: Vec<StreamFile> = streams.iter().map(|stream| stream.file.clone()).collect();
        let mut root = MadeUp::Directory(BTreeMap::new());
        for (number, file) in files.iter().enumerate() {
            let refuse = |why: &str| Error::Refused(format!("{}: {why}", file.path.display()));
            let names = names(&file.path).ok_or_else(|| refuse("not the name of a file"))?;
            if matches!(target, Target::Above(below) if below.contains_key(names[0])) {
                return Err(refuse("no stream can be stored where files of the backup are"));
            }
            let mut at = &mut root;
            for name in &names[..names.len() - 1] {
                let MadeUp::Directory(below) = at else { return Err(refuse("it lies in what is a file")) };
                at = below.entry((*name).to_owned()).or_insert_with(|| MadeUp::Directory(BTreeMap::new()));
            }
            let MadeUp::Directory(below) = at else { return Err(refuse("it lies in what is a file")) };
            if below.insert(names[names.len() - 1].to_owned(), MadeUp::File(number)).is_some() {
                return Err(refuse("there is one of that name already"));
            }
        }
        let MadeUp::Directory(root) = root else { unreachable!("it was made as one") };
        Ok(MadeUpFiles { root, files })
    }

    /// The names in the root.
    pub(super) fn names(&self) -> impl Iterator<Item = &OsString> {
        self.root.keys()
    }

    /// An entry of the root.
    pub(super) fn get(&self, name: &OsStr) -> Option<&MadeUp> {
        self.root.get(name)
    }

    pub(super) fn file(&self, number: usize) -> &StreamFile {
        &self.files[number]
    }
}

/// The names of a path; `None` if it is not that of a file below the root.
fn names(path: &Path) -> Option<Vec<&OsStr>> {
    let names = path.components().skip_while(|component| *component == Component::RootDir);
    let names: Option<Vec<_>> = names
        .map(|component| match component {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect();
    names.filter(|names| !names.is_empty())
}

impl StreamFile {
    /// Its entry; what it holds is not known yet.
    pub(super) fn node(&self, name: &OsStr) -> Node {
        Node { links: 1, ..self.entry(name, 0o100_000 | self.permissions) }
    }

    /// The entry of a directory above it.
    pub(super) fn directory_node(&self, name: &OsStr) -> Node {
        self.entry(name, 0o040_000 | self.permissions | (self.permissions & 0o444) >> 2)
    }

    fn entry(&self, name: &OsStr, st_mode: u32) -> Node {
        let mode = file_mode_from_st_mode(st_mode);
        Node {
            name: name.as_bytes().into(),
            kind: NodeKind::of_file_mode(mode),
            mode,
            mtime: self.time,
            atime: self.time,
            ctime: self.time,
            uid: self.uid,
            gid: self.gid,
            user: Arc::clone(&self.user),
            group: Arc::clone(&self.group),
            inode: 0,
            device_id: 0,
            size: 0,
            links: 0,
            link_target: Box::default(),
            extended_attributes: Vec::new(),
            generic_attributes: None,
            device: 0,
            content: None,
            subtree: None,
            error: "".into(),
        }
    }
}

/// Why a stream could not be backed up.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The stream failed: what came until then is not a whole file, and nobody should take it for one.
    #[error("cannot read the stream")]
    Read(#[source] Arc<io::Error>),
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] Error),
    /// Not the path of a file.
    #[error("{0:?} is not the name of a file")]
    Path(PathBuf),
}

/// Backs up a stream as the only file of a backup. Everything is durable when it returns; the record is the caller's to
/// write.
pub fn archive_stream(
    repository: &Arc<Repository>,
    index: &Arc<Index>,
    destination: Destination,
    stream: &mut dyn Read,
    file: StreamFile,
    progress: &dyn Progress,
) -> Result<Outcome, StreamError> {
    if names(&file.path).is_none() {
        return Err(StreamError::Path(file.path));
    }
    let options = Options {
        paths: Vec::new(),
        elsewhere: Vec::new(),
        changed: None,
        exclude: None,
        exclude_caches: false,
        exclude_larger_than: None,
        one_file_system: false,
        parent: None,
        zone: Zone::utc(),
        progress: &WithoutErrors(progress),
    };
    let stream = Stream { file, open: Box::new(|_| Ok(Box::new(Only(stream)))) };
    let mut outcome = archive_with(repository, index, destination, &options, vec![stream])?;
    match outcome.streams.pop() {
        Some(StreamEnd { bytes: Err(error), .. }) => Err(StreamError::Read(error)),
        _ => Ok(outcome),
    }
}

struct Only<'a>(&'a mut dyn Read);

impl Read for Only<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Input for Only<'_> {}

/// Without its only file there is no backup, and that is told once.
struct WithoutErrors<'a>(&'a dyn Progress);

impl Progress for WithoutErrors<'_> {
    fn bytes_done(&self, bytes: u64) {
        self.0.bytes_done(bytes);
    }

    fn file_done(&self, path: &dyn Fn() -> PathBuf) {
        self.0.file_done(path);
    }

    fn error(&self, _: &Path, _: &dyn Display) {}

    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}
