//! A dump brought back by `pg_restore`, into a database of its own that is switched to when it is complete.
//!
//! While it is filled the database bears a name, a comment and an advisory lock of ours. Whatever fails, it is dropped; if
//! we were killed, the lock is gone, and the next restore drops it.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::archive::Archive;
use super::client::{Client, connection, identifier, literal};
use super::quiesce::{SOON, files};
use super::statements::{name, statements};
use super::unfinished::{Restore, exists};
use super::{globals, selection, switch};
use crate::address::{Login, Server};
use crate::dump::part::{Format, Part};
use crate::error::Error;
use crate::restore::options::{Options, Restored};
use crate::tool;

/// What the comment of an unfinished database says.
const UNFINISHED: &str = "Snapback: being restored";

/// The first half of our advisory locks' keys, so that nobody else's are met: "snap".
const LOCKS: u32 = 0x736E_6170;

/// Statistics of a large database take their time.
const ANALYZE: Duration = Duration::from_secs(12 * 3600);

/// So long a server may take to come back after what made the restore fail.
const AGAIN: Duration = Duration::from_secs(20);

/// Restores a part.
pub(crate) fn restore(
    login: &Login,
    server: &Server,
    part: &Part,
    dump: &mut dyn Read,
    options: &Options,
) -> Result<Restored, Error> {
    match (&part.database, part.format) {
        (None, Format::PgSql) => globals::restore(login, server, dump),
        (Some(database), Format::PgCustom) => {
            let wanted = options.name.as_ref().or(server.database.as_ref()).unwrap_or(database);
            Restore::begin(login, server, wanted, options)?.run(dump, options)
        }
        _ => Err(Error::Refused(format!("{} is no dump of PostgreSQL", part.file))),
    }
}

impl<'a> Restore<'a> {
    fn run(mut self, dump: &mut dyn Read, options: &Options) -> Result<Restored, Error> {
        self.sweep()?;
        let room = Room::of(self.login, self.server);
        if let Some(short) = room.short() {
            return Err(self.client.failed("the restore", short));
        }
        let mut archive = Archive::open(self.login, self.server, self.version / 10_000, dump)?;
        let chosen = selection::of(&archive, &options.tables)?;
        let definition = Definition::read(&archive.database()?, &self.unfinished);
        let mut restored = Restored { database: Some(self.wanted.clone()), ..Restored::default() };
        restored.warnings.extend(chosen.warnings);
        if exists(&mut self.client, &self.unfinished)? || !self.lock(&self.unfinished.clone())? {
            return Err(Error::Refused(format!("{:?} is being restored by another", self.wanted)));
        }
        let filled = self
            .create(&definition, &mut restored)
            .and_then(|spaces| self.fill(archive, chosen.list.as_deref(), spaces, &room))
            .and_then(|()| self.define(&definition));
        if let Err(error) = filled {
            return Err(self.give_up(error));
        }
        restored.kept = switch::over(self, &definition.comment)?;
        Ok(restored)
    }

    /// Makes the empty database; says whether tablespaces are to be restored.
    fn create(&mut self, definition: &Definition, restored: &mut Restored) -> Result<bool, Error> {
        let spaces = "select spcname from pg_tablespace where spcname !~ '^pg_';";
        let spaces: Vec<String> = self.client.ask("the list of tablespaces", spaces, SOON)?.concat();
        let (mut create, space) = definition.create();
        if let Some(space) = space {
            if spaces.contains(&space) {
                create += &format!(" TABLESPACE = {}", identifier(&space));
            } else {
                restored.warnings.push(format!("there is no tablespace {space:?} here; the default one is used"));
            }
        }
        self.client.ask("CREATE DATABASE", &format!("{create};"), ANALYZE)?;
        let comment = format!("comment on database {} is {};", identifier(&self.unfinished), literal(UNFINISHED));
        self.client.ask("COMMENT ON DATABASE", &comment, SOON)?;
        for owner in &definition.owner {
            self.client.ask("ALTER DATABASE", &format!("{owner};"), SOON)?;
        }
        Ok(!spaces.is_empty())
    }

