//! What every provider promises, whatever the storage.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use snapshot::id::Id;
use snapshot::provider::{Abilities, Changed, Handle, Provider};

use crate::tree::{Tree, assert_same, brief, change, describe, differing, fill};

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
    let before = describe(live, &fixture.apart());
    let id = Id::random();
    let handle = provider.create(id).unwrap();
    snapshots_are_listed_and_kept_as_they_were(fixture, &*provider, id, &handle);
    a_clone_is_written_to_and_nobody_sees_it(fixture, &*provider, &before, (id, &handle));
    what_changed_is_told(fixture, &*provider, &before, (id, &handle));
    what_is_not_ours_is_not_deleted(fixture, &*provider, &handle);
    a_switch_brings_everything_back(fixture, &*provider, &before, (id, &handle));
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

fn a_clone_is_written_to_and_nobody_sees_it(
    fixture: &dyn Fixture,
    provider: &dyn Provider,
    before: &Tree,
    (id, handle): (Id, &Handle),
) {
    let (live, apart) = (fixture.directory(), fixture.apart());
    let now = describe(live, &apart);
    let Some(clone) = provider.clone_of(handle, Id::random()).unwrap() else { return };
    let view = provider.view_clone(&clone).unwrap();
    assert_same(&describe(view.path(), &apart), before, "the clone");
    std::fs::write(view.path().join("web/page-1.html"), "a server wrote here").unwrap();
    for above in view.path().ancestors().skip(1) {
        let mode = std::os::unix::fs::MetadataExt::mode(&above.metadata().unwrap());
        assert_eq!(mode & 0o001, 0o001, "every user may enter {}", above.display());
    }
    provider.delete(&clone).expect_err("it is mounted");
    drop(view);
    assert_same(&describe(provider.view(handle).unwrap().path(), &apart), before, "the snapshot, beside its clone");
    assert_same(&describe(live, &apart), &now, "the live tree, beside a clone");
    provider.delete(&clone).unwrap();
    assert_eq!(provider.list().unwrap(), [(id, handle.clone())], "nothing is left of the clone");
}

fn what_changed_is_told(fixture: &dyn Fixture, provider: &dyn Provider, before: &Tree, (id, handle): (Id, &Handle)) {
    let now = describe(fixture.directory(), &fixture.apart());
    assert_changes_covered(provider.changed_paths(handle, None).unwrap(), before, &now, provider.abilities());
    let second = provider.create(Id::random()).unwrap();
    for (from, to) in [(handle, &second), (&second, handle)] {
        let told = provider.changed_paths(from, Some(to)).unwrap();
        assert_changes_covered(told, before, &now, provider.abilities());
    }
    assert!(provider.changed_paths(&second, None).unwrap().unwrap_or_default().is_empty(), "nothing changed since");
    provider.delete(&second).unwrap();
    assert_eq!(provider.list().unwrap(), [(id, handle.clone())], "nothing is left of the comparison");
}

/// Too many is allowed, too few is not.
pub(crate) fn assert_changes_covered(told: Option<Vec<Changed>>, one: &Tree, other: &Tree, abilities: Abilities) {
    let Some(told) = told else {
        assert!(!abilities.knows_changes, "it says that it knows what changed");
        return;
    };
    let covers =
        |changed: &Changed, path: &Path| changed.path == *path || changed.is_tree && path.starts_with(&changed.path);
    for path in differing(one, other) {
        if let (Some(one), Some(other)) = (one.get(&path), other.get(&path))
            && one.is_same_file(other)
        {
            continue;
        }
        let is_told = told.iter().any(|changed| covers(changed, &path));
        let told: Vec<_> = told.iter().map(|changed| (&changed.path, changed.is_tree)).collect();
        let (one, other) = (brief(one.get(&path)), brief(other.get(&path)));
        assert!(is_told, "{} changed from {one} to {other}, and is not among {told:?}", path.display());
    }
    let untouched = Path::new("web/page-20.html");
    assert!(!told.iter().any(|changed| covers(changed, untouched)), "{untouched:?} did not change: {told:#?}");
}

