//! What was asked for, as a tree of its own: `/srv/shop` and `/srv/blog` share the directory `srv`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

/// A place in the tree of targets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Taken whole.
    Whole,
    /// Only there because something below it was asked for.
    Above(BTreeMap<OsString, Target>),
}

/// Joins absolute paths to a tree; what lies below another target is part of it.
pub(super) fn tree(paths: &[PathBuf]) -> Target {
    let mut root = Target::Above(BTreeMap::new());
    for path in paths {
        let names: Vec<&OsStr> = path.iter().filter(|name| name.as_bytes() != b"/").collect();
        insert(&mut root, &names);
    }
    root
}

fn insert(place: &mut Target, names: &[&OsStr]) {
    let Target::Above(below) = place else { return };
    match names {
        [] => *place = Target::Whole,
        [name, rest @ ..] => {
            let next = below.entry(name.to_os_string()).or_insert_with(|| Target::Above(BTreeMap::new()));
            insert(next, rest);
        }
    }
}

/// Makes a path absolute without asking the file system: a link in it keeps its name, `.` and `..` go.
pub fn absolute(path: &Path, working_directory: &Path) -> PathBuf {
    let mut absolute = PathBuf::from("/");
    for component in working_directory.join(path).components() {
        match component {
            Component::ParentDir => {
                absolute.pop();
            }
            Component::Normal(name) => absolute.push(name),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    absolute
}

#[cfg(test)]
mod tests {
    use super::*;

    fn above(below: Vec<(&str, Target)>) -> Target {
        Target::Above(below.into_iter().map(|(name, target)| (name.into(), target)).collect())
    }

    #[test]
    fn targets_share_what_is_above_them_and_swallow_what_is_below() {
        let paths = ["/srv/shop/img", "/srv/blog", "/srv/shop", "/etc"].map(PathBuf::from);
        let srv = above(vec![("shop", Target::Whole), ("blog", Target::Whole)]);
        assert_eq!(tree(&paths), above(vec![("srv", srv), ("etc", Target::Whole)]));
        assert_eq!(tree(&["/".into(), "/etc".into()]), Target::Whole);
    }

    #[test]
    fn paths_become_absolute_by_their_text() {
        let at = |path: &str| absolute(Path::new(path), Path::new("/home/x"));
        assert_eq!(at("a/./b"), Path::new("/home/x/a/b"));
        assert_eq!(at("../y"), Path::new("/home/y"));
        assert_eq!(at("/../etc/"), Path::new("/etc"));
        assert_eq!(at("."), Path::new("/home/x"));
    }
}
