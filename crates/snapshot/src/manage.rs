//! Making, listing, deleting and holding snapshots.
//!
//! Invariant: a snapshot has a record before it exists and until it is gone, so that whatever lies on the storage
//! without one was not made by this state directory, and is never touched. A creation that was cut short leaves a
//! record without a handle; the next change of the same directory finds and removes what it left.
//!
//! Does not know of mechanisms, nor of when a snapshot should go ([`crate::expire`]).

use std::collections::HashSet;
use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::error::Error;
use crate::id::Id;
use crate::journal;
use crate::place;
use crate::provider::Provider;
use crate::record::{Purpose, Record};
use crate::state::{Lock, State};

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What somebody writes about it.
    pub note: String,
    /// When expiry may delete it; never if `None`.
    pub expires: Option<Timestamp>,
    /// Held from the beginning.
    pub is_held: bool,
    /// Why it is made.
    pub purpose: Purpose,
}

/// A snapshot, and how old it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// What is known of it.
    pub record: Record,
    /// Since it was made; never negative, even if the clock was set back.
    pub age: SignedDuration,
}

/// How a deletion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// It is deleted.
    Now,
    /// It was gone already: somebody else deleted it.
    Before,
}

/// What brackets the moment of snapshots.
pub struct Around<'a> {
    /// Called once all that takes time is done, with what makes them and takes milliseconds; what it gives is kept in
    /// their records. If it makes none, they are made right after it.
    pub hold: &'a mut Hold<'a>,
    /// Directories whose snapshots are made after those of the others.
    pub last: Vec<PathBuf>,
}

/// Calls what makes the snapshots.
pub type Hold<'a> = dyn FnMut(&mut dyn FnMut()) -> Option<Value> + 'a;

/// Makes a snapshot of the provider's directory as it is now. If that fails, all is as before.
pub fn create(lock: &Lock, provider: &dyn Provider, request: Request, now: Timestamp) -> Result<Record, Error> {
    create_around(lock, provider, request, now, None)
}

/// The same, with something done around its moment.
pub fn create_around(
    lock: &Lock,
    provider: &dyn Provider,
    request: Request,
    now: Timestamp,
    around: Option<Around<'_>>,
) -> Result<Record, Error> {
    let mut made = all_or_none(lock, &[provider], vec![request.record(provider, now)], around)?;
    Ok(made.remove(0))
}

/// Makes snapshots of several directories of one project, one right after the other: what takes time (looking for what
/// was cut short, writing the records, writing what is dirty to the disk) is done for all of them before. If one fails,
/// none is left, and all is as before. They share a group, and so does one alone.
pub fn create_together(
    lock: &Lock,
    providers: &[&dyn Provider],
    project: &str,
    request: &Request,
    now: Timestamp,
    around: Option<Around<'_>>,
) -> Result<Vec<Record>, Error> {
    let group = Id::random();
    let member = |provider: &&dyn Provider| Record {
        project: Some(project.to_owned()),
        group: Some(group),
        ..request.clone().record(*provider, now)
    };
    all_or_none(lock, providers, providers.iter().map(member).collect(), around)
}

fn all_or_none(
    lock: &Lock,
    providers: &[&dyn Provider],
    mut records: Vec<Record>,
    around: Option<Around<'_>>,
) -> Result<Vec<Record>, Error> {
    for provider in providers {
        journal::refuse_if_switching(lock.state(), provider.directory())?;
        clean_up(lock, *provider)?;
    }
    let made = make_all(lock, providers, &mut records, around);
    if let Err(error) = made {
        for (provider, record) in providers.iter().zip(&records) {
            // What cannot be removed now is found by the next change of the directory.
            let _ = abandon(lock, *provider, record.id);
        }
        return Err(error);
    }
    Ok(records)
}

fn make_all(
    lock: &Lock,
    providers: &[&dyn Provider],
    records: &mut [Record],
    around: Option<Around<'_>>,
) -> Result<(), Error> {
    for (provider, record) in providers.iter().zip(&*records) {
        lock.state().save(record)?;
        // So that the first one's moment and the last one's are not a disk's whole cache apart, nor that of what is
        // around them. What fails here is for the snapshot itself to say.
        if providers.len() > 1 || around.is_some() {
            let _ = place::sync_file_system(provider.directory());
        }
    }
    let (hold, last) = around.map(|around| (around.hold, around.last)).unzip();
    let last = last.unwrap_or_default();
    let mut in_order: Vec<_> = providers.iter().zip(records.iter_mut()).collect();
    in_order.sort_by_key(|(provider, _)| last.iter().any(|directory| directory == provider.directory()));
    let mut made = None;
    let mut make = || {
        made.get_or_insert_with(|| {
            in_order.iter_mut().try_for_each(|(provider, record)| {
                record.handle = Some(provider.create(record.id)?);
                Ok(())
            })
        });
    };
    let told = hold.and_then(|hold| hold(&mut make));
    make();
    made.unwrap_or(Ok(()))?;
    records.iter_mut().for_each(|record| record.around.clone_from(&told));
    records.iter().try_for_each(|record| lock.state().save(record))
}

impl Request {
    /// The record of what is asked for, before it is made.
    fn record(self, provider: &dyn Provider, now: Timestamp) -> Record {
        Record {
            id: Id::random(),
            directory: provider.directory().to_owned(),
            created: now,
            note: self.note,
            expires: self.expires,
            is_held: self.is_held,
            purpose: self.purpose,
            handle: None,
            project: None,
            group: None,
            old_tree: None,
            around: None,
        }
    }
}

