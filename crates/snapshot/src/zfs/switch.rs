//! Clone, promote, rename: a snapshot's content takes the dataset's place, and nothing is destroyed.
//!
//! Every step looks at what is there, not at what was done before: the clone carries the switch's id from its first
//! moment, so that wherever it is found, everyone can tell how far the switch has come.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::id::Id;
use crate::mounts;
use crate::parked;
use crate::provider::{Handle, Step};
use crate::zfs::command::{Answers, Command};
use crate::zfs::family::{self, Family, Snapshot};
use crate::zfs::{Zfs, view};

/// Names and values.
type Properties = Vec<(String, String)>;

/// What all steps of one switch need to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Switch {
    dataset: String,
    to: Handle,
    old: Id,
    /// Set on the clone from the beginning.
    properties: Properties,
    /// Set once it has taken the dataset's place: what may exist once only, or would mount or share it too early.
    late_properties: Properties,
    /// The way it was mounted, if not by the property `mountpoint`: the options.
    legacy_options: Option<String>,
    /// Datasets directly below.
    children: Vec<String>,
    /// What else is mounted upon the tree, relative to the directory.
    mounts_upon: Vec<PathBuf>,
    /// Of the file systems below, those that were mounted, parents first.
    mounted: Vec<String>,
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Act {
    Clone,
    Promote,
    Unmount,
    SetAside,
    PutInPlace,
    MoveChildren,
    Mount,
}

const ACTS: [(Act, &str); 7] = [
    (Act::Clone, "clone the snapshot"),
    (Act::Promote, "make the clone independent of the dataset"),
    (Act::Unmount, "unmount the dataset"),
    (Act::SetAside, "set the dataset aside"),
    (Act::PutInPlace, "put the clone in its place"),
    (Act::MoveChildren, "move the datasets below"),
    (Act::Mount, "mount the dataset"),
];

#[derive(Serialize, Deserialize)]
struct Arguments {
    act: Act,
    switch: Switch,
}

/// Properties that may exist once only, or act at once on what they are set on.
const LATE: [&str; 7] = ["mountpoint", "quota", "refquota", "reservation", "refreservation", "sharenfs", "sharesmb"];
/// Properties that go their own way: the first is set by the steps, the others come with the clone.
const OWN_WAY: [&str; 6] = ["canmount", "version", "encryption", "keylocation", "keyformat", "pbkdf2iters"];

/// The steps; nothing is changed.
pub(super) fn plan(zfs: &Zfs, to: &Snapshot, old: Id) -> Result<Vec<Step>, Error> {
    let dataset = zfs.dataset.as_str();
    if !dataset.contains('/') {
        let message = format!("{dataset} is its pool's own dataset, which cannot be renamed, and so not be switched");
        return Err(Error::refused(message).or("bring back single files, or move the data into a dataset of its own"));
    }
    let now = mounts::mounts()?;
    let Some(mount) = now.iter().rfind(|mount| mount.point == zfs.directory) else {
        return Err(Error::refused(format!("{} is not mounted", zfs.directory.display()))
            .or(format!("mount it: zfs mount {dataset}")));
    };
    let prefix = format!("{dataset}/");
    let below = zfs.command.datasets(&["-r", dataset])?.into_iter().filter(|(name, _)| name.starts_with(&prefix));
    let (mut children, mut mounted) = (Vec::new(), Vec::new());
    for (name, is_mounted) in below {
        if is_mounted {
            mounted.push(name.clone());
        }
        if !name[prefix.len()..].contains('/') {
            children.push(name);
        }
    }
    let is_ours = |source: &str| source == dataset || mounted.iter().any(|name| name == source);
    let ours = now.iter().filter(|mount| mount.source.to_str().is_some_and(is_ours)).map(|mount| mount.id);
    let mut mounts_upon = parked::upon(&now, &zfs.directory, &ours.collect::<Vec<_>>())?;
    // Children are mounted by their own names; what lies in the control directory is a snapshot that somebody looked
    // at, and goes with the dataset's mount.
    mounts_upon.retain(|path| {
        let point = zfs.directory.join(path);
        let mount = now.iter().find(|mount| mount.point == point);
        !path.starts_with(".zfs") && !mount.and_then(|mount| mount.source.to_str()).is_some_and(is_ours)
    });
    let set = zfs.command.get(&["-s", "local,received"], "all", &[dataset])?;
    let (properties, late_properties) = carried_over(&set, dataset);
    let mountpoint = set.value(dataset, "mountpoint");
    let is_legacy = match mountpoint {
        Some(mountpoint) => mountpoint == "legacy",
        None => zfs.command.property("mountpoint", dataset)? == "legacy",
    };
    if is_legacy && zfs.directory.to_str().is_none() {
        return Err(Error::refused(format!("the name {} is not UTF-8", zfs.directory.display())));
    }
    let switch = Switch {
        dataset: dataset.to_owned(),
        to: zfs.handle(to),
        old,
        properties,
        late_properties,
        legacy_options: is_legacy.then(|| mount.options.clone()),
        children,
        mounts_upon,
        mounted,
    };
    let step = |(act, name): (Act, &str)| Step {
        name: name.to_owned(),
        arguments: serde_json::to_value(Arguments { act, switch: switch.clone() }).expect("the keys are strings"),
    };
    Ok(ACTS.into_iter().map(step).collect())
}