    fn fill(&mut self, archive: Archive<'_>, list: Option<&str>, spaces: bool, room: &Room) -> Result<(), Error> {
        let target = format!("--dbname={}", connection(self.server, Some(&self.unfinished)));
        let mut arguments = vec!["--exit-on-error", "--no-password", &target];
        if !spaces {
            arguments.push("--no-tablespaces");
        }
        let command = archive.restore(&arguments, list)?;
        let address = self.login.address.to_string();
        let mut stream = archive.stream();
        let (login, server, wanted) = (self.login, self.server, &self.wanted);
        let terminate = switch::terminate(&self.unfinished);
        let end = || {
            let _ = Restore::session(login, server, wanted)
                .and_then(|mut client| client.ask("pg_terminate_backend", &terminate, SOON));
        };
        room.watched(end, || {
            tool::feed(command, &mut stream, &address, "pg_restore")?;
            // It does not read to the end, where it would be told that the stream is not whole.
            let drained = io::copy(&mut stream, &mut io::sink());
            drained.map_err(|error| self.client.failed("reading the dump", error.to_string()))?;
            Client::open_database(self.login, self.server, &self.unfinished)?.ask("ANALYZE", "analyze;", ANALYZE)
        })?;
        Ok(())
    }

    /// What would have been in the way of the restore itself: settings such as `default_transaction_read_only`.
    fn define(&mut self, definition: &Definition) -> Result<(), Error> {
        for statement in &definition.settings {
            self.client.ask("settings of the database", &format!("{statement};"), SOON)?;
        }
        Ok(())
    }

    /// Drops the unfinished database; the error says so if that failed.
    fn give_up(&mut self, error: Error) -> Error {
        let until = Instant::now() + AGAIN;
        let unfinished = self.unfinished.clone();
        let mut dropped = drop_database(&mut self.client, self.version, &unfinished);
        while let Err(failed) = dropped {
            if Instant::now() > until {
                let stays = format!("{error}; the unfinished database {unfinished:?} stays until the next restore, ");
                return self.client.failed("the restore", stays + &format!("as it cannot be dropped: {failed}"));
            }
            std::thread::sleep(Duration::from_millis(200));
            dropped = Restore::session(self.login, self.server, &self.wanted)
                .and_then(|mut client| drop_database(&mut client, self.version, &unfinished));
        }
        error
    }

    /// Drops what restores of this database left that were killed.
    fn sweep(&mut self) -> Result<(), Error> {
        let stem = &self.unfinished[..self.unfinished.len() - self.mark.len()];
        let left = format!(
            "select datname from pg_database where shobj_description(oid, 'pg_database') = {} \
             and left(datname, {}) = {};",
            literal(UNFINISHED),
            stem.chars().count(),
            literal(stem)
        );
        for name in self.client.ask("the list of databases", &left, SOON)?.concat() {
            if self.lock(&name)? {
                drop_database(&mut self.client, self.version, &name)?;
            }
        }
        Ok(())
    }

    fn lock(&mut self, name: &str) -> Result<bool, Error> {
        let lock = format!("select pg_try_advisory_lock({LOCKS}, hashtext({}));", literal(name));
        Ok(self.client.ask("the lock", &lock, SOON)?.concat() == ["t"])
    }
}

fn drop_database(client: &mut Client, version: u32, name: &str) -> Result<(), Error> {
    let force = if version >= 130_000 { " with (force)" } else { "" };
    if force.is_empty() {
        client.ask("pg_terminate_backend", &switch::terminate(name), SOON)?;
    }
    let statement = format!("drop database if exists {}{force};", identifier(name));
    client.ask("DROP DATABASE", &statement, Duration::from_secs(600)).map(drop)
}

/// The statements that make a database, for one of another name.
struct Definition {
    create: String,
    owner: Vec<String>,
    settings: Vec<String>,
    /// Comes last, in place of our own.
    comment: String,
}

impl Definition {
    /// Reads what [`Archive::database`] gives.
    fn read(script: &str, name: &str) -> Definition {
        let new = identifier(name);
        let create = format!("CREATE DATABASE {new} TEMPLATE template0");
        let comment = format!("comment on database {new} is null");
        let mut definition = Definition { create, owner: Vec::new(), settings: Vec::new(), comment };
        for statement in statements(script) {
            let Some(renamed) = renamed(&statement, &new) else {
                if statement.contains("SESSION AUTHORIZATION") {
                    definition.settings.push(statement);
                }
                continue;
            };
            if renamed.starts_with("CREATE DATABASE ") {
                definition.create = renamed;
            } else if renamed.starts_with(&format!("ALTER DATABASE {new} OWNER TO ")) {
                definition.owner.push(renamed);
            } else if renamed.starts_with("COMMENT ON DATABASE ") {
                definition.comment = renamed;
            } else {
                definition.settings.push(renamed);
            }
        }
        definition
    }

