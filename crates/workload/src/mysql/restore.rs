//! Dumps brought back: loaded into a database beside the old one, then switched over.
//!
//! 1. *Load*: tables into `NAME_restoring_MARK`, and to see that it can be run, code too. A dump that ends early, a full
//!    disk, a lost connection: that database is dropped, and nothing has changed.
//! 2. *Switch* ([`super::switch`]).
//!
//! What a killed run leaves is known by a table of its own in that database, and is settled by the next restore of the same
//! name. Two restores of one name at once are kept apart by a lock that the server holds for the session.

use std::io::{Cursor, Read};
use std::process::Stdio;

use super::accounts::COMPLETED;
use super::client::{Client, PATIENCE, feeder, identifier, literal};
use super::databases::{JOURNAL, Names, exists, run};
use super::script::{Code, Tables};
use super::switch::{self, Failure};
use crate::address::{Login, Server};
use crate::dump::part::Part;
use crate::error::Error;
use crate::restore::options::{Options, Restored};
use crate::tool::said;

/// The longest name of a database (manual, "Identifier Names").
const NAME_CHARACTERS: usize = 64;

/// The largest row that a client may send, in bytes; as the dump tool is told.
const PACKET: u64 = 1 << 30;

/// More text than this is no list of accounts.
const ACCOUNTS_BYTES: u64 = 64 << 20;

pub(crate) fn restore(
    login: &Login,
    server: &Server,
    part: &Part,
    dump: &mut dyn Read,
    options: &Options,
) -> Result<Restored, Error> {
    let Some(origin) = &part.database else { return accounts(login, server, dump) };
    if !options.tables.is_empty() && options.name.is_none() {
        return Err(Error::Refused("single tables come into a database of their own: say its name".to_owned()));
    }
    let name = options.name.as_ref().or(server.database.as_ref()).unwrap_or(origin).clone();
    let mut control = Client::open_database(login, server, None)?;
    control.ask("the session", "set session wait_timeout = 2000000, lock_wait_timeout = 60;", PATIENCE)?;
    lock(&mut control, &name)?;
    let mut warnings = settle(&mut control, login, server, &name)?;
    let exists = exists(&mut control, &name)?;
    if exists && options.name.is_some() {
        return Err(Error::Refused(format!("{} has a database {name:?} already; choose another name", login.address)));
    }
    let kept = exists && !is_empty(&mut control, &name)?;
    let names = Names {
        kept: kept.then(|| beside(&name, "before", &options.mark)),
        loading: beside(&name, "restoring", &options.mark),
        name,
    };
    for taken in [Some(&names.loading), names.kept.as_ref()].into_iter().flatten() {
        if self::exists(&mut control, taken)? {
            return Err(Error::Refused(format!(
                "{} has a database {taken:?} already; drop or rename it",
                login.address
            )));
        }
    }
    let switched = load(&mut control, login, server, &names, dump, &options.tables)
        .map_err(Failure::TakenBack)
        .and_then(|code| switch::switch(&mut control, login, server, &names, &code, exists));
    let left = |error: Error| match error {
        Error::Failed { address, what, reason } => {
            let reason = format!("{reason} (the database {} is left, and goes with the next restore)", names.loading);
            Error::Failed { address, what, reason }
        }
        other => other,
    };
    match switched {
        Ok(more) => {
            warnings.extend(more);
            if let Err(error) = drop_loading(login, server, &names.loading) {
                warnings.push(format!("{} is left, and can be dropped: {error}", names.loading));
            }
            Ok(Restored { database: Some(names.name), kept: names.kept, warnings })
        }
        Err(Failure::TakenBack(error)) if drop_loading(login, server, &names.loading).is_ok() => Err(error),
        Err(Failure::TakenBack(error) | Failure::ToBeSettled(error)) => Err(left(error)),
    }
}

/// A name beside another, no longer than a name may be.
fn beside(name: &str, word: &str, mark: &str) -> String {
    let suffix = if mark.is_empty() { format!("_{word}") } else { format!("_{word}_{mark}") };
    let room = NAME_CHARACTERS.saturating_sub(suffix.chars().count());
    name.chars().take(room).collect::<String>() + &suffix
}

/// For as long as the session lives.
fn lock(control: &mut Client, name: &str) -> Result<(), Error> {
    let query = format!("select get_lock(concat('snapback.', md5({})), 0);", literal(name));
    match control.value("the lock of the restore", &query)?.as_deref() {
        Some("1") => Ok(()),
        _ => Err(Error::Refused(format!("another restore of {name:?} is under way"))),
    }
}

fn is_empty(control: &mut Client, database: &str) -> Result<bool, Error> {
    let name = literal(database);
    let query = format!(
        "select (select count(*) from information_schema.tables where table_schema = {name}) \
         + (select count(*) from information_schema.routines where routine_schema = {name}) \
         + (select count(*) from information_schema.events where event_schema = {name});"
    );
    Ok(control.value("what is in the database", &query)?.is_some_and(|count| count == "0"))
}

