//! Which paths of a project may differ from those of its last backup: what its volumes tell of the time between two
//! snapshots, in the words of the backup's own paths.
//!
//! Too many is allowed, too few is not. So whatever cannot be told, or speaks against it, is a reason to look at
//! everything, and is given as a sentence.

use std::collections::BTreeMap;
use std::path::Path;

use backup::archive::{Changed, Dirty};
use repository::id::Id as BackupId;
use repository::record::BackupRecord;
use snapshot::provider::Changed as OnVolume;
use snapshot::record::Record;

use super::Context;
use super::archive::Wanted;
use super::base::{Base, BaseVolume};
use super::source::Source;

/// With more paths than this, looking at everything is not much slower, and takes less memory.
const MOST: usize = 200_000;

/// What may have changed since the base's backup was made; or why everything is to be looked at.
pub(super) fn since(
    context: &Context<'_>,
    wanted: &Wanted<'_>,
    source: &Source,
    base: Option<&Base>,
    records: &[(BackupId, BackupRecord)],
) -> Result<Changed, String> {
    let base = base.ok_or("there is no snapshot of the last backup")?;
    if context.looks_at_everything {
        return Err("that was asked for".to_owned());
    }
    if let Some(doubt) = base.doubt(&wanted.settings, wanted.full_walk, records) {
        return Err(doubt);
    }
    let mut below = BTreeMap::new();
    for (volume, now) in source.records().enumerate() {
        let then = of_volume(context, base, now)?;
        let (Some(from), Some(to)) = (&then.handle, &now.handle) else {
            return Err(format!("snapshot {} was never finished", then.id));
        };
        let told = source.survey.volumes[volume].dirty_paths(from, to, MOST);
        let told = told.map_err(|error| format!("what changed cannot be told: {error}"))?;
        let told = told.ok_or_else(|| {
            format!("too much of {} has changed, or its storage does not tell", now.directory.display())
        })?;
        for place in source.survey.places.iter().filter(|place| place.volume == volume) {
            let mut dirty = Dirty::new();
            told.iter().for_each(|changed| add(&mut dirty, changed, &place.below));
            below.insert(place.path.clone(), dirty);
        }
    }
    // What is read as it is has no changes of its own, and so is looked at as a whole.
    Ok(Changed { base: base.content.clone(), below })
}

/// The base's snapshot of a volume.
fn of_volume(context: &Context<'_>, base: &Base, now: &Record) -> Result<Record, String> {
    let volume = base.volumes.iter().find(|volume| volume.directory == now.directory);
    let BaseVolume { snapshot, .. } =
        volume.ok_or_else(|| format!("the last backup had no snapshot of {}", now.directory.display()))?;
    context.state.record(*snapshot).map_err(|error| error.to_string())
}

/// Adds a path on a volume to what is dirty of a place on it.
fn add(dirty: &mut Dirty, changed: &OnVolume, below: &Path) {
    match changed.path.strip_prefix(below) {
        Ok(inside) => dirty.add(inside, changed.is_tree),
        // The place itself came from somewhere else.
        Err(_) if changed.is_tree && below.starts_with(&changed.path) => dirty.add(Path::new(""), true),
        Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_on_a_volume_is_dirty_in_the_place_it_lies_in() {
        let of = |path: &str, is_tree: bool| {
            let mut dirty = Dirty::new();
            add(&mut dirty, &OnVolume { path: path.into(), is_tree }, Path::new("www/shop"));
            dirty
        };
        let expected = |path: &str, whole: bool| {
            let mut dirty = Dirty::new();
            dirty.add(Path::new(path), whole);
            dirty
        };
        assert_eq!(of("www/shop/a/b", false), expected("a/b", false));
        assert_eq!(of("www/shop/a", true), expected("a", true));
        assert_eq!(of("www/shop", false), expected("", false));
        assert_eq!(of("www", true), expected("", true));
        for (path, is_tree) in [("www/shopping", true), ("www", false), ("other", true)] {
            assert_eq!(of(path, is_tree), Dirty::new(), "{path}");
        }
    }
}