fn a_switch_brings_everything_back(
    fixture: &dyn Fixture,
    provider: &dyn Provider,
    before: &Tree,
    (id, handle): (Id, &Handle),
) {
    let (live, apart) = (fixture.directory(), fixture.apart());
    let abilities = provider.abilities();
    let changed = describe(live, &apart);
    let listed = provider.list().unwrap();
    let old = Id::random();
    let steps = provider.plan_switch(handle, old).unwrap();
    assert_same(&describe(live, &apart), &changed, "the live tree, after a switch was planned");
    for performed in 0..=steps.len() {
        let twice = steps.iter().take(performed).flat_map(|step| [step, step]);
        twice.for_each(|step| provider.perform(step).unwrap_or_else(|error| panic!("{}: {error}", step.name)));
        // Also those that were never performed. Another process may be the one that reverts.
        let other = fixture.open();
        let twice = steps.iter().rev().flat_map(|step| [step, step]);
        twice.for_each(|step| other.revert(step).unwrap_or_else(|error| panic!("not {}: {error}", step.name)));
        let which = format!("the live tree, after {performed} steps were reverted");
        assert_same(&describe(live, &apart), &changed, &which);
        assert_eq!(provider.list().unwrap(), listed, "{which}");
        assert_in_place(live, &apart, &which);
    }
    let always = if abilities.switches_live { vec![live.to_owned(), live.join("web/page-0.html")] } else { vec![] };
    while_there(&always, || {
        for step in &steps {
            provider.perform(step).unwrap_or_else(|error| panic!("{}: {error}", step.name));
        }
    });
    for step in &steps {
        fixture.open().perform(step).unwrap_or_else(|error| panic!("{} again: {error}", step.name));
    }
    assert_same(&describe(live, &apart), before, "the live tree, after it was switched to the snapshot");
    assert_in_place(live, &apart, "after the switch");
    std::fs::write(live.join("written after the switch"), "").expect("the live tree is writable");
    std::fs::remove_file(live.join("written after the switch")).unwrap();
    let now = fixture.open().list().unwrap();
    assert_eq!(now.contains(&(id, handle.clone())), abilities.keeps_snapshot);
    if !abilities.keeps_old_tree {
        return;
    }
    let kept = now.iter().find(|(id, _)| *id == old).map(|(_, handle)| handle.clone()).expect("the old tree is listed");
    let view = provider.view(&kept).unwrap();
    assert_same(&describe(view.path(), &apart), &changed, "the old tree, which is kept");
    drop(view);
    // The way back is the same way.
    let older = Id::random();
    for step in &provider.plan_switch(&kept, older).unwrap() {
        provider.perform(step).unwrap_or_else(|error| panic!("{}: {error}", step.name));
    }
    assert_same(&describe(live, &apart), &changed, "the live tree, after the rollback was undone");
    assert_in_place(live, &apart, "after the rollback was undone");
    for (tree, handle) in provider.list().unwrap() {
        if tree == old || tree == older {
            provider.delete(&handle).unwrap();
        }
    }
    let mut left = listed;
    // One that became the live tree, was then kept as the older one.
    left.retain(|(other, _)| abilities.keeps_snapshot || *other != id);
    assert_eq!(provider.list().unwrap(), left);
}

pub(crate) fn assert_in_place(live: &Path, apart: &[PathBuf], which: &str) {
    for path in apart {
        let content = std::fs::read_to_string(live.join(path).join("stays"));
        assert_eq!(content.ok().as_deref(), path.to_str(), "{} in the live tree, {which}", path.display());
    }
}

/// Does something, and fails if one of the paths is missing at any moment meanwhile.
fn while_there(paths: &[PathBuf], work: impl FnOnce()) {
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                for path in paths {
                    assert!(path.exists(), "{} was missing for a moment", path.display());
                }
            }
        });
        work();
        is_done.store(true, Ordering::Relaxed);
        watcher.join().unwrap();
    });
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
        Handle::Backup { repository, password_file, backup } => {
            let elsewhere = repository.parent().unwrap().to_owned();
            vec![Handle::Backup { repository: elsewhere, password_file, backup }]
        }
    }
}