/// Loads a dump into a new database, and gives its code, which was run there, but for events.
fn load(
    control: &mut Client,
    login: &Login,
    server: &Server,
    names: &Names,
    dump: &mut dyn Read,
    wanted: &[String],
) -> Result<Code, Error> {
    let made = format!(
        "create database {0}; create table {0}.{JOURNAL} (step varchar(20), name varchar(255), statements longblob) \
         engine = InnoDB;",
        identifier(&names.loading)
    );
    control.ask("the new database", &made, PATIENCE)?;
    let mut tables = Tables::new(dump, wanted);
    let before = raise_packet(control, login, server);
    let put_back = before.map(|bytes| format!("set global max_allowed_packet = {bytes};\n")).unwrap_or_default();
    // The loading session keeps the limit that it found when it began.
    let mut head = put_back.as_bytes();
    let loaded = run(login, server, Some(&names.loading), &mut (&mut head).chain(&mut tables), "the restore");
    if loaded.is_err() && !put_back.is_empty() {
        let _ = Client::open_database(login, server, None)
            .and_then(|mut client| client.ask("the largest packet", &put_back, PATIENCE));
    }
    loaded?;
    let (code, _) = tables.code();
    run(
        login,
        server,
        Some(&names.loading),
        &mut Cursor::new(code.statements(false)),
        "the restore of views and code",
    )?;
    Ok(code)
}

/// A row of blobs takes twice its size in a dump, and may be more than the server takes: the limit is raised for the moment
/// in which the loading session begins. Gives what it was; nothing if it is high enough or not ours to change.
fn raise_packet(control: &mut Client, login: &Login, server: &Server) -> Option<u64> {
    let value = control.value("the largest packet", "select @@global.max_allowed_packet;").ok()??;
    let before: u64 = value.parse().ok().filter(|bytes| *bytes < PACKET)?;
    // In a session of its own, which a refusal ends.
    let mut client = Client::open_database(login, server, None).ok()?;
    client.ask("the largest packet", &format!("set global max_allowed_packet = {PACKET};"), PATIENCE).ok()?;
    Some(before)
}

fn drop_loading(login: &Login, server: &Server, loading: &str) -> Result<(), Error> {
    // In a new session, since the old one may have ended with the failure.
    let mut client = Client::open_database(login, server, None)?;
    let statement = format!("set session lock_wait_timeout = 30; drop database if exists {};", identifier(loading));
    client.ask("the removal of the unfinished database", &statement, PATIENCE).map(|_| ())
}

/// Ends what a restore that was killed has left of this name.
fn settle(control: &mut Client, login: &Login, server: &Server, name: &str) -> Result<Vec<String>, Error> {
    let query = format!(
        "select table_schema from information_schema.tables where table_name = '{JOURNAL}' and table_schema like {};",
        literal(&format!(
            "{}%",
            beside(name, "restoring", "").replace('\\', "\\\\").replace('_', "\\_").replace('%', "\\%")
        ))
    );
    let mut warnings = Vec::new();
    for loading in control.column("what earlier restores left", &query)? {
        warnings.extend(switch::settle(control, login, server, name, &loading)?);
        drop_loading(login, server, &loading)?;
    }
    Ok(warnings)
}

/// Adds the accounts, roles and grants that are missing. One that cannot be added is told, and keeps no other from it.
fn accounts(login: &Login, server: &Server, dump: &mut dyn Read) -> Result<Restored, Error> {
    let address = login.address.to_string();
    let failed = |reason: String| Error::Failed { address: address.clone(), what: "the accounts".to_owned(), reason };
    let mut text = String::new();
    dump.take(ACCOUNTS_BYTES).read_to_string(&mut text).map_err(|error| failed(error.to_string()))?;
    if !text.ends_with(COMPLETED) {
        return Err(failed("the list ends before its last line".to_owned()));
    }
    let mut command = feeder(login, server, None)?;
    command.arg("--force").stdin(Stdio::from(super::switch::in_memory(text.as_bytes())?));
    let output = command.output().map_err(|source| crate::tool::started(command.get_program().as_ref(), source))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    // The statements that stand between have hashes of passwords in them.
    let errors: Vec<String> = errors.lines().filter(|line| line.starts_with("ERROR ")).map(said).collect();
    if let Some(refused) = errors.first().and_then(|error| super::client::refusal(&address, "", error)) {
        return Err(refused);
    }
    let warnings = errors.into_iter().map(|error| format!("an account or grant is missing: {error}")).collect();
    Ok(Restored { database: None, kept: None, warnings })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beside_are_no_longer_than_names_may_be() {
        assert_eq!(beside("shop", "before", "20261123T130000"), "shop_before_20261123T130000");
        assert_eq!(beside(&"ä".repeat(64), "before", "20261123T130000").chars().count(), 64);
    }
}
