//! What jobs tell the catalog besides how they went: what there is now, and what was seen to be well. Nothing that fails
//! here is more than said.

use jiff::Timestamp;
use repository::Repository;
use repository::check::Report;
use repository::id::Id;
use repository::statistics;

use super::{Context, Made};
use crate::catalog::{KnownBackup, Size, Verification, Way};
use crate::config;

/// A backup was made.
pub(super) fn made(context: &Context<'_>, to: &config::Repository, opened: &Repository, made: &Made) {
    let backup = KnownBackup::of(made.id, &made.record);
    context.recorder.note(|catalog| {
        catalog.record_repository(&to.name, &to.url)?;
        catalog.record_backup(&to.name, &backup)
    });
    size(context, &to.name, opened);
}

/// Backups were removed.
pub(super) fn removed(context: &Context<'_>, repository: &str, ids: &[Id]) {
    context.recorder.note(|catalog| catalog.forget_backups(repository, ids));
}

/// How large a repository is now, from a list of its files.
pub(super) fn size(context: &Context<'_>, repository: &str, opened: &Repository) {
    // One that cannot be listed now has said so, or will.
    let Ok(stored) = statistics::stored(opened) else { return };
    let size = Size { at: context.clock.wall(), bytes: stored.pack_bytes, backups: stored.backups };
    context.recorder.note(|catalog| catalog.record_size(repository, size));
}

/// Snapshots were made or deleted.
pub(super) fn snapshots(context: &Context<'_>) {
    context.recorder.note(|catalog| catalog.sync(context.state));
}

/// The data of a repository was looked at from a time on. Damage counts also where no data was read.
pub(super) fn looked(context: &Context<'_>, repository: &str, at: Timestamp, percent: Option<f64>, report: &Report) {
    let verification = Verification {
        repository: repository.to_owned(),
        backup: None,
        at,
        way: Way::Data,
        percent: percent.unwrap_or(0.0),
        is_good: report.is_clean(),
    };
    context.recorder.note(|catalog| catalog.record_verification(&verification));
}
