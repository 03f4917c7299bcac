//! What may have changed since the parent backup, where somebody knows; all else is taken over from the parent's trees
//! without a look.
//!
//! Invariant: the tree is the one that a full walk would have stored, byte for byte, provided that the parent backup was
//! of the state since which the changes are told ([`Base`]), and that too much may be told, but not too little: every path
//! below the root that is not in both states the same in all that a node holds, which is also its inode and ctime; all
//! names of a file with several. What the shortcut cannot see, and only a full walk mends: owners' names that were
//! changed in the system, and contents that the repository has lost below trees that it still has.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use repository::hash::sha256;
use repository::id::Id;
use serde::{Deserialize, Serialize};

use crate::archive::Options;
use crate::archive::elsewhere::Places;
use crate::archive::stream::MadeUpFiles;

/// What a backup was of, in its caller's keeping: to be stored together with the state (the snapshot) that was read, and
/// only if that one could not change meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// Its root tree.
    pub tree: Id,
    /// Hash of what decides which entries are taken, and how they are written: paths, excludes, the time zone.
    pub choice: Id,
    /// Files in it.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Directories in it.
    pub directories: u64,
}

/// What may have changed since a backup.
#[derive(Clone, Debug)]
pub struct Changed {
    /// That backup, which must be the parent too, and of the same choice. If not, everything is looked at. Its record must
    /// have been seen under the lock that is held: of a backup that was forgotten, prune may have left trees without their
    /// files' contents, and nobody looks below a tree that is taken over.
    pub base: Base,
    /// By directories as they are stored: paths of the backup, or directories above or below them. What lies in none of
    /// them, and each place of [`Options::elsewhere`] below one that has none of its own, is looked at as a whole.
    pub below: BTreeMap<PathBuf, Dirty>,
}

/// Which paths below a directory may have changed: a tree of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Its own attributes, or which entries it has.
    itself: bool,
    /// It and all that is below.
    whole: bool,
    below: BTreeMap<OsString, Arc<Dirty>>,
}

impl Dirty {
    /// Nothing has changed.
    pub fn new() -> Dirty {
        Dirty::default()
    }

    /// Adds a path below the directory, empty for the directory itself; `whole` with all that is below. A path that is not
    /// a plain relative one makes everything suspect.
    pub fn add(&mut self, path: &Path, whole: bool) {
        let mut at = self;
        for part in path.components() {
            let Component::Normal(name) = part else {
                at.whole = true;
                return;
            };
            at = Arc::make_mut(at.below.entry(name.to_owned()).or_default());
        }
        at.itself = true;
        at.whole |= whole;
    }

    fn is_clean(&self) -> bool {
        !self.itself && !self.whole && self.below.is_empty()
    }
}

/// How much of a directory is in doubt.
#[derive(Clone, Debug)]
pub(super) enum Doubt {
    /// Nobody knows anything: it is compared entry by entry.
    All,
    /// Only what is named, of a directory that the parent has.
    Some(Arc<Dirty>),
}

impl Doubt {
    /// Whether the directory has to be listed: its entries may be others.
    pub(super) fn lists(&self) -> bool {
        match self {
            Doubt::All => true,
            Doubt::Some(dirty) => dirty.itself,
        }
    }

    /// The names that are in doubt.
    pub(super) fn names(&self) -> Vec<OsString> {
        match self {
            Doubt::All => Vec::new(),
            Doubt::Some(dirty) => dirty.below.keys().cloned().collect(),
        }
    }

    pub(super) fn has(&self, name: &OsStr) -> bool {
        matches!(self, Doubt::Some(dirty) if dirty.below.contains_key(name))
    }
}

/// The changes that a run goes by.
#[derive(Debug, Default)]
pub(super) struct Changes {
    roots: HashMap<PathBuf, Arc<Dirty>>,
    /// Directories that have one of the roots as an entry.
    above: HashSet<PathBuf>,
}

