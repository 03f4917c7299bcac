//! A project into one repository: what changed since its last backup there, or all of it.
//!
//! The record comes last; what fails before leaves data that the next run goes on from. A backup bears the tag
//! `project=NAME`, `live` where some of it was not read from a snapshot, and `incomplete` where a database's dump is
//! missing or a path is empty that was not.

use std::sync::Arc;
use std::time::Instant;

use backup::archive::{self, Outcome};
use backup::attributes::Zone;
use repository::Repository;
use repository::blob_writer::Destination;
use repository::lock::Lock;
use repository::record::BackupRecord;

use super::base::Base;
use super::changed;
use super::dumps::Dumps;
use super::emptied::emptied;
use super::source::Source;
use super::wanted::Wanted;
use super::{Context, Error, Made, Walk};
use crate::catalog::{INCOMPLETE_TAG, KnownBackup, LIVE_TAG, PROJECT_TAG};
use crate::config::Project;

/// Of every backup of a project.
pub fn tag(project: &str) -> String {
    format!("{PROJECT_TAG}{project}")
}

/// An open repository and the shared lock on it.
pub(super) struct Target<'a> {
    pub(super) name: &'a str,
    pub(super) repository: &'a Arc<Repository>,
    pub(super) lock: Arc<Lock>,
}

/// Makes the backup.
pub(super) fn back_up(
    context: &Context<'_>,
    target: &Target<'_>,
    wanted: &Wanted<'_>,
    source: &Source,
) -> Result<Made, Error> {
    let Target { name, repository, lock } = target;
    let Project { name: project, paths, exclude, .. } = wanted.project;
    let failed = |error| Error::repository(name)(error);
    let started = Instant::now();
    let start = (context.holder.now)();
    let listing = context.recorder.note(|catalog| catalog.begin_listing(name));
    // Before the index: what a record refers to is then in the index for certain.
    let (records, damaged) = repository.backups().map_err(failed)?;
    damaged.iter().for_each(|error| context.watch.warn(&format!("repository \"{name}\": {error}")));
    let names: Vec<String> = paths.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    let base = Base::find(context.state, project, &repository.config().id.to_string());
    let shortcut = changed::since(context, wanted, source, base.as_ref(), &records);
    let (mut walk, changed) = match shortcut {
        Ok(changed) => (Walk::Changed, Some(changed)),
        Err(why) => (Walk::Full { why }, None),
    };
    let newest = || {
        let of_project = records.iter().filter(|(_, record)| is_of(record, &context.holder.hostname, project));
        let newest = of_project.filter(|(_, record)| record.time <= start).max_by_key(|(_, record)| record.time);
        newest.or_else(|| archive::find_parent(&records, &context.holder.hostname, &names, start))
    };
    let of_base = || records.iter().find(|(id, _)| base.as_ref().is_some_and(|base| base.backup == *id));
    let parent = if changed.is_some() { of_base() } else { newest() };
    let index = Arc::new(repository.load_index().map_err(failed)?);

    // Somebody who came at the same moment may have been first.
    lock.confirm().map_err(failed)?;
    let meter = context.watch.meter(&format!("{project} to {name}"));
    let options = archive::Options {
        paths: paths.clone(),
        elsewhere: source.elsewhere(),
        changed,
        exclude: wanted.patterns()?,
        exclude_caches: false,
        exclude_larger_than: None,
        one_file_system: wanted.project.one_file_system,
        parent: parent.map(|(_, record)| record.tree),
        zone: Zone::new(context.zone.clone()),
        progress: &*meter,
    };
    let complete = |record: &BackupRecord| !record.tags.iter().any(|tag| tag == INCOMPLETE_TAG);
    let of_project = records.iter().filter(|(_, record)| is_of(record, &context.holder.hostname, project));
    let last_complete = of_project.filter(|(_, record)| complete(record)).max_by_key(|(_, record)| record.time);
    let emptied = match last_complete {
        Some(before) => emptied(&mut repository.reader(&index), before, paths).map_err(failed)?,
        None => Vec::new(),
    };
    for emptied in &emptied {
        meter.error(&emptied.path, emptied);
    }
    let dumps = Dumps::of(context, wanted.project, start);
    for (path, missing) in dumps.iter().flat_map(Dumps::refused) {
        meter.error(&path, &missing);
    }
    let streams = dumps.as_ref().map(Dumps::streams).unwrap_or_default();
    let destination = Destination::Repository(Arc::clone(lock));
    let archived = archive::archive_with(repository, &index, destination, &options, streams);
    let Outcome { tree, mut summary, errors, streams, base: content, went_by_changes, .. } =
        archived.map_err(failed)?;
    drop(meter);
    let missing = dumps.as_ref().map(|dumps| dumps.missing(&streams)).unwrap_or_default();
    let failed_streams = streams.iter().filter(|end| end.bytes.is_err()).count() as u64;
    if walk == Walk::Changed && !went_by_changes {
        walk = Walk::Full { why: "the last backup was made in another way".to_owned() };
    }
    summary.backup_start = start;
    summary.backup_end = (context.holder.now)();
    let mut tags = vec![tag(project)];
    if source.is_live() {
        tags.push(LIVE_TAG.to_owned());
    }
    if !missing.is_empty() || !emptied.is_empty() {
        tags.push(INCOMPLETE_TAG.to_owned());
    }
    let mut record = BackupRecord {
        time: start,
        parent: parent.map(|(id, _)| *id),
        tree: tree.ok_or_else(|| failed(repository::Error::Earlier("the run gave no root directory".to_owned())))?,
        paths: names,
        hostname: context.holder.hostname.clone(),
        username: context.holder.username.clone(),
        uid: context.holder.uid,
        gid: context.holder.gid,
        excludes: exclude.clone(),
        tags,
        original: None,
        program_version: context.program.to_owned(),
        summary: None,
    };
    record.set_summary(&summary);
    lock.confirm().map_err(failed)?;
    let id = repository.save_record(&record).map_err(failed)?;
    if let Some(listing) = listing {
        let of_others = records.iter().map(|(id, record)| KnownBackup::of(*id, record));
        let known: Vec<KnownBackup> = of_others.chain([KnownBackup::of(id, &record)]).collect();
        context.recorder.note(|catalog| catalog.end_listing(&listing, &known, context.clock.wall()));
    }
    let since_full = match (&walk, base) {
        (Walk::Changed, Some(base)) => base.since_full.saturating_add(1),
        _ => 0,
    };
    let errors = errors - failed_streams + emptied.len() as u64;
    Ok(Made {
        id,
        parent: record.parent,
        record,
        summary,
        errors,
        missing,
        walk,
        content,
        since_full,
        time: started.elapsed(),
    })
}

/// Whether a backup is one of a project of this machine.
pub(super) fn is_of(record: &BackupRecord, hostname: &str, project: &str) -> bool {
    record.hostname == hostname && record.tags.contains(&tag(project))
}