/// Makes a clone of a snapshot that can be written to, and until `expires` is deleted like a snapshot; `None` where the
/// mechanism has none.
pub fn clone_of(
    lock: &Lock,
    provider: &dyn Provider,
    snapshot: &Record,
    expires: Option<Timestamp>,
    now: Timestamp,
) -> Result<Option<Record>, Error> {
    journal::refuse_if_switching(lock.state(), provider.directory())?;
    clean_up(lock, provider)?;
    let handle = snapshot.handle.as_ref().ok_or_else(|| Error::NoSuchSnapshot(snapshot.id.to_string()))?;
    let note = format!("a clone of {}, to try whether it is good", snapshot.id);
    let request = Request { note, expires, is_held: false, purpose: Purpose::Proof { of: snapshot.id } };
    let mut record = request.record(provider, now);
    lock.state().save(&record)?;
    record.handle = provider.clone_of(handle, record.id).inspect_err(|_| {
        // What cannot be removed now is found by the next change of the directory.
        let _ = abandon(lock, provider, record.id);
    })?;
    if record.handle.is_none() {
        lock.state().forget(record.id)?;
        return Ok(None);
    }
    lock.state().save(&record)?;
    Ok(Some(record))
}

/// Makes the snapshot that a record without a handle describes.
pub(crate) fn create_recorded(lock: &Lock, provider: &dyn Provider, mut record: Record) -> Result<Record, Error> {
    let state = lock.state();
    state.save(&record)?;
    let made = provider.create(record.id).and_then(|handle| {
        record.handle = Some(handle);
        state.save(&record)
    });
    match made {
        Ok(()) => Ok(record),
        Err(error) => {
            // What cannot be removed now is found by the next change of the directory.
            let _ = abandon(lock, provider, record.id);
            Err(error)
        }
    }
}

/// Finished snapshots, oldest first.
pub fn list(state: &State, now: Timestamp) -> Result<Vec<Listed>, Error> {
    let finished = state.records()?.into_iter().filter(|record| record.handle.is_some());
    Ok(finished.map(|record| Listed { age: age(&record, now), record }).collect())
}

/// How old a snapshot is.
pub fn age(record: &Record, now: Timestamp) -> SignedDuration {
    now.duration_since(record.created).max(SignedDuration::ZERO)
}

/// Deletes a snapshot, and the old tree that was kept with it. Refused if it is held, if a change that is under way
/// needs it, and if what lies there under its name is not what was made.
pub fn delete(lock: &Lock, provider: &dyn Provider, id: Id) -> Result<Deleted, Error> {
    let state = lock.state();
    let record = state.record(id)?;
    if record.is_held {
        return Err(Error::refused(format!("snapshot {id} is held"))
            .or(format!("release it first: snapback snapshot release {id}")));
    }
    if record.directory != provider.directory() {
        return Err(Error::refused(format!(
            "snapshot {id} is one of {}, not of {}",
            record.directory.display(),
            provider.directory().display()
        )));
    }
    if let Some((_, entry)) = journal::all(state)?.into_iter().find(|(_, entry)| entry.snapshots.contains(&id)) {
        return Err(Error::refused(format!("snapshot {id} is needed by a {} that is under way", entry.change)));
    }
    clean_up(lock, provider)?;
    let Some(handle) = &record.handle else {
        // It was a creation cut short, and has been cleaned up.
        return Ok(Deleted::Now);
    };
    let lies_there = provider.list()?;
    let found = lies_there.iter().find(|(found, _)| *found == id);
    if let Some((_, other)) = found
        && other != handle
    {
        return Err(Error::refused(format!(
            "what lies under the name of snapshot {id} is not the snapshot that was made"
        ))
        .or("look at it, and remove it by hand if nobody needs it"));
    }
    if let Some(old_tree) = &record.old_tree {
        provider.delete(old_tree)?;
    }
    provider.delete(handle)?;
    state.forget(id)?;
    Ok(if found.is_some() { Deleted::Now } else { Deleted::Before })
}

/// Holds a snapshot, or releases it.
pub fn set_held(lock: &Lock, id: Id, is_held: bool) -> Result<Record, Error> {
    let mut record = lock.state().record(id)?;
    if record.is_held != is_held {
        record.is_held = is_held;
        lock.state().save(&record)?;
    }
    Ok(record)
}

/// Removes what creations of snapshots of the provider's directory left that were cut short; gives their ids. Those
/// that belong to a change that is under way are left to it.
pub fn clean_up(lock: &Lock, provider: &dyn Provider) -> Result<Vec<Id>, Error> {
    let state = lock.state();
    let unfinished = state.records()?.into_iter().filter(|record| record.handle.is_none());
    let mut unfinished: Vec<Id> =
        unfinished.filter(|record| record.directory == provider.directory()).map(|record| record.id).collect();
    if unfinished.is_empty() {
        return Ok(unfinished);
    }
    let needed: HashSet<Id> = journal::all(state)?.into_iter().flat_map(|(_, entry)| entry.snapshots).collect();
    unfinished.retain(|id| !needed.contains(id));
    for id in &unfinished {
        abandon(lock, provider, *id)?;
    }
    Ok(unfinished)
}

/// Removes a snapshot whose creation did not come to its end, and forgets it.
pub(crate) fn abandon(lock: &Lock, provider: &dyn Provider, id: Id) -> Result<(), Error> {
    for (_, handle) in provider.list()?.into_iter().filter(|(found, _)| *found == id) {
        provider.delete(&handle)?;
    }
    lock.state().forget(id)
}
