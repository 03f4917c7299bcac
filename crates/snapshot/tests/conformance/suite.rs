//! What every provider promises, whatever the storage.

use std::path::{Path, PathBuf};

use snapshot::id::Id;
use snapshot::provider::{Handle, Provider};

use crate::tree::{assert_same, change, describe, fill};

/// A real storage with a directory to snapshot, released when dropped.
pub(crate) trait Fixture {
    /// The directory, empty but for what lies apart.
    fn directory(&self) -> &Path;

    /// A provider for the directory as it is now.
    fn open(&self) -> Box<dyn Provider>;

    /// A provider for another directory of the same storage, if it has room for one.
    fn open_other(&self) -> Option<Box<dyn Provider>> {
        None
    }

    /// What stays in place whatever is done to the directory: nested subvolumes and mounts below, relative to it. Each
    /// holds a file `stays` with its own path as content.
    fn apart(&self) -> Vec<PathBuf> {
        Vec::new()
    }
}

/// All promises, on a fresh storage.
pub(crate) fn conformance(fixture: &dyn Fixture) {
    let live = fixture.directory();
    fill(live);
    let provider = fixture.open();
    assert_eq!(provider.directory(), live);
    let id = Id::random();
    let handle = provider.create(id).unwrap();
    snapshots_are_listed_and_kept_as_they_were(fixture, &*provider, id, &handle);
    what_is_not_ours_is_not_deleted(fixture, &*provider, &handle);
    provider.delete(&handle).unwrap();
    assert_eq!(provider.list().unwrap(), []);
    provider.delete(&handle).expect("what is gone already is success");
    provider.view(&handle).map(|view| view.path().to_owned()).expect_err("there is nothing to view");
}

fn snapshots_are_listed_and_kept_as_they_were(fixture: &dyn Fixture, provider: &dyn Provider, id: Id, handle: &Handle) {
    let (live, apart) = (fixture.directory(), fixture.apart());
    let before = describe(live, &apart);
    assert_eq!(provider.list().unwrap(), [(id, handle.clone())]);
    assert_eq!(fixture.open().list().unwrap(), [(id, handle.clone())], "another process finds it too");
    change(live);
    let changed = describe(live, &apart);
    assert_ne!(changed, before);
    let view = provider.view(handle).unwrap();
    assert_same(&describe(view.path(), &apart), &before, "the view, after the live tree changed");
    let sparse = std::os::unix::fs::MetadataExt::blocks(&view.path().join("data/sparse").metadata().unwrap()) * 512;
    assert!(sparse < 1 << 20, "the sparse file takes {sparse} bytes");
    std::fs::write(view.path().join("web/page-1.html"), "x").expect_err("a view is read-only");
    drop(view);
    assert_same(&describe(live, &apart), &changed, "the live tree, after it was viewed");
}

fn what_is_not_ours_is_not_deleted(fixture: &dyn Fixture, provider: &dyn Provider, handle: &Handle) {
    let before = provider.list().unwrap();
    for stranger in strangers(handle) {
        provider.delete(&stranger).expect_err("it is not what the handle says");
        provider.view(&stranger).map(|view| view.path().to_owned()).expect_err("it is not what the handle says");
    }
    if let Some(other) = fixture.open_other() {
        assert_eq!(other.list().unwrap(), [], "snapshots of another directory are not listed");
        other.delete(handle).expect_err("it is another directory's");
        let (id, second) = (Id::random(), Id::random());
        let (theirs, ours) = std::thread::scope(|scope| {
            let theirs = scope.spawn(|| other.create(id).unwrap());
            let ours = provider.create(second).unwrap();
            (theirs.join().unwrap(), ours)
        });
        assert_eq!(other.list().unwrap(), [(id, theirs.clone())]);
        provider.delete(&ours).unwrap();
        other.delete(&theirs).unwrap();
    }
    assert_eq!(provider.list().unwrap(), before);
}

/// Handles that name the storage's right place, but not what lies there.
fn strangers(handle: &Handle) -> Vec<Handle> {
    let other = "00000000-1111-2222-3333-444444444444".to_owned();
    match handle.clone() {
        Handle::Btrfs { filesystem, subvolume, uuid } => vec![
            Handle::Btrfs { filesystem: filesystem.clone(), subvolume, uuid: other.clone() },
            Handle::Btrfs { filesystem: other.clone(), subvolume, uuid: uuid.clone() },
            // The top level itself.
            Handle::Btrfs { filesystem, subvolume: 5, uuid },
            Handle::Reflink { path: PathBuf::from("/") },
        ],
        Handle::Reflink { path } => {
            vec![Handle::Reflink { path: path.parent().unwrap().to_owned() }, Handle::Reflink { path: "/".into() }]
        }
        Handle::LvmThin { group, volume, .. } => vec![Handle::LvmThin { group, volume, uuid: other }],
        Handle::Zfs { dataset, name, .. } => vec![Handle::Zfs { dataset, name, guid: "1".to_owned() }],
    }
}