/// What was set on the dataset itself, and so must be set on its successor: at once, and late.
fn carried_over(set: &Answers, dataset: &str) -> (Properties, Properties) {
    let own = set.own_values(dataset).filter(|(name, _)| {
        let is_ours = [family::ID, family::SHELL, family::SWITCH].contains(name);
        !is_ours && !OWN_WAY.contains(name)
    });
    let (mut late, mut properties): (Vec<_>, Vec<_>) =
        own.map(|(name, value)| (name.to_owned(), value.to_owned())).partition(|(name, _)| LATE.contains(&&**name));
    properties.sort();
    late.sort();
    let canmount = set.own_value(dataset, "canmount").unwrap_or("on");
    // Last: from then on the system mounts it at boot.
    late.push(("canmount".to_owned(), canmount.to_owned()));
    (properties, late)
}

fn arguments(zfs: &Zfs, step: &Step) -> Result<Arguments, Error> {
    let arguments: Arguments = serde_json::from_value(step.arguments.clone())
        .map_err(|error| Error::refused(format!("the step \"{}\" cannot be understood: {error}", step.name)))?;
    if arguments.switch.dataset != zfs.dataset {
        let message = format!("the step \"{}\" is of {}, not of {}", step.name, arguments.switch.dataset, zfs.dataset);
        return Err(Error::refused(message));
    }
    Ok(arguments)
}

/// Does a step, or what is left of it.
pub(super) fn perform(zfs: &Zfs, step: &Step) -> Result<(), Error> {
    let Arguments { act, switch } = arguments(zfs, step)?;
    let family = zfs.family()?;
    let place = switch.place(&family);
    match act {
        Act::Clone if place == Place::Nowhere => switch.clone_snapshot(zfs, &family),
        Act::Promote => {
            let clone = match place {
                Place::Live => switch.dataset.clone(),
                _ => switch.next(),
            };
            promote(zfs, &clone)
        }
        // What is mounted then is the clone, or nothing.
        Act::Unmount if place != Place::Live => switch.unmount(zfs),
        Act::SetAside => switch.set_aside(zfs, &family, place),
        Act::PutInPlace => switch.put_in_place(zfs, place),
        Act::MoveChildren => switch.move_children(zfs, &family, &switch.shell(), &switch.dataset),
        Act::Mount => {
            switch.restore_properties(zfs)?;
            switch.mount(zfs)
        }
        Act::Clone | Act::Unmount => Ok(()),
    }
}