impl Changes {
    /// Without any if the parent is not what they are told since.
    pub(super) fn new(options: &Options<'_>, places: &Places, made_up: &MadeUpFiles) -> Changes {
        let Some(changed) = &options.changed else { return Changes::default() };
        if Some(changed.base.tree) != options.parent || changed.base.choice != choice(options, places, made_up) {
            return Changes::default();
        }
        let mut roots: HashMap<PathBuf, Arc<Dirty>> =
            changed.below.iter().map(|(path, dirty)| (path.clone(), Arc::new(dirty.clone()))).collect();
        // What lies in a root and is read elsewhere, or has changes of its own, must be come to.
        let elsewhere = options.elsewhere.iter().map(|place| &place.path);
        for inner in changed.below.keys().chain(elsewhere) {
            let is_known = changed.below.contains_key(inner);
            for outer in inner.ancestors().skip(1) {
                let Some(dirty) = roots.get_mut(outer) else { continue };
                if let Ok(path) = inner.strip_prefix(outer) {
                    Arc::make_mut(dirty).add(path, !is_known);
                }
                break;
            }
        }
        let above = roots.keys().filter_map(|root| root.parent()).map(Path::to_owned).collect();
        Changes { roots, above }
    }

    /// Whether anything is taken over without a look.
    pub(super) fn any(&self) -> bool {
        !self.roots.is_empty()
    }

    /// Whether an entry of this directory has changes of its own.
    pub(super) fn any_in(&self, directory: &Path) -> bool {
        self.above.contains(directory)
    }

    pub(super) fn root(&self) -> Doubt {
        self.of(Path::new("/")).map_or(Doubt::All, |dirty| in_doubt(&dirty).unwrap_or(Doubt::Some(dirty)))
    }

    fn of(&self, path: &Path) -> Option<Arc<Dirty>> {
        self.roots.get(path).map(Arc::clone)
    }

    /// What of an entry is in doubt; `None` if nothing is. `has_roots` says whether some entries of the directory have
    /// changes of their own.
    pub(super) fn of_entry(&self, doubt: &Doubt, has_roots: bool, directory: &Path, name: &OsStr) -> Option<Doubt> {
        if has_roots && let Some(dirty) = self.of(&directory.join(name)) {
            return in_doubt(&dirty);
        }
        match doubt {
            Doubt::All => Some(Doubt::All),
            Doubt::Some(dirty) => dirty.below.get(name).and_then(in_doubt),
        }
    }
}

fn in_doubt(dirty: &Arc<Dirty>) -> Option<Doubt> {
    match dirty {
        dirty if dirty.is_clean() => None,
        dirty if dirty.whole => Some(Doubt::All),
        dirty => Some(Doubt::Some(Arc::clone(dirty))),
    }
}

/// Two runs of the same choice write the same tree of the same state.
pub(super) fn choice(options: &Options<'_>, places: &Places, made_up: &MadeUpFiles) -> Id {
    let mut paths: Vec<_> = options.paths.iter().collect();
    paths.sort();
    let exclude: Vec<_> = options.exclude.iter().flat_map(|patterns| patterns.as_given()).collect();
    // What streams stand for in the root would be taken over from the parent once they are no more.
    let streams: Vec<_> = made_up.names().collect();
    let text = format!(
        "{} {:?} {:?} {} {:?} {} {} {:?} {:?}",
        env!("CARGO_PKG_VERSION"),
        paths,
        exclude,
        options.exclude_caches,
        options.exclude_larger_than,
        options.one_file_system,
        places.stand_for_live(),
        options.zone.offsets(),
        streams,
    );
    sha256(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doubt(paths: &[(&str, bool)]) -> Doubt {
        let mut dirty = Dirty::new();
        paths.iter().for_each(|(path, whole)| dirty.add(Path::new(path), *whole));
        Doubt::Some(Arc::new(dirty))
    }

    fn of(doubt: &Doubt, name: &str) -> Option<Doubt> {
        Changes::default().of_entry(doubt, false, Path::new("/"), OsStr::new(name))
    }

    #[test]
    fn only_what_is_named_is_in_doubt_and_a_directory_is_listed_only_if_it_is_named_itself() {
        let root = doubt(&[("a/b/c", false), ("d", true), ("e", false)]);
        assert!(!root.lists());
        assert!(of(&root, "z").is_none());
        let a = of(&root, "a").unwrap();
        assert!(!a.lists() && of(&a, "z").is_none());
        assert!(of(&of(&a, "b").unwrap(), "c").unwrap().lists());
        assert!(matches!(of(&root, "d"), Some(Doubt::All)));
        assert!(of(&of(&root, "d").unwrap(), "anything").is_some());
        assert!(of(&root, "e").unwrap().lists() && of(&of(&root, "e").unwrap(), "x").is_none());
    }

    #[test]
    fn a_path_that_leads_elsewhere_puts_everything_in_doubt() {
        let Doubt::Some(root) = doubt(&[("../x", false)]) else { unreachable!() };
        assert!(matches!(in_doubt(&root), Some(Doubt::All)));
    }
}
