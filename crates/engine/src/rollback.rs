//! Taking a live directory back, and going on with what was cut short: the way in which everybody does it, somebody at
//! a terminal, a guard, or its watchdog.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use snapshot::id::Id;
use snapshot::provider::{Open, Provider};
use snapshot::record::{Purpose, Record};
use snapshot::rollback::plan::Refusal;
use snapshot::rollback::{self, Member, recover::Recovered};
use snapshot::runner::System;
use snapshot::state::{Lock, State};

use crate::database;
use snapshot::error::Error;

/// How long the state that a rollback leaves behind is kept: as long as somebody may miss something of it.
pub const SAFETY_KEPT: SignedDuration = SignedDuration::from_hours(24);

/// Units of systemd that a rollback concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Services {
    /// Stopped before and started after.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// Restarted after.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restart: Vec<String>,
}

/// What runs a probe, a command for the shell, for a rollback: a try that hangs is ended after `limit`, and after ten
/// seconds if that is none, as a rollback must come to its end.
pub fn probe(command: &str, limit: Duration) -> Vec<String> {
    let seconds = match limit.as_secs() {
        0 => 10,
        seconds => seconds,
    };
    let limit = seconds.to_string();
    ["timeout", "--verbose", "--kill-after=5", &limit, "/bin/sh", "-c", command].map(str::to_owned).to_vec()
}

/// Plans to take directories back to one of their snapshots each, together, with the databases in them in mind.
pub fn plan(state: &State, members: Vec<Member<'_>>, request: rollback::Request) -> Result<rollback::Plan, Error> {
    let members: Vec<Member<'_>> = members
        .into_iter()
        .map(|member| Member { stale: database::rollback::stale(member.snapshot), ..member })
        .collect();
    let mut plan = rollback::gather(state, &members, &System, request)?;
    let records: Vec<&Record> = members.iter().map(|member| member.snapshot).collect();
    database::rollback::refuse(&mut plan, &records);
    Ok(plan)
}

/// Finishes or takes back what was cut short. Whatever changes something does this first.
pub fn recover(lock: &Lock, open: &Open<'_>) -> Result<Vec<Recovered>, Error> {
    rollback::recover::recover(lock, &System, open, &mut |_| ())
}

/// Takes directories back to a snapshot each, together and without asking anybody, and gives the snapshot of the state
/// left behind, of several the first. What was done already, as a recovery or somebody else did it since `begun`, is
/// not done again.
pub fn take_back(
    state: &State,
    open: &Open<'_>,
    snapshots: &[Id],
    services: &Services,
    begun: Timestamp,
    now: Timestamp,
) -> Result<Id, Error> {
    let lock = state.lock(&mut || ())?;
    for recovered in recover(&lock, open)? {
        recovered.ending?;
    }
    // They go back together, so what is done of one is done of all.
    let Some(first) = snapshots.first() else {
        return Err(Error::refused("there is nothing to roll back"));
    };
    if let Some(done) = safety_of(state, *first, begun)? {
        return Ok(done);
    }
    let records = snapshots.iter().map(|id| state.record(*id)).collect::<Result<Vec<_>, _>>()?;
    let providers = providers(&records, open)?;
    let providers: Vec<&dyn Provider> = providers.iter().map(|provider| &**provider).collect();
    let plan = plan(state, members(&providers, &records), request(services, now))?;
    let outcome = rollback::run::run(&lock, &providers, &System, plan, now, &mut |_| ())?;
    outcome.safeties.first().map(|safety| safety.id).ok_or_else(|| Error::refused("no state was left behind"))
}

/// What made each of the snapshots.
pub fn providers(records: &[Record], open: &Open<'_>) -> Result<Vec<Box<dyn Provider>>, Error> {
    let of = |record: &Record| match &record.handle {
        Some(handle) => open(&record.directory, handle),
        None => Err(Error::NoSuchSnapshot(record.id.to_string())),
    };
    records.iter().map(of).collect()
}

fn members<'a>(providers: &[&'a dyn Provider], records: &'a [Record]) -> Vec<Member<'a>> {
    providers.iter().zip(records).map(|(provider, record)| Member::new(*provider, record)).collect()
}

fn request(services: &Services, now: Timestamp) -> rollback::Request {
    rollback::Request {
        stop: services.stop.clone(),
        restart: services.restart.clone(),
        safety_expires: now.checked_add(SAFETY_KEPT).ok(),
        ..rollback::Request::default()
    }
}

/// Refuses if a rollback to snapshots, together, would be refused now: before something is risked.
pub fn refuse_if_impossible(
    state: &State,
    providers: &[&dyn Provider],
    records: &[Record],
    services: &Services,
    now: Timestamp,
) -> Result<(), Error> {
    let plan = plan(state, members(providers, records), request(services, now))?;
    match plan.refusals.into_iter().next() {
        None => Ok(()),
        Some(Refusal { message, hint }) => {
            let message = format!("a rollback would not be possible: {message}");
            Err(Error::Refused { message, hint })
        }
    }
}

/// The state that a rollback to a snapshot left behind since a time, if there was one.
fn safety_of(state: &State, to: Id, since: Timestamp) -> Result<Option<Id>, Error> {
    let is_it = |record: &Record| {
        let is_safety = record.purpose == Purpose::Safety { rolled_back_to: to };
        is_safety && record.handle.is_some() && record.created >= since
    };
    Ok(state.records()?.into_iter().find(is_it).map(|record| record.id))
}