/// Takes a step back, or what was done of it.
pub(super) fn revert(zfs: &Zfs, step: &Step) -> Result<(), Error> {
    let Arguments { act, switch } = arguments(zfs, step)?;
    let family = zfs.family()?;
    let place = switch.place(&family);
    match act {
        Act::Mount if place == Place::Live => switch.unmount(zfs),
        Act::MoveChildren if place == Place::Live => {
            switch.move_children(zfs, &family, &switch.dataset, &switch.shell())
        }
        Act::PutInPlace if place == Place::Live => {
            switch.unmount(zfs)?;
            zfs.command.set("canmount", "noauto", &switch.dataset)?;
            switch.release_reservations(zfs, &switch.dataset)?;
            zfs.command.run_when_free(&["rename", &switch.dataset, &switch.next()])
        }
        Act::SetAside if place != Place::Live => switch.take_back(zfs, &family),
        Act::Unmount if place != Place::Live => switch.mount(zfs),
        Act::Promote if place == Place::Next => demote(zfs, &switch.next()),
        Act::Clone if place == Place::Next => zfs.command.run_when_free(&["destroy", &switch.next()]),
        _ => Ok(()),
    }
}

/// Where the clone is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Not made yet.
    Nowhere,
    /// Made, and under its own name.
    Next,
    /// Under the dataset's name.
    Live,
}

impl Switch {
    fn shell(&self) -> String {
        family::shell_name(&self.dataset, self.old)
    }

    fn next(&self) -> String {
        family::next_name(&self.dataset, self.old)
    }

    fn place(&self, family: &Family) -> Place {
        if family.live.as_ref().is_some_and(|live| live.switch == Some(self.old)) {
            Place::Live
        } else if family.member(&self.next()).is_some() {
            Place::Next
        } else {
            Place::Nowhere
        }
    }

    fn clone_snapshot(&self, zfs: &Zfs, family: &Family) -> Result<(), Error> {
        let Some(snapshot) = family.find(&self.dataset, &self.to)? else {
            return Err(Error::refused(format!("the snapshot to be rolled back to is gone: {:?}", self.to)));
        };
        let mut arguments = vec!["clone".to_owned()];
        // zfs-fuse mounts whatever it clones, unless it has no mount point.
        let fixed = [("canmount", "noauto"), ("mountpoint", "none"), (family::SWITCH, &self.old.to_string())];
        let properties = self.properties.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in fixed.into_iter().chain(properties) {
            arguments.extend(["-o".to_owned(), format!("{name}={value}")]);
        }
        arguments.extend([snapshot.full(), self.next()]);
        let borrowed: Vec<&str> = arguments.iter().map(String::as_str).collect();
        zfs.command.run(&borrowed).map(drop)
    }

    /// Unmounts the file systems below, then the dataset's own.
    fn unmount(&self, zfs: &Zfs) -> Result<(), Error> {
        let now = zfs.command.mounted(&self.dataset)?;
        if now.contains(&self.dataset) {
            parked::park(self.old, &zfs.directory, &self.mounts_upon)?;
        }
        // Parents are listed first.
        for name in now.iter().rev() {
            let unmounted = match &self.legacy_options {
                Some(_) if *name == self.dataset => {
                    let directory = zfs.directory.to_string_lossy();
                    zfs.command.run_other("umount", &[&directory]).map(drop)
                }
                _ => zfs.command.run(&["unmount", name]).map(drop),
            };
            if let Err(error) = unmounted {
                // What was unmounted before it comes back; the reason is the first error.
                let _ = self.mount(zfs);
                return Err(error);
            }
        }
        Ok(())
    }

