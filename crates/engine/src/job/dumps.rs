//! The dumps of a project's databases, as files of the same backup.
//!
//! They stream from the dump tools into the repository while the files are walked, one after the other, in the order of
//! the configuration. A dump that cannot be had, or breaks, leaves its file out, and the backup is incomplete; nothing of
//! it stands in the way of the others. The manifest comes last, and says what became of each.
//!
//! Each repository gets dumps of its own, made while its backup is: one copied from the first would make the second's
//! backup depend on the first's, and a slow repository would hold the servers' transactions for all of them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{self, Cursor, Read};
use std::os::fd::BorrowedFd;
use std::path::{Component, Path, PathBuf};

use backup::archive::{Input, Stream, StreamEnd, StreamFile};
use backup::attributes::Names;
use jiff::Timestamp;
use repository::tree::Timestamp as TreeTimestamp;
use workload::dump::{self, Contents, Dump, Part};

use super::Context;
use crate::config::{Database, Project};
use crate::manifest::{self, DumpedDatabase, DumpedPart, Manifest};

/// A dump that a backup lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingDump {
    /// The database's name in the configuration.
    pub database: String,
    /// Which file of it; `None` if all.
    pub file: Option<String>,
    /// Why.
    pub reason: String,
}

impl std::fmt::Display for MissingDump {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no dump of {}", self.database)?;
        if let Some(file) = &self.file {
            write!(f, " ({file})")?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// The dumps of one backup.
pub(super) struct Dumps<'a> {
    context: &'a Context<'a>,
    project: &'a Project,
    begun: TreeTimestamp,
    databases: Vec<Wanted<'a>>,
    /// When each file was begun.
    times: RefCell<HashMap<PathBuf, Timestamp>>,
}

/// A database, and what there is to dump.
struct Wanted<'a> {
    database: &'a Database,
    contents: Result<Contents, String>,
    /// Of the contents, those whose names can be files'.
    parts: Vec<Part>,
}

impl<'a> Dumps<'a> {
    /// Asks the servers what there is. `None` if the project has nothing to dump.
    pub(super) fn of(context: &'a Context<'a>, project: &'a Project, begun: TreeTimestamp) -> Option<Dumps<'a>> {
        let wanted = project.databases.values().filter(|database| database.dump);
        let databases: Vec<Wanted<'_>> = wanted.map(Wanted::of).collect();
        (!databases.is_empty()).then(|| Dumps { context, project, begun, databases, times: RefCell::default() })
    }

    /// What could not even be begun, each under the path that it should have had.
    pub(super) fn refused(&self) -> impl Iterator<Item = (PathBuf, MissingDump)> {
        self.databases.iter().flat_map(|wanted| {
            let missing = wanted.refused();
            let path = |missing: &MissingDump| {
                let directory = manifest::directory_of(&missing.database);
                missing.file.as_ref().map_or(directory.clone(), |file| directory.join(file))
            };
            missing.into_iter().map(move |missing| (path(&missing), missing))
        })
    }

    /// The files, the manifest last.
    pub(super) fn streams(&self) -> Vec<Stream<'_>> {
        let names = Names::new();
        let holder = self.context.holder;
        let file = |path: PathBuf| StreamFile {
            path,
            permissions: 0o600,
            time: self.begun,
            uid: holder.uid,
            gid: holder.gid,
            user: names.user(holder.uid),
            group: names.group(holder.gid),
        };
        let mut streams = Vec::new();
        for wanted in &self.databases {
            for part in &wanted.parts {
                let path = path_of(wanted.database, part);
                let open = {
                    let path = path.clone();
                    move |_: &[StreamEnd]| -> io::Result<Box<dyn Input>> {
                        self.times.borrow_mut().insert(path, self.context.clock.wall());
                        let dump = dump::open(&wanted.database.login, part).map_err(dump::broken)?;
                        Ok(Box::new(FromTool(dump)))
                    }
                };
                streams.push(Stream { file: file(path), open: Box::new(open) });
            }
        }
        let manifest = move |before: &[StreamEnd]| -> io::Result<Box<dyn Input>> {
            Ok(Box::new(Cursor::new(self.manifest(before).to_json())))
        };
        streams.push(Stream { file: file(manifest::PATH.into()), open: Box::new(manifest) });
        streams
    }

