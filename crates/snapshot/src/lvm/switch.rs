//! A copy of the snapshot takes the volume's name, and the volume a kept tree's.
//!
//! Steps look at what is there: the copy carries the switch's id as a tag from its first moment, so that
//! wherever it is found, everyone can tell how far the switch has come. Nothing is removed but, in going back, a copy
//! that never was the live volume.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::id::Id;
use crate::lvm::volumes::{self, Volume, Volumes};
use crate::lvm::{LvmThin, mapper};
use crate::mounts::{self, Mount};
use crate::parked;
use crate::provider::{Handle, Step};

/// What all steps of one switch need to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Switch {
    group: String,
    volume: String,
    to: Handle,
    old: Id,
    /// Options of the mount.
    options: String,
    /// What is mounted upon the tree, relative to the directory.
    mounts_upon: Vec<PathBuf>,
    /// Tags that somebody gave the volume.
    tags: Vec<String>,
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Act {
    Copy,
    Exchange,
    Mount,
}

const ACTS: [(Act, &str); 3] = [
    (Act::Copy, "make a writable copy of the snapshot"),
    (Act::Exchange, "unmount the volume and put the copy in its place"),
    (Act::Mount, "mount the volume"),
];

#[derive(Serialize, Deserialize)]
struct Arguments {
    act: Act,
    switch: Switch,
}

/// The steps; nothing is changed.
pub(super) fn plan(provider: &LvmThin, to: &Handle, old: Id) -> Result<Vec<Step>, Error> {
    let volumes = provider.volumes()?;
    provider.find_existing(&volumes, to)?;
    volumes.check_room(&provider.group, &provider.volume)?;
    let now = mounts::mounts()?;
    let mount = mount_now(&now, &provider.directory)
        .ok_or_else(|| Error::refused(format!("{} is not mounted", provider.directory.display())))?;
    if let Some(other) = now.iter().find(|other| other.device == mount.device && other.id != mount.id) {
        let message = format!("{} is mounted on {}, too", provider.full(&provider.volume), other.point.display());
        return Err(Error::refused(message).or("unmount it for the time of the switch"));
    }
    let live = volumes.named(&provider.volume);
    let switch = Switch {
        group: provider.group.clone(),
        volume: provider.volume.clone(),
        to: to.clone(),
        old,
        options: options(mount),
        mounts_upon: parked::upon(&now, &provider.directory, &[mount.id])?,
        tags: live.map(|live| live.foreign_tags().cloned().collect()).unwrap_or_default(),
    };
    let step = |(act, name): (Act, &str)| Step {
        name: name.to_owned(),
        arguments: serde_json::to_value(Arguments { act, switch: switch.clone() }).expect("the keys are strings"),
    };
    Ok(ACTS.into_iter().map(step).collect())
}

/// The topmost mount on a directory.
fn mount_now<'a>(mounts: &'a [Mount], directory: &Path) -> Option<&'a Mount> {
    mounts.iter().rfind(|mount| mount.point == directory)
}

/// As mountinfo shows them, of the mount and of the file system; what is only shown cannot be given.
fn options(mount: &Mount) -> String {
    let all = mount.options.split(',').chain(mount.super_options.split(','));
    let mut options: Vec<&str> = Vec::new();
    for option in all.filter(|option| *option != "seclabel") {
        if !options.contains(&option) {
            options.push(option);
        }
    }
    // A read-only mount of a file system that is writable elsewhere.
    if options.contains(&"ro") {
        options.retain(|option| *option != "rw");
    }
    options.join(",")
}

fn arguments(provider: &LvmThin, step: &Step) -> Result<Arguments, Error> {
    let arguments: Arguments = serde_json::from_value(step.arguments.clone())
        .map_err(|error| Error::refused(format!("the step \"{}\" cannot be understood: {error}", step.name)))?;
    let Switch { group, volume, .. } = &arguments.switch;
    if (group, volume) != (&provider.group, &provider.volume) {
        let message = format!("the step \"{}\" is of {group}/{volume}", step.name);
        return Err(Error::refused(message).or(format!("this is {}", provider.full(&provider.volume))));
    }
    Ok(arguments)
}