    fn mount(&self, zfs: &Zfs) -> Result<(), Error> {
        let now = zfs.command.mounted(&self.dataset)?;
        for name in [&self.dataset].into_iter().chain(&self.mounted).filter(|name| !now.contains(name)) {
            match &self.legacy_options {
                Some(options) if *name == self.dataset => {
                    let directory = zfs.directory.to_string_lossy();
                    zfs.command.run_other("mount", &["-t", "zfs", "-o", options, name, &directory])?
                }
                _ => zfs.command.run(&["mount", name])?,
            };
        }
        parked::bring_back(self.old, &zfs.directory, &self.mounts_upon)
    }

    /// The dataset becomes a shell, and what it holds a snapshot of its own. The snapshot comes last, as until then
    /// a reboot may mount the dataset, and it be written to.
    fn set_aside(&self, zfs: &Zfs, family: &Family, place: Place) -> Result<(), Error> {
        let shell = self.shell();
        if family.member(&shell).is_none() {
            if place == Place::Live || family.live.is_none() {
                // Long done, and the shell gone since.
                return Ok(());
            }
            self.unmount(zfs)?;
            zfs.command.set("canmount", "noauto", &self.dataset)?;
            self.release_reservations(zfs, &self.dataset)?;
            zfs.command.run_when_free(&["rename", &self.dataset, &shell])?;
        }
        let name = family::snapshot_name(self.old);
        if !family.snapshots.iter().any(|snapshot| snapshot.name == name) {
            let property = format!("{}={}", family::ID, self.old);
            zfs.command.run(&["snapshot", "-o", &property, &format!("{shell}@{name}")])?;
        }
        zfs.command.set(family::SHELL, &self.old.to_string(), &shell)
    }

    fn take_back(&self, zfs: &Zfs, family: &Family) -> Result<(), Error> {
        let shell = self.shell();
        if family.member(&shell).is_some() {
            zfs.command.run(&["inherit", family::SHELL, &shell])?;
            let name = format!("{shell}@{}", family::snapshot_name(self.old));
            if family.snapshots.iter().any(|snapshot| snapshot.full() == name) {
                zfs.command.run_when_free(&["destroy", &name])?;
            }
            zfs.command.run_when_free(&["rename", &shell, &self.dataset])?;
        }
        self.restore_properties(zfs)
    }

    /// The mount point comes back at once: a child that moves from below a dataset without one to below another with
    /// one is mounted by `zfs rename`.
    fn put_in_place(&self, zfs: &Zfs, place: Place) -> Result<(), Error> {
        if place == Place::Next {
            zfs.command.run_when_free(&["rename", &self.next(), &self.dataset])?;
        }
        let mountpoint = self.late_properties.iter().find(|(name, _)| name == "mountpoint");
        self.restore(zfs, mountpoint.map(std::slice::from_ref).unwrap_or_default())
    }

    /// Room is reserved once, for the tree that is live.
    fn release_reservations(&self, zfs: &Zfs, dataset: &str) -> Result<(), Error> {
        let reserved = self.late_properties.iter().filter(|(name, _)| name.ends_with("reservation"));
        reserved.map(|(name, _)| name).try_for_each(|name| zfs.command.set(name, "none", dataset))
    }

    fn restore_properties(&self, zfs: &Zfs) -> Result<(), Error> {
        self.restore(zfs, &self.late_properties)
    }

    /// Only what differs is set: setting `mountpoint`, even to what it is, unmounts for a moment.
    fn restore(&self, zfs: &Zfs, properties: &[(String, String)]) -> Result<(), Error> {
        let dataset = self.dataset.as_str();
        let names: Vec<&str> = properties.iter().map(|(name, _)| name.as_str()).chain(["mountpoint"]).collect();
        let now = zfs.command.get(&[], &names.join(","), &[dataset])?;
        let is_inherited = !self.late_properties.iter().any(|(name, _)| name == "mountpoint");
        if is_inherited && now.own_value(dataset, "mountpoint").is_some() {
            zfs.command.run(&["inherit", "mountpoint", dataset])?;
        }
        for (name, value) in properties {
            let is = if name == "canmount" { now.value(dataset, name) } else { now.own_value(dataset, name) };
            if is != Some(value) {
                zfs.command.set(name, value, dataset)?;
            }
        }
        Ok(())
    }

