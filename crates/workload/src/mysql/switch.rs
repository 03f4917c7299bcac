//! A loaded database takes the place of the old one, whose tables move to a database beside.
//!
//! Neither server can rename a database. All tables, old and new, are renamed by one statement, which is atomic: whoever
//! uses the database sees the old tables or the new ones. A table with triggers cannot be moved to another database, so
//! triggers are dropped right before and made again right after; views, routines and events have no data and follow.
//!
//! The invariant: until the rename, everything is taken back; after it, everything is finished. The statements lie ready in
//! the journal, and one client runs them from a file in memory: it goes on if this process is killed, and if the server
//! crashes in between, the next restore settles it from the journal.

use std::fs::File;
use std::io::{Cursor, Seek, Write};
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use rustix::fs::{MemfdFlags, memfd_create};

use super::client::{Client, PATIENCE, feeder, identifier, literal, reason};
use super::databases::{JOURNAL, Names, exists, run};
use super::dump::{character_set, definitions};
use super::script::{Code, Tables, Trigger};
use crate::address::{Login, Server};
use crate::error::Error;
use crate::tool::said;

/// So long the rename waits for transactions that use the tables, in seconds. Everybody who comes later waits behind it.
const LOCK_WAIT_SECS: u32 = 5;

/// So long the return of a trigger does, in seconds: without it the old tables are not what they were.
const TAKE_BACK_SECS: u32 = 60;

/// What is done, in this order.
struct Steps {
    /// Drops the triggers that keep tables from being moved.
    triggers: String,
    /// The one that decides.
    rename: String,
    /// Events of the old database move along, and fire no more. Not to be repeated.
    events: String,
    /// The old code leaves, the new comes; the old one is made beside. Can be repeated.
    finish: Vec<u8>,
    /// Makes the old triggers again, each by its name.
    revert: Vec<Trigger>,
}

/// Held by the client that switches, which may outlive whoever started it.
fn lock(name: &str) -> String {
    format!("get_lock(concat('snapback.switch.', md5({})), 30)", literal(name))
}

/// Why it was not switched.
pub(super) enum Failure {
    /// All is as it was.
    TakenBack(Error),
    /// Not yet; the next restore does it from the journal.
    ToBeSettled(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::TakenBack(error)
    }
}

/// Switches over, and gives what is not as it was.
pub(super) fn switch(
    control: &mut Client,
    login: &Login,
    server: &Server,
    names: &Names,
    code: &Code,
    exists: bool,
) -> Result<Vec<String>, Failure> {
    let mut warnings = Vec::new();
    if names.kept.is_some() {
        refuse_references(control, &names.name)?;
    }
    let steps = plan(control, login, server, names, code, &mut warnings)?;
    journal(control, &names.loading, &steps)?;
    let made = [(!exists).then_some(&names.name), names.kept.as_ref()];
    for database in made.into_iter().flatten() {
        control.ask("the database", &format!("create database {};", identifier(database)), PATIENCE)?;
    }
    let text = [
        format!("set session lock_wait_timeout = {LOCK_WAIT_SECS};\ndo {};\n", lock(&names.name)).as_bytes(),
        steps.triggers.as_bytes(),
        steps.rename.as_bytes(),
        steps.events.as_bytes(),
        &steps.finish,
    ]
    .concat();
    let Err(error) = run_detached(login, server, &text) else { return Ok(warnings) };
    // The session may be gone with the server.
    let mut control = Client::open_database(login, server, None).map_err(Failure::ToBeSettled)?;
    if renamed(&mut control, &names.loading).map_err(Failure::ToBeSettled)? {
        // All of it has been run in the other database before; what now fails is one object, not the data.
        warnings.push(format!("the tables are back, but not all of their code: {error}"));
        return Ok(warnings);
    }
    take_back(&mut control, login, server, &names.name, &steps.revert).map_err(Failure::ToBeSettled)?;
    for database in made.into_iter().flatten() {
        control.ask("the database", &format!("drop database {};", identifier(database)), PATIENCE)?;
    }
    Err(Failure::TakenBack(error))
}

/// Foreign keys follow a table that is renamed: those of other databases would from now on hold to the old content.
fn refuse_references(control: &mut Client, name: &str) -> Result<(), Error> {
    let query = format!(
        "select concat(constraint_schema, '.', table_name) from information_schema.referential_constraints \
         where unique_constraint_schema = {0} and constraint_schema <> {0} limit 1;",
        literal(name)
    );
    match control.value("the foreign keys", &query)? {
        Some(table) => Err(Error::Refused(format!(
            "{table}, of another database, refers to tables of {name:?}; restore it under a new name"
        ))),
        None => Ok(()),
    }
}

