//! A snapshot as `--json` shows it.

use engine::database::held::Around;
use jiff::Timestamp;
use serde::Serialize;
use snapshot::id::Id;
use snapshot::provider::{Handle, Kind, Space};
use snapshot::record::{Purpose, Record};

/// The object of one snapshot.
#[derive(Serialize)]
pub(crate) struct Document<'a> {
    id: Id,
    directory: String,
    created: Timestamp,
    note: &'a str,
    expires: Option<Timestamp>,
    held: bool,
    #[serde(flatten)]
    purpose: Purpose,
    #[serde(skip_serializing_if = "Option::is_none")]
    project: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<Id>,
    kind: Option<Kind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    databases: Option<Around>,
    #[serde(flatten)]
    space: Option<Space>,
}

impl<'a> Document<'a> {
    pub(crate) fn new(record: &'a Record, space: Option<Space>) -> Self {
        Document {
            id: record.id,
            directory: record.directory.to_string_lossy().into_owned(),
            created: record.created,
            note: &record.note,
            expires: record.expires,
            held: record.is_held,
            purpose: record.purpose,
            project: record.project.as_deref(),
            group: record.group,
            kind: record.handle.as_ref().map(kind),
            databases: record.around.is_some().then(|| Around::of(record)),
            space,
        }
    }
}

fn kind(handle: &Handle) -> Kind {
    match handle {
        Handle::Btrfs { .. } => Kind::Btrfs,
        Handle::Reflink { .. } => Kind::Reflink,
        Handle::LvmThin { .. } => Kind::LvmThin,
        Handle::Zfs { .. } => Kind::Zfs,
        Handle::Backup { .. } => Kind::Backup,
    }
}