    fn move_children(&self, zfs: &Zfs, family: &Family, from: &str, to: &str) -> Result<(), Error> {
        if self.children.is_empty() || family.member(from).is_none() {
            return Ok(());
        }
        let there = zfs.command.datasets(&["-d", "1", from])?;
        for child in &self.children {
            let name = &child[self.dataset.len()..];
            let (from, to) = (format!("{from}{name}"), format!("{to}{name}"));
            // Else it has been moved already.
            if there.iter().any(|(name, _)| *name == from) {
                zfs.command.run_when_free(&["rename", &from, &to])?;
            }
        }
        Ok(())
    }
}

/// Moves all snapshots up to the clone's origin to the clone, over the whole family: what it was cloned from may be
/// a clone, too.
fn promote(zfs: &Zfs, clone: &str) -> Result<(), Error> {
    loop {
        let family = zfs.family()?;
        if !depends_on_family(&family, clone) {
            return Ok(());
        }
        zfs.command.run(&["promote", clone])?;
    }
}

/// Moves all snapshots of a clone back to where they were: to whoever depends on the newest, and so on.
fn demote(zfs: &Zfs, clone: &str) -> Result<(), Error> {
    loop {
        let family = zfs.family()?;
        let origins = family.snapshots_of(clone).rev().map(Snapshot::full);
        let members: Vec<_> = family.members().collect();
        let dependent = origins
            .filter_map(|origin| members.iter().find(|member| member.origin.as_deref() == Some(&*origin)))
            .next();
        let Some(dependent) = dependent else { break };
        zfs.command.run(&["promote", &dependent.name])?;
    }
    promote(zfs, &zfs.dataset)
}

/// Whether a dataset is a clone of a snapshot in the family.
fn depends_on_family(family: &Family, dataset: &str) -> bool {
    let origin = family.member(dataset).and_then(|member| member.origin.as_deref());
    let of = origin.and_then(|origin| origin.split_once('@')).map(|(of, _)| of);
    of.is_some_and(|of| family.member(of).is_some())
}

/// After the deletion of a snapshot: a shell without snapshots is destroyed, and one that lost its newest goes back
/// to the one before, so that what only the deleted one held is freed. What fails here is done by the next deletion.
pub(super) fn tidy(command: &Command, before: &Family, deleted: &Snapshot) {
    let Some(shell) = before.shells.iter().find(|shell| shell.name == deleted.dataset) else {
        return tidy_empty(command, before);
    };
    let was_newest = before.is_newest(deleted);
    let newest_left = before.snapshots_of(&shell.name).rev().find(|other| *other != deleted);
    if let (true, Some(newest)) = (was_newest, newest_left) {
        let _ = command.run(&["rollback", &newest.full()]);
    }
    tidy_empty(command, before);
}

fn tidy_empty(command: &Command, before: &Family) {
    if before.shells.is_empty() || !before.next.is_empty() {
        return;
    }
    let Some(live) = &before.live else { return };
    let Ok(mut family) = Family::read(command, &live.name) else { return };
    for shell in family.shells.clone() {
        if family.snapshots_of(&shell.name).any(|snapshot| !snapshot.is_doomed)
            || shell.is_mounted
            || !shell.is_complete
        {
            continue;
        }
        // Doomed snapshots that others were cloned from go to them.
        let origins: Vec<String> = family.snapshots_of(&shell.name).rev().map(Snapshot::full).collect();
        for origin in origins {
            let dependent = family.members().find(|member| member.origin.as_deref() == Some(&*origin));
            if let Some(dependent) = dependent {
                let _ = command.run(&["promote", &dependent.name]);
            }
            let Ok(again) = Family::read(command, &live.name) else { return };
            family = again;
        }
        let _ = command.run(&["destroy", &shell.name]);
    }
    let _ = view::sweep(command, &live.name);
}
