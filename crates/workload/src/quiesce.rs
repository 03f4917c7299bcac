//! Databases brought to a moment in which a snapshot of their files is good, and let go on right after it.
//!
//! Two steps. The *approach* may take its time and holds nobody: connect, CHECKPOINT, flush. Then what must be held is held,
//! of all databases at once. The invariant: nobody's writes stand still longer than [`LIMIT`], whatever hangs or dies: a
//! thread lets go at the deadline, and a client whose input ends because we were killed takes its locks along.

pub(crate) mod moment;

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use moment::{Beside, Files, How, LIMIT, Layout, LayoutOf};

use moment::Released;

use crate::address::{Address, Login};
use crate::error::Error;
use crate::{mysql, postgres, sqlite};

/// What was done to a database around a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quiesced {
    /// Its name in the configuration.
    pub name: String,
    /// Name and version of the server.
    pub server: Option<String>,
    /// How.
    pub how: How,
    /// How long writes may have stood still: from when they were held to when they went on, in milliseconds. Zero
    /// where nothing is held.
    pub stood_still_ms: u64,
    /// What a server that is started on the snapshot's files needs beside them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<Beside>,
}

/// Where a database keeps its files, as its server says.
///
/// # Errors
/// As [`contents`](crate::dump::contents); [`Error::Refused`] if the server is on another machine.
pub fn files(login: &Login) -> Result<Files, Error> {
    match &login.address {
        Address::Postgres(server) => postgres::quiesce::files(login, server),
        Address::Mysql(server) => mysql::quiesce::files(login, server),
        Address::Sqlite(path) => sqlite::quiesce::files(path),
    }
}

/// Brings databases, under their names, to the moment of a snapshot, and holds them there until they are released. One that
/// cannot be is skipped: the snapshot is then as after a power cut, and nothing stops for it.
pub fn hold(databases: &[(String, Login)], layout: &LayoutOf<'_>) -> Held {
    let approached = approach(&servers(databases), layout);
    let (ready, others) = channel();
    let held = approached.into_iter().map(|(names, approached)| Holding::begin(names, approached, &ready)).collect();
    drop(ready);
    // Each says when it holds or has given up, by dropping its end.
    let _: Result<(), _> = others.recv();
    Held { held }
}

/// One session for each server, whatever number of its databases is asked for: two would wait for each other.
fn servers(databases: &[(String, Login)]) -> Vec<(Vec<String>, Login)> {
    let mut servers: Vec<(Vec<String>, Login)> = Vec::new();
    for (name, login) in databases {
        match servers.iter_mut().find(|(_, known)| known.with_database("") == login.with_database("")) {
            Some((names, _)) => names.push(name.clone()),
            None => servers.push((vec![name.clone()], login.clone())),
        }
    }
    servers
}

type Approaching = (Vec<String>, Result<Approached, Error>);

fn approach(servers: &[(Vec<String>, Login)], layout: &LayoutOf<'_>) -> Vec<Approaching> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = servers
            .iter()
            .map(|(names, login)| (names.clone(), scope.spawn(|| Approached::new(login, layout))))
            .collect();
        let died = || Error::Refused("its thread died".to_owned());
        threads.into_iter().map(|(names, thread)| (names, thread.join().unwrap_or_else(|_| Err(died())))).collect()
    })
}

/// A database that is about to be held.
enum Approached {
    Postgres(postgres::quiesce::Approached),
    Mysql(mysql::quiesce::Approached),
    Sqlite(sqlite::quiesce::Approached),
}

impl Approached {
    fn new(login: &Login, layout: &LayoutOf<'_>) -> Result<Approached, Error> {
        match &login.address {
            Address::Postgres(server) => {
                postgres::quiesce::Approached::new(login, server, layout).map(Approached::Postgres)
            }
            Address::Mysql(server) => mysql::quiesce::Approached::new(login, server, layout).map(Approached::Mysql),
            Address::Sqlite(path) => sqlite::quiesce::Approached::new(path, layout).map(Approached::Sqlite),
        }
    }

    fn server(&self) -> &str {
        match self {
            Approached::Postgres(approached) => approached.server(),
            Approached::Mysql(approached) => approached.server(),
            Approached::Sqlite(approached) => approached.server(),
        }
    }

    /// Whether writes stand still from [`Approached::hold`] to [`Approached::release`].
    fn stops_writes(&self) -> bool {
        match self {
            Approached::Postgres(_) => false,
            Approached::Mysql(approached) => approached.stops_writes(),
            Approached::Sqlite(_) => true,
        }
    }

