//! Where something lies, down to the physical disks, and how near two places are to each other.
//!
//! A backup saves from whatever does not reach it: on another disk from a dead one, on another machine from a lost
//! server. A path says little about that. It is followed from the mount to its file system, and through partitions, the
//! device mapper, RAID, loop devices and pools to the disks.
//!
//! Invariant: what cannot be found out is never taken for good. It is a doubt, and two places of which one has a doubt
//! count as the nearer thing. The members of a RAID count as one: sharing one of them is sharing the disk.
//!
//! Only looks, mostly at sysfs; runs `zpool status` for ZFS. Does not know of projects, and resolves no names: a machine
//! is itself by the names and addresses it knows.

mod block;
mod disk;
mod filesystem;
mod machine;
mod system;
mod url;
mod zpool;

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use disk::{Disk, Sight};
pub use system::System;

/// How near two places are: what can hit both at once. The nearer, the less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Nearness {
    /// One file system: what damages it damages both.
    SameFilesystem,
    /// At least one physical disk in common.
    SameDisk,
    /// Disks of one machine.
    SameMachine,
    /// Nothing in common that could be seen.
    Elsewhere,
}

/// How near, and whether that is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relation {
    /// How near; where it is not known, the nearer.
    pub nearness: Nearness,
    /// Why it is not known, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doubt: Option<String>,
}

/// On which machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Machine {
    /// This one.
    This,
    /// Another one, by its name or address; for a service without one, the service's name.
    Other(String),
    /// That cannot be told.
    Unknown,
}

/// Which file system of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filesystem {
    /// Its type: `ext4`, `btrfs`, `zfs`.
    pub kind: String,
    /// What tells it from others while both are mounted: the superblock's device number, or the pool.
    pub id: String,
}

/// Where something lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// On which machine.
    pub machine: Machine,
    /// In which file system, if it is one of this machine's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<Filesystem>,
    /// On which disks of this machine, all of them.
    pub disks: BTreeSet<Disk>,
    /// Through what one gets from the path to the disks, from above: `dm-0 (LVM)`, `md0 (raid1)`.
    pub through: Vec<String>,
    /// Some of it lies in memory, and is gone with the power.
    pub is_in_memory: bool,
    /// What could not be found out.
    pub doubts: Vec<String>,
}

impl Place {
    fn on(machine: Machine) -> Place {
        Place {
            machine,
            filesystem: None,
            disks: BTreeSet::new(),
            through: Vec::new(),
            is_in_memory: false,
            doubts: Vec::new(),
        }
    }

    /// Somewhere, for a reason that is told.
    pub fn unknown(doubt: impl Into<String>) -> Place {
        Place { doubts: vec![doubt.into()], ..Place::on(Machine::Unknown) }
    }

    /// Where a path lies; what does not exist yet lies in the nearest directory above that does.
    pub fn of_path(path: &Path, system: &System) -> Place {
        filesystem::of_path(path, system)
    }

    /// Where a repository lies, by its URL as restic writes them, or its path.
    pub fn of_repository(url: &str, system: &System) -> Place {
        url::place(url, system)
    }

    /// How near another place is to this one.
    pub fn relation_to(&self, other: &Place) -> Relation {
        let certain = |nearness| Relation { nearness, doubt: None };
        let perhaps = |nearness, doubt: String| Relation { nearness, doubt: Some(doubt) };
        if self.filesystem.is_some() && self.filesystem == other.filesystem {
            return certain(Nearness::SameFilesystem);
        }
        match (&self.machine, &other.machine) {
            (Machine::Other(one), Machine::Other(another)) if one == another => {
                return perhaps(Nearness::SameDisk, format!("the disks of {one} cannot be seen from here"));
            }
            (Machine::Other(_), Machine::This | Machine::Other(_)) | (Machine::This, Machine::Other(_)) => {
                return certain(Nearness::Elsewhere);
            }
            (Machine::This, Machine::This) | (Machine::Unknown, _) | (_, Machine::Unknown) => {}
        }
        if self.disks.iter().any(|disk| other.disks.iter().any(|another| disk.is(another))) {
            return certain(Nearness::SameDisk);
        }
        if let Some(doubt) = self.doubts.iter().chain(&other.doubts).next() {
            return perhaps(Nearness::SameDisk, doubt.clone());
        }
        let hidden = |disk: &&Disk| disk.sight != Sight::Physical;
        let same_sight = |one: &&Disk| other.disks.iter().filter(hidden).find(|another| one.sight == another.sight);
        if let Some((one, another)) =
            self.disks.iter().filter(hidden).find_map(|one| same_sight(&one).map(|another| (one, another)))
        {
            return perhaps(Nearness::SameDisk, one.cannot_be_told_from(another));
        }
        certain(Nearness::SameMachine)
    }

    /// How near a place is to the nearest of several. Without any, nothing is known.
    pub fn nearest_of(sources: &[Place], target: &Place) -> Relation {
        let relations = sources.iter().map(|source| source.relation_to(target));
        // Of two that are equally near, the one that is known: nothing that is found out later makes it better.
        let nearest = relations.min_by_key(|relation| (relation.nearness, relation.doubt.is_some()));
        nearest.unwrap_or_else(|| Relation {
            nearness: Nearness::SameDisk,
            doubt: Some("there is nothing to compare with".to_owned()),
        })
    }

    fn doubt(&mut self, doubt: impl Into<String>) {
        let doubt = doubt.into();
        if !self.doubts.contains(&doubt) {
            self.doubts.push(doubt);
        }
    }

    fn pass(&mut self, through: impl Into<String>) {
        let through = through.into();
        if !self.through.contains(&through) {
            self.through.push(through);
        }
    }
}