fn plan(
    control: &mut Client,
    login: &Login,
    server: &Server,
    names: &Names,
    code: &Code,
    warnings: &mut Vec<String>,
) -> Result<Steps, Error> {
    let (name, loading) = (identifier(&names.name), identifier(&names.loading));
    let mut triggers = String::new();
    let mut renames = Vec::new();
    let mut events = String::new();
    let mut finish = format!("use {name};\n").into_bytes();
    let mut revert = Vec::new();
    if let Some(kept) = &names.kept {
        let old = old_code(control, login, server, &names.name, warnings)?;
        let beside = identifier(kept);
        for trigger in listed(control, "trigger", &names.name)? {
            triggers.push_str(&format!("drop trigger if exists {name}.{};\n", identifier(&trigger)));
        }
        for table in tables(control, &names.name)? {
            let table = identifier(&table);
            renames.push(format!("{name}.{table} to {beside}.{table}"));
        }
        for (kind, what) in [("view", "view"), ("procedure", "procedure"), ("function", "function")] {
            for object in listed(control, kind, &names.name)? {
                finish.extend(format!("drop {what} if exists {};\n", identifier(&object)).bytes());
            }
        }
        for (event, definer) in events_of(control, &names.name)? {
            let event = identifier(&event);
            events.push_str(&format!("alter {definer} event {name}.{event} rename to {beside}.{event} disable;\n"));
        }
        let set = character_set(control, &names.name)?;
        let others = [format!("use {beside};\n{set}").into_bytes(), old.statements(false), finish].concat();
        finish = others;
        let whole = |trigger: &Trigger| {
            let statements = [&old.prologue[..], &trigger.statements].concat();
            Trigger { name: trigger.name.clone(), statements }
        };
        revert = old.triggers.iter().map(whole).collect();
    }
    for trigger in listed(control, "trigger", &names.loading)? {
        let trigger = identifier(&trigger);
        triggers.push_str(&format!("drop trigger if exists {loading}.{trigger};\n"));
        finish.extend(format!("drop trigger if exists {trigger};\n").bytes());
    }
    for table in tables(control, &names.loading)? {
        let table = identifier(&table);
        renames.push(format!("{loading}.{table} to {name}.{table}"));
    }
    finish.extend(character_set(control, &names.loading)?.bytes());
    finish.extend(code.statements(true));
    let rename = if renames.is_empty() { String::new() } else { format!("rename table {};\n", renames.join(", ")) };
    Ok(Steps { triggers, rename, events, finish, revert })
}

/// The code of the database that is replaced, so that it is kept, too.
fn old_code(
    control: &mut Client,
    login: &Login,
    server: &Server,
    name: &str,
    warnings: &mut Vec<String>,
) -> Result<Code, Error> {
    let mut definitions = definitions(login, server, &control.version, name)?;
    let mut tables = Tables::new(&mut definitions, &[]);
    let read = std::io::copy(&mut tables, &mut std::io::sink());
    match read {
        // A view of a table that is gone is no reason to leave a broken database as it is.
        Err(error) if tables.is_complete() => warnings.push(format!("not all of the old code is kept: {error}")),
        Err(error) => return Err(control.failed("the reading of what is replaced", error.to_string())),
        Ok(_) => {}
    }
    Ok(tables.code().0)
}

fn tables(control: &mut Client, database: &str) -> Result<Vec<String>, Error> {
    let query = format!(
        "select table_name from information_schema.tables where table_schema = {} \
         and table_type in ('BASE TABLE', 'SYSTEM VERSIONED', 'SEQUENCE') and table_name <> '{JOURNAL}' order by 1;",
        literal(database)
    );
    control.column("the list of tables", &query)
}

fn listed(control: &mut Client, kind: &str, database: &str) -> Result<Vec<String>, Error> {
    let database = literal(database);
    let query = match kind {
        "trigger" => format!("select trigger_name from information_schema.triggers where trigger_schema = {database};"),
        "view" => format!("select table_name from information_schema.views where table_schema = {database};"),
        routine => format!(
            "select routine_name from information_schema.routines where routine_schema = {database} \
             and routine_type = {};",
            literal(routine)
        ),
    };
    control.column(&format!("the list of {kind}s"), &query)
}

/// Events with the clause that keeps whose they are.
fn events_of(control: &mut Client, database: &str) -> Result<Vec<(String, String)>, Error> {
    let query = format!(
        "select event_name, definer from information_schema.events where event_schema = {};",
        literal(database)
    );
    let rows = control.ask("the list of events", &query, PATIENCE)?;
    let definer = |row: Vec<String>| {
        let [event, definer] = <[String; 2]>::try_from(row).ok()?;
        let definer = match definer.rsplit_once('@') {
            Some((user, host)) => format!("definer = {}@{}", literal(user), literal(host)),
            None => String::new(),
        };
        Some((event, definer))
    };
    Ok(rows.into_iter().filter_map(definer).collect())
}