/// Does a step, or what is left of it.
pub(super) fn perform(provider: &LvmThin, step: &Step) -> Result<(), Error> {
    let Arguments { act, switch } = arguments(provider, step)?;
    if act == Act::Mount {
        return mount(provider, &switch);
    }
    let at = At::look(provider, switch)?;
    match (act, at.place) {
        (Act::Copy, Place::Nowhere) => at.copy(),
        (Act::Exchange, Place::Next) => at.exchange(),
        (Act::Exchange, Place::Nowhere) => Err(Error::refused("the copy to be put in place is gone")),
        _ => Ok(()),
    }
}

/// Takes a step back, or what was done of it.
pub(super) fn revert(provider: &LvmThin, step: &Step) -> Result<(), Error> {
    let Arguments { act, switch } = arguments(provider, step)?;
    if act == Act::Mount {
        // The next to be reverted unmounts.
        return Ok(());
    }
    let at = At::look(provider, switch)?;
    match (act, at.place) {
        (Act::Exchange, _) => {
            at.exchange_back()?;
            mount(provider, &at.switch)
        }
        (Act::Copy, Place::Next) => at.run("lvremove", &["--yes", &provider.full(&at.next_name())]),
        _ => Ok(()),
    }
}

/// Where the copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Not made yet.
    Nowhere,
    /// Made, and under its own name.
    Next,
    /// Under the volume's name.
    Live,
}

/// A switch, and what there is at a moment of it.
struct At<'a> {
    provider: &'a LvmThin,
    switch: Switch,
    volumes: Volumes,
    place: Place,
}