    /// All that the backup lacks.
    pub(super) fn missing(&self, ends: &[StreamEnd]) -> Vec<MissingDump> {
        let mut missing: Vec<MissingDump> = self.refused().map(|(_, missing)| missing).collect();
        for wanted in &self.databases {
            for part in &wanted.parts {
                let end = end_of(ends, wanted.database, part);
                if let Some(reason) = end.and_then(|end| end.bytes.as_ref().err()) {
                    missing.push(MissingDump {
                        database: wanted.database.name.clone(),
                        file: Some(part.file.clone()),
                        reason: reason.to_string(),
                    });
                }
            }
        }
        missing
    }

    fn manifest(&self, ends: &[StreamEnd]) -> Manifest {
        let databases = self.databases.iter().map(|wanted| self.dumped(wanted, ends)).collect();
        Manifest {
            version: manifest::VERSION,
            project: self.project.name.clone(),
            host: self.context.holder.hostname.clone(),
            program: self.context.program.to_owned(),
            time: Timestamp::from_second(self.begun.secs).unwrap_or_default(),
            databases,
        }
    }

    fn dumped(&self, wanted: &Wanted<'_>, ends: &[StreamEnd]) -> DumpedDatabase {
        let Wanted { database, contents, parts } = wanted;
        let part = |part: &Part| {
            let end = end_of(ends, database, part)?;
            Some(DumpedPart {
                part: part.clone(),
                restored_with: manifest::restored_with(part),
                time: self.times.borrow().get(&end.path).copied().unwrap_or_default(),
                took_ms: u64::try_from(end.time.as_millis()).unwrap_or(u64::MAX),
                bytes: end.bytes.as_ref().ok().copied(),
                error: end.bytes.as_ref().err().map(ToString::to_string),
            })
        };
        let known = contents.as_ref().ok();
        let refused: Vec<String> = wanted.refused().into_iter().map(|missing| missing.reason).collect();
        DumpedDatabase {
            name: database.name.clone(),
            url: database.login.address.to_string(),
            all: database.all,
            server: known.map(|contents| contents.server.clone()),
            tool: known.map(|contents| contents.tool.clone()),
            parts: parts.iter().filter_map(part).collect(),
            error: (!refused.is_empty()).then(|| refused.join("; ")),
        }
    }
}

impl<'a> Wanted<'a> {
    fn of(database: &'a Database) -> Wanted<'a> {
        let contents = dump::contents(&database.login, database.all).map_err(|error| error.to_string());
        let mut parts: Vec<Part> = Vec::new();
        for part in contents.iter().flat_map(|contents| &contents.parts) {
            // A server's user may call a database whatever he likes.
            if is_name(&part.file) && parts.iter().all(|known| known.file != part.file) {
                parts.push(part.clone());
            }
        }
        Wanted { database, contents, parts }
    }

    fn refused(&self) -> Vec<MissingDump> {
        let missing = |file, reason| MissingDump { database: self.database.name.clone(), file, reason };
        match &self.contents {
            Err(reason) => vec![missing(None, reason.clone())],
            Ok(contents) => {
                let left_out = contents.parts.iter().filter(|part| !self.parts.contains(part));
                let reason = |part: &Part| format!("{:?} cannot be the name of another file", part.file);
                left_out.map(|part| missing(Some(part.file.clone()), reason(part))).collect()
            }
        }
    }
}

fn path_of(database: &Database, part: &Part) -> PathBuf {
    manifest::directory_of(&database.name).join(&part.file)
}

fn end_of<'e>(ends: &'e [StreamEnd], database: &Database, part: &Part) -> Option<&'e StreamEnd> {
    let path = path_of(database, part);
    ends.iter().find(|end| end.path == path)
}

fn is_name(file: &str) -> bool {
    let mut components = Path::new(file).components();
    let is_one = matches!(components.next(), Some(Component::Normal(name)) if name == file);
    is_one && components.next().is_none() && !file.contains('\0')
}

struct FromTool(Box<dyn Dump>);

impl Read for FromTool {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Input for FromTool {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_plain_name_is_a_files() {
        for name in ["orders.pgdump", "a b", "ä.sql", "-x", ".hidden", "..."] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", ".", "..", "a/b", "/a", "a/", "./a", "../a", "a\0"] {
            assert!(!is_name(name), "{name:?}");
        }
    }
}
