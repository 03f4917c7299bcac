//! Which paths of a project may differ from those of its last backup: what its volumes tell of the time between two
//! snapshots, in the words of the backup's own paths.
//!
//! Too many is allowed, too few is not. So whatever cannot be told, or speaks against it, is a reason to look at
//! everything, and is given as a sentence.

use std::path::Path;

use repository::id::Id as BackupId;
use repository::record::BackupRecord;
use snapshot::provider::Changed as OnVolume;
use snapshot::record::Record;

use super::Context;
use super::archive::Wanted;
use super::base::{Base, BaseVolume};
use super::source::{Source, join};

/// A path of the backup that may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Changed {
    pub(super) path: std::path::PathBuf,
    pub(super) is_tree: bool,
}

/// What may have changed since the base's backup was made; or why everything is to be looked at.
pub(super) fn since(
    context: &Context<'_>,
    wanted: &Wanted<'_>,
    source: &Source,
    base: Option<&Base>,
    records: &[(BackupId, BackupRecord)],
) -> Result<Vec<Changed>, String> {
    let base = base.ok_or("there is no snapshot of the last backup")?;
    if context.looks_at_everything {
        return Err("that was asked for".to_owned());
    }
    if let Some(doubt) = base.doubt(&wanted.settings, wanted.full_walk, records) {
        return Err(doubt);
    }
    let mut changed = Vec::new();
    for (volume, now) in source.records().enumerate() {
        let then = of_volume(context, base, now)?;
        let (Some(from), Some(to)) = (&then.handle, &now.handle) else {
            return Err(format!("snapshot {} was never finished", then.id));
        };
        let told = source.survey.volumes[volume].changed_paths(from, Some(to));
        let told = told.map_err(|error| format!("what changed cannot be told: {error}"))?;
        let told =
            told.ok_or_else(|| format!("the storage of {} does not tell what changed", now.directory.display()))?;
        for place in source.survey.places.iter().filter(|place| place.volume == volume) {
            changed.extend(told.iter().filter_map(|one| in_place(one, &place.below, &place.path)));
        }
    }
    // Nobody tells what changes where there are no snapshots.
    changed.extend(source.survey.live.iter().map(|(path, _)| Changed { path: path.clone(), is_tree: true }));
    Ok(changed)
}

/// The base's snapshot of a volume.
fn of_volume(context: &Context<'_>, base: &Base, now: &Record) -> Result<Record, String> {
    let volume = base.volumes.iter().find(|volume| volume.directory == now.directory);
    let BaseVolume { snapshot, .. } =
        volume.ok_or_else(|| format!("the last backup had no snapshot of {}", now.directory.display()))?;
    context.state.record(*snapshot).map_err(|error| error.to_string())
}

/// A path on a volume as one of the backup's, if it lies in a place that is stored as `stored`.
fn in_place(changed: &OnVolume, below: &Path, stored: &Path) -> Option<Changed> {
    match changed.path.strip_prefix(below) {
        Ok(inside) => Some(Changed { path: join(stored, inside), is_tree: changed.is_tree }),
        // The place itself came from somewhere else.
        Err(_) if changed.is_tree && below.starts_with(&changed.path) => {
            Some(Changed { path: stored.to_owned(), is_tree: true })
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_on_a_volume_gets_the_backups_paths() {
        let in_shop = |path: &str, is_tree: bool| {
            let changed =
                in_place(&OnVolume { path: path.into(), is_tree }, Path::new("www/shop"), Path::new("/srv/shop"));
            changed.map(|changed| (changed.path.to_str().unwrap().to_owned(), changed.is_tree))
        };
        let told = |path: &str, is_tree: bool| Some((path.to_owned(), is_tree));
        assert_eq!(in_shop("www/shop/a/b", false), told("/srv/shop/a/b", false));
        assert_eq!(in_shop("www/shop", false), told("/srv/shop", false));
        assert_eq!(in_shop("www/shopping", true), None);
        assert_eq!(in_shop("www", false), None);
        assert_eq!(in_shop("www", true), told("/srv/shop", true));
    }
}