impl<'a> At<'a> {
    fn look(provider: &'a LvmThin, switch: Switch) -> Result<At<'a>, Error> {
        let volumes = provider.volumes()?;
        let is_copy = |name: &str| volumes.named(name).is_some_and(|volume| volume.is_next(switch.old));
        let place = if is_copy(&switch.volume) {
            Place::Live
        } else if is_copy(&volumes::next_name(switch.old)) {
            Place::Next
        } else {
            Place::Nowhere
        };
        Ok(At { provider, switch, volumes, place })
    }

    fn live(&self) -> Option<&Volume> {
        self.volumes.named(&self.switch.volume)
    }

    fn next_name(&self) -> String {
        volumes::next_name(self.switch.old)
    }

    fn kept_tags(&self) -> [String; 3] {
        volumes::tags(self.switch.old, &self.switch.volume, self.provider.file_system)
    }

    fn kept_name(&self) -> String {
        volumes::snapshot_name(self.switch.old)
    }

    /// Inactive, as the file system on it has the UUID of the one in use.
    fn copy(&self) -> Result<(), Error> {
        let of = self.provider.find_existing(&self.volumes, &self.switch.to)?;
        self.volumes.check_room(&self.switch.group, &of.name)?;
        let (name, tag) = (self.next_name(), volumes::next_tag(self.switch.old));
        let mut arguments = vec!["--snapshot", "--permission", "rw", "--setactivationskip", "n", "--activate", "n"];
        arguments.extend(["--name", &name, "--addtag", &tag]);
        self.switch.tags.iter().for_each(|tag| arguments.extend(["--addtag", tag]));
        let of = self.provider.full(&of.name);
        arguments.push(&of);
        self.run("lvcreate", &arguments)
    }

    /// Deactivating fails if somebody has it mounted in another mount namespace, and nothing has changed then but that
    /// it is not mounted here.
    fn exchange(&self) -> Result<(), Error> {
        if let Some(live) = self.live() {
            unmount(self.provider, &self.switch)?;
            self.deactivate(live)?;
            let full = self.provider.full(&live.name);
            let mut change = Vec::new();
            if !live.is_skipped {
                change.extend(["--setactivationskip", "y"]);
            }
            if !live.is_read_only {
                change.extend(["--permission", "r"]);
            }
            let tags = self.kept_tags();
            change.extend(tags.iter().flat_map(|tag| ["--addtag", tag]));
            change.push(&full);
            self.run("lvchange", &change)?;
            self.rename(&live.name, &self.kept_name())?;
        }
        self.rename(&self.next_name(), &self.switch.volume)
    }

    fn exchange_back(&self) -> Result<(), Error> {
        let (kept, name) = (self.kept_name(), &self.switch.volume);
        if let (Place::Live, Some(copy)) = (self.place, self.live()) {
            unmount(self.provider, &self.switch)?;
            self.deactivate(copy)?;
            self.rename(name, &self.next_name())?;
        }
        let tags = self.kept_tags();
        let is_tagged = |volume: &Volume| tags.iter().any(|tag| volume.tags.contains(tag));
        // The former volume is under the kept tree's name, or under its own and perhaps changed already.
        let is_kept = self.volumes.named(&kept).filter(|volume| is_tagged(volume));
        let Some(former) = is_kept.or(self.live()) else {
            return Err(Error::refused(format!("neither {name} nor {kept} is there to be brought back")));
        };
        if former.name == kept {
            self.rename(&kept, name)?;
        }
        if !former.is_read_only && !former.is_skipped && !is_tagged(former) {
            return Ok(());
        }
        let mut change = Vec::new();
        if former.is_skipped {
            change.extend(["--setactivationskip", "n"]);
        }
        if former.is_read_only {
            change.extend(["--permission", "rw"]);
        }
        let full = self.provider.full(name);
        change.extend(tags.iter().flat_map(|tag| ["--deltag", tag]));
        change.push(&full);
        self.run("lvchange", &change)
    }

    fn deactivate(&self, volume: &Volume) -> Result<(), Error> {
        if volume.device.is_none() {
            return Ok(());
        }
        self.run("lvchange", &["--activate", "n", &self.provider.full(&volume.name)])
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        self.run("lvrename", &[&self.switch.group, from, to])
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<(), Error> {
        self.provider.command.run(program, arguments).map(drop)
    }
}

/// Whether what is mounted on the directory is the volume of this name, whichever it is.
fn is_mounted(provider: &LvmThin, switch: &Switch) -> Result<bool, Error> {
    let now = mounts::mounts()?;
    let Some(mount) = mount_now(&now, &provider.directory) else { return Ok(false) };
    let volume = mapper::thin_volume(mount.device)?;
    Ok(volume.is_some_and(|(group, volume)| group == switch.group && volume == switch.volume))
}

fn unmount(provider: &LvmThin, switch: &Switch) -> Result<(), Error> {
    if !is_mounted(provider, switch)? {
        return Ok(());
    }
    parked::park(switch.old, &provider.directory, &switch.mounts_upon)?;
    let unmounted = provider.command.run("umount", &[utf8(&provider.directory)?]);
    if unmounted.is_err() {
        parked::bring_back(switch.old, &provider.directory, &switch.mounts_upon)?;
    }
    unmounted.map(drop)
}

fn mount(provider: &LvmThin, switch: &Switch) -> Result<(), Error> {
    if is_mounted(provider, switch)? {
        return parked::bring_back(switch.old, &provider.directory, &switch.mounts_upon);
    }
    provider.command.run("lvchange", &["--activate", "y", &provider.full(&switch.volume)])?;
    let kind = provider.file_system.name();
    let device = mapper::device_path(&switch.group, &switch.volume);
    let arguments = ["-t", kind, "-o", &switch.options, &device, utf8(&provider.directory)?];
    provider.command.run("mount", &arguments)?;
    parked::bring_back(switch.old, &provider.directory, &switch.mounts_upon)
}

fn utf8(directory: &Path) -> Result<&str, Error> {
    let name = directory.to_str();
    name.ok_or_else(|| Error::refused(format!("the name {} is not UTF-8", directory.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_given_as_they_are_shown_but_for_what_is_only_shown() {
        let shown = b"22 21 254:4 / /srv ro,noatime - ext4 /dev/mapper/vg-shop rw,seclabel,errors=remount-ro\n";
        assert_eq!(options(&mounts::parse(shown).unwrap()[0]), "ro,noatime,errors=remount-ro");
    }
}