    /// The first statement without its tablespace, and that.
    fn create(&self) -> (String, Option<String>) {
        match self.create.split_once(" TABLESPACE = ") {
            Some((before, rest)) => {
                let (space, after) = rest.split_once(' ').unwrap_or((rest, ""));
                let space = space.trim_matches('"').replace("\"\"", "\"");
                (format!("{before} {after}").trim_end().to_owned(), Some(space))
            }
            None => (self.create.clone(), None),
        }
    }
}

/// A statement about the database, for one of another name.
fn renamed(statement: &str, new: &str) -> Option<String> {
    // What comes before is of fixed words, and names of roles and rights in statements that pg_dump writes.
    let at = statement.find("DATABASE ")? + "DATABASE ".len();
    let (_, length) = name(&statement[at..]);
    Some(format!("{}{new}{}", &statement[..at], &statement[at + length..]))
}

/// The disks that a restore fills. A server whose disk is full stops; no restore is worth that.
struct Room(Vec<PathBuf>);

impl Room {
    /// Those of a server of this machine. Another's cannot be seen.
    fn of(login: &Login, server: &Server) -> Room {
        let files = files(login, server).map(|files| [vec![files.directory], files.others].concat());
        Room(files.unwrap_or_default())
    }

    /// Which disk is nearly full: there must be left a twentieth, at least four segments of the log, at most 1 GB.
    fn short(&self) -> Option<String> {
        self.0.iter().find_map(|path| {
            let found = rustix::fs::statvfs(path).ok()?;
            let (left, size) = (found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize);
            let reserve = (size / 20).clamp(64 << 20, 1 << 30);
            (left < reserve).then(|| {
                format!("the disk of {path:?} has only {} MB left, and the server needs them", left / 1_000_000)
            })
        })
    }

    /// Does something; when a disk is nearly full, `end`s it.
    fn watched<T>(&self, end: impl Fn() + Sync, doing: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        std::thread::scope(|scope| {
            let (done, over) = channel::<()>();
            let end = &end;
            let watcher = scope.spawn(move || {
                while over.recv_timeout(Duration::from_millis(100)) == Err(RecvTimeoutError::Timeout) {
                    if let Some(short) = self.short() {
                        end();
                        return Some(short);
                    }
                }
                None
            });
            let result = doing();
            drop(done);
            let short = watcher.join().unwrap_or_default();
            result.map_err(|error| match (short, error) {
                (Some(reason), Error::Failed { address, what, .. }) => Error::Failed { address, what, reason },
                (_, error) => error,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_made_as_it_was_under_another_name() {
        let script = "SET x = 1;\nCREATE DATABASE \"a b\" WITH TEMPLATE = template0 ENCODING = 'UTF8' \
            TABLESPACE = \"fa st\";\nALTER DATABASE \"a b\" OWNER TO \"joe\";\n\\connect x\n\
            COMMENT ON DATABASE \"a b\" IS 'b; DATABASE';\nALTER DATABASE \"a b\" SET \"x\" TO '1';\n\
            GRANT CONNECT ON DATABASE \"a b\" TO joe;";
        let definition = Definition::read(script, "new");
        let (create, _) = definition.create();
        assert!(create.starts_with("CREATE DATABASE \"new\" WITH TEMPLATE = template0 ENCODING = 'UTF8'"), "{create}");
        assert_eq!(definition.owner, ["ALTER DATABASE \"new\" OWNER TO \"joe\""]);
        assert_eq!(definition.comment, "COMMENT ON DATABASE \"new\" IS 'b; DATABASE'");
        let settings = ["ALTER DATABASE \"new\" SET \"x\" TO '1'", "GRANT CONNECT ON DATABASE \"new\" TO joe"];
        assert_eq!(definition.settings, settings);
    }
}