    /// Whether anything stands still, be it changes of definitions alone, and so has to go on at the deadline.
    fn is_limited(&self) -> bool {
        match self {
            Approached::Postgres(_) => false,
            Approached::Mysql(_) | Approached::Sqlite(_) => true,
        }
    }

    fn hold(&mut self) -> Result<(), Error> {
        match self {
            Approached::Postgres(_) => Ok(()),
            Approached::Mysql(approached) => approached.hold(),
            Approached::Sqlite(approached) => approached.hold(),
        }
    }

    fn release(self) -> Result<Released, Error> {
        match self {
            Approached::Postgres(approached) => approached.release(),
            Approached::Mysql(approached) => approached.release(),
            Approached::Sqlite(approached) => approached.release(),
        }
    }
}

/// Databases that are held. Dropped, they are released.
pub struct Held {
    held: Vec<Holding>,
}

impl Held {
    /// Lets all go on, and says what was done to each.
    pub fn release(mut self) -> Vec<Quiesced> {
        let held = std::mem::take(&mut self.held);
        // All are told before the first is waited for.
        let threads: Vec<_> = held.into_iter().map(|held| (held.names, held.thread, drop(held.release))).collect();
        threads.into_iter().flat_map(|(names, thread, ())| outcomes(names, thread)).collect()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let held = std::mem::take(&mut self.held);
        let threads: Vec<_> = held.into_iter().map(|held| (held.thread, drop(held.release))).collect();
        for (thread, ()) in threads {
            let _ = thread.join();
        }
    }
}

fn outcomes(names: Vec<String>, thread: JoinHandle<Outcome>) -> Vec<Quiesced> {
    let died =
        |_| Outcome { server: None, how: skipped("its thread died"), stood_still: Duration::ZERO, beside: vec![] };
    let outcome = thread.join().unwrap_or_else(died);
    let quiesced = |name| Quiesced {
        name,
        server: outcome.server.clone(),
        how: outcome.how.clone(),
        stood_still_ms: u64::try_from(outcome.stood_still.as_millis()).unwrap_or(u64::MAX),
        beside: outcome.beside.clone(),
    };
    names.into_iter().map(quiesced).collect()
}

fn skipped(why: impl ToString) -> How {
    How::Skipped { why: why.to_string() }
}

/// One server, held by a thread of its own.
struct Holding {
    names: Vec<String>,
    /// Dropped to release.
    release: Sender<()>,
    thread: JoinHandle<Outcome>,
}

struct Outcome {
    server: Option<String>,
    how: How,
    stood_still: Duration,
    beside: Vec<Beside>,
}

impl Holding {
    fn begin(names: Vec<String>, approached: Result<Approached, Error>, ready: &Sender<()>) -> Holding {
        let (release, released) = channel();
        let ready = ready.clone();
        let thread = std::thread::spawn(move || match approached {
            Ok(approached) => hold_until(approached, ready, &released),
            Err(error) => {
                Outcome { server: None, how: skipped(error), stood_still: Duration::ZERO, beside: Vec::new() }
            }
        });
        Holding { names, release, thread }
    }
}

/// Holds until `released` is closed, or the deadline.
fn hold_until(mut approached: Approached, ready: Sender<()>, released: &Receiver<()>) -> Outcome {
    let server = Some(approached.server().to_owned());
    let stops = approached.stops_writes();
    let mut began = Instant::now();
    let stood_still = |until: Duration| if stops { until } else { Duration::ZERO };
    if let Err(error) = approached.hold() {
        let stood_still =
            if matches!(approached, Approached::Sqlite(_)) { Duration::ZERO } else { stood_still(began.elapsed()) };
        return Outcome { server, how: skipped(error), stood_still, beside: Vec::new() };
    }
    // A file's lock is waited for without keeping anybody from writing.
    if matches!(approached, Approached::Sqlite(_)) {
        began = Instant::now();
    }
    drop(ready);
    let in_time = if approached.is_limited() {
        let left = LIMIT.saturating_sub(began.elapsed());
        released.recv_timeout(left) != Err(RecvTimeoutError::Timeout)
    } else {
        let _: Result<(), _> = released.recv();
        true
    };
    let released = approached.release();
    let stood_still = stood_still(began.elapsed());
    match released {
        Ok(Released { how, beside }) if in_time => Outcome { server, how, stood_still, beside },
        Ok(_) => {
            let why = format!("the snapshot was not done within {} s, and writes were let go on", LIMIT.as_secs());
            Outcome { server, how: skipped(why), stood_still, beside: Vec::new() }
        }
        Err(error) => Outcome { server, how: skipped(error), stood_still, beside: Vec::new() },
    }
}