fn journal(control: &mut Client, loading: &str, steps: &Steps) -> Result<(), Error> {
    let table = format!("{}.{JOURNAL}", identifier(loading));
    let mut rows = vec![(String::new(), "events", steps.events.as_bytes()), (String::new(), "finish", &steps.finish)];
    rows.extend(steps.revert.iter().map(|trigger| (trigger.name.clone(), "revert", &trigger.statements[..])));
    let row = |(name, step, text): &(String, &str, &[u8])| format!("('{step}', {}, x'{}')", literal(name), hex(text));
    let rows: Vec<String> = rows.iter().map(row).collect();
    let statement = format!("insert into {table} values {}; commit;", rows.join(", "));
    control.ask("the journal of the restore", &statement, PATIENCE).map(|_| ())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| text.get(at..at + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
    (0..text.len()).step_by(2).filter_map(digit).collect()
}

/// Whether the statement that decides was run: then no table is left where they were loaded.
fn renamed(control: &mut Client, loading: &str) -> Result<bool, Error> {
    Ok(tables(control, loading)?.is_empty())
}

/// The old tables get those of their triggers again that are gone. Those that are not may be on a table that somebody holds.
fn take_back(
    control: &mut Client,
    login: &Login,
    server: &Server,
    name: &str,
    revert: &[Trigger],
) -> Result<(), Error> {
    let there = listed(control, "trigger", name)?;
    for trigger in revert.iter().filter(|trigger| !there.contains(&trigger.name)) {
        let wait = format!("set session lock_wait_timeout = {TAKE_BACK_SECS};\n").into_bytes();
        let statements = [&wait[..], &trigger.statements].concat();
        let what = format!("the return of the trigger {}", trigger.name);
        run(login, server, Some(name), &mut Cursor::new(statements), &what)?;
    }
    Ok(())
}

/// Ends a switch that a crash of the server cut in two, or one that did not begin: then there is nothing to do.
pub(super) fn settle(
    control: &mut Client,
    login: &Login,
    server: &Server,
    name: &str,
    loading: &str,
) -> Result<Vec<String>, Error> {
    control.ask("the end of another switch", &format!("do {};", lock(name)), PATIENCE)?;
    let query = format!("select step, name, hex(statements) from {}.{JOURNAL};", identifier(loading));
    let rows = control.ask("the journal of the restore", &query, PATIENCE)?;
    let steps = |wanted: &str| -> Vec<Trigger> {
        let of = |row: &Vec<String>| match &row[..] {
            [step, name, text] if step == wanted => Some(Trigger { name: name.clone(), statements: unhex(text) }),
            _ => None,
        };
        rows.iter().filter_map(of).collect()
    };
    let (Some(events), Some(finish)) = (steps("events").pop(), steps("finish").pop()) else { return Ok(Vec::new()) };
    // The next switch asks for it in a session of its own.
    control.ask(
        "the end of another switch",
        &format!("do release_lock(concat('snapback.switch.', md5({})));", literal(name)),
        PATIENCE,
    )?;
    if !exists(control, name)? {
        return Ok(Vec::new());
    }
    if !renamed(control, loading)? {
        take_back(control, login, server, name, &steps("revert"))?;
        return Ok(vec!["a restore that was cut off before its end was taken back".to_owned()]);
    }
    // Those that have moved already are not there to be moved.
    for event in events.statements.split_inclusive(|&byte| byte == b'\n') {
        let _ = run(login, server, None, &mut Cursor::new(event), "the old events");
    }
    run(login, server, None, &mut Cursor::new(finish.statements), "the rest of a restore that was cut off")?;
    Ok(vec!["a restore that was cut off before its end was finished".to_owned()])
}

/// A client that goes on by itself, whatever becomes of this process.
fn run_detached(login: &Login, server: &Server, statements: &[u8]) -> Result<(), Error> {
    let mut command = feeder(login, server, None)?;
    command.stdin(Stdio::from(in_memory(statements)?)).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    let output = command.output().map_err(|source| crate::tool::started(command.get_program().as_ref(), source))?;
    if output.status.success() {
        return Ok(());
    }
    let reason = reason(&said(&String::from_utf8_lossy(&output.stderr)));
    Err(Error::Failed {
        address: login.address.to_string(),
        what: "the switch to the restored database".to_owned(),
        reason,
    })
}

/// A file in memory, to be read from its beginning.
pub(super) fn in_memory(content: &[u8]) -> Result<File, Error> {
    let failed = |source: std::io::Error| Error::Io { action: "make", path: "a file in memory".into(), source };
    let memory = memfd_create("statements", MemfdFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
    let mut file = File::from(memory);
    file.write_all(content).and_then(|()| file.rewind()).map_err(failed)?;
    Ok(file)
}
