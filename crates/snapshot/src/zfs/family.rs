//! The dataset, its shells, and their snapshots.

use crate::error::Error;
use crate::id::Id;
use crate::provider::Handle;
use crate::zfs::command::Command;
use crate::zfs::parts;

/// The property that marks a snapshot as ours; its value is the id.
pub(super) const ID: &str = "snapback:id";
/// The property that marks a finished shell: the tree it was kept for is in a snapshot. Its value is that one's id.
pub(super) const SHELL: &str = "snapback:shell";
/// The property that marks a clone made by a switch; its value is the id of the tree that the switch left.
pub(super) const SWITCH: &str = "snapback:switch";

/// Behind the @.
pub(super) fn snapshot_name(id: Id) -> String {
    format!("snapback-{id}")
}

/// Where a switch leaves the former dataset. A sibling, so that it inherits the same properties.
pub(super) fn shell_name(dataset: &str, old: Id) -> String {
    format!("{dataset}.snapback-{old}")
}

fn shell_id(dataset: &str, name: &str) -> Option<Id> {
    name.strip_prefix(dataset)?.strip_prefix(".snapback-")?.parse().ok()
}

/// What the clone is called until it takes the dataset's place.
pub(super) fn next_name(dataset: &str, old: Id) -> String {
    format!("{dataset}.snapback-next-{old}")
}

/// What it is called while a snapshot is looked at through a clone.
pub(super) fn view_prefix(dataset: &str) -> String {
    format!("{dataset}.snapback-view-")
}

/// A snapshot of a member of the family, ours or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// Where it lies at present.
    pub(super) dataset: String,
    /// Behind the @.
    pub(super) name: String,
    /// For good.
    pub(super) guid: String,
    /// If we made it.
    pub(super) id: Option<Id>,
    /// Destroyed already, as soon as the last clone of it is gone.
    pub(super) is_doomed: bool,
    /// What it alone holds, in bytes.
    pub(super) used: u64,
    /// When it was made, in transactions of the pool.
    pub(super) transaction: u64,
}

impl Snapshot {
    pub(super) fn full(&self) -> String {
        format!("{}@{}", self.dataset, self.name)
    }
}

/// A dataset of the family: the live one, a shell, or a clone that is being switched to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// Its present name.
    pub(super) name: String,
    /// The snapshot it is a clone of.
    pub(super) origin: Option<String>,
    /// Whether it is mounted.
    pub(super) is_mounted: bool,
    /// Whether [`SHELL`] says that all of the tree left is in a snapshot.
    pub(super) is_complete: bool,
    /// The value of [`SWITCH`].
    pub(super) switch: Option<Id>,
    /// What the dataset holds that its snapshots do not, in bytes.
    pub(super) used_by_head: u64,
}

/// The dataset and all that switches made of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Family {
    /// The dataset itself; absent in the middle of a switch.
    pub(super) live: Option<Member>,
    /// What switches left.
    pub(super) shells: Vec<Member>,
    /// Clones on their way to become the live dataset.
    pub(super) next: Vec<Member>,
    /// Of all these, oldest first within a dataset.
    pub(super) snapshots: Vec<Snapshot>,
}

impl Family {
    /// Reads it.
    pub(super) fn read(command: &Command, dataset: &str) -> Result<Family, Error> {
        let names = match dataset.rsplit_once('/') {
            Some((parent, _)) => {
                let siblings = command.datasets(&["-d", "1", parent])?.into_iter().map(|(name, _)| name);
                let ours = format!("{dataset}.snapback-");
                siblings.filter(|name| name == dataset || name.starts_with(&ours)).collect()
            }
            // The pool's own dataset has no siblings.
            None => vec![dataset.to_owned()],
        };
        let mut family = Family::default();
        if names.is_empty() {
            return Ok(family);
        }
        let borrowed: Vec<&str> = names.iter().map(String::as_str).collect();
        let properties =
            format!("type,guid,used,usedbydataset,origin,mounted,defer_destroy,createtxg,{ID},{SHELL},{SWITCH}");
        let answers = command.get(&["-d", "1"], &properties, &borrowed)?;
        for name in &answers.names {
            let number = |property| answers.value(name, property).and_then(|value| value.parse().ok()).unwrap_or(0);
            let own_id = |property| answers.own_value(name, property).and_then(|value| value.parse::<Id>().ok());
            if let Some((of, snapshot)) = name.split_once('@') {
                let id = own_id(ID).filter(|id| snapshot == snapshot_name(*id));
                family.snapshots.push(Snapshot {
                    dataset: of.to_owned(),
                    name: snapshot.to_owned(),
                    guid: answers.value(name, "guid").unwrap_or_default().to_owned(),
                    id,
                    is_doomed: answers.value(name, "defer_destroy") == Some("on"),
                    used: number("used"),
                    transaction: number("createtxg"),
                });
                continue;
            }
            // Children are listed, too, and are none of ours.
            if !names.contains(name) {
                continue;
            }
            let member = Member {
                name: name.clone(),
                origin: answers.value(name, "origin").map(str::to_owned),
                is_mounted: answers.value(name, "mounted") == Some("yes"),
                is_complete: own_id(SHELL).is_some_and(|old| *name == shell_name(dataset, old)),
                switch: own_id(SWITCH),
                used_by_head: number("usedbydataset"),
            };
            if name == dataset {
                family.live = Some(member);
            } else if shell_id(dataset, name).is_some() {
                family.shells.push(member);
            } else if member.switch.is_some_and(|old| *name == next_name(dataset, old)) {
                family.next.push(member);
            }
        }
        family.snapshots.sort_by_key(|snapshot| snapshot.transaction);
        let known: Vec<String> = family.members().map(|member| member.name.clone()).collect();
        family.snapshots.retain(|snapshot| known.contains(&snapshot.dataset));
        Ok(family)
    }

    /// All datasets.
    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.live.iter().chain(&self.shells).chain(&self.next)
    }

    /// The dataset of this name.
    pub(super) fn member(&self, name: &str) -> Option<&Member> {
        self.members().find(|member| member.name == name)
    }

    /// The snapshot that a handle means; `None` if it is gone. Refused if another one has taken its name, or if it is
    /// of another dataset than `live`.
    pub(super) fn find(&self, live: &str, handle: &Handle) -> Result<Option<&Snapshot>, Error> {
        let (dataset, name, guid) = parts(handle)?;
        let mut same_name = self.snapshots.iter().filter(|snapshot| snapshot.name == name).peekable();
        let other = same_name.peek().map(|snapshot| snapshot.full());
        if let Some(found) = same_name.find(|snapshot| snapshot.guid == guid) {
            return Ok(Some(found));
        }
        if let Some(other) = other {
            return Err(Error::refused(format!(
                "{other} is another snapshot than the one meant: its guid is not {guid}"
            )));
        }
        if dataset != live {
            return Err(Error::refused(format!("{dataset}@{name} is not a snapshot of {live}")));
        }
        Ok(None)
    }

    /// The snapshots of a dataset, oldest first.
    pub(super) fn snapshots_of<'a>(&'a self, dataset: &'a str) -> impl DoubleEndedIterator<Item = &'a Snapshot> {
        self.snapshots.iter().filter(move |snapshot| snapshot.dataset == dataset)
    }

    /// Whether no snapshot of the same dataset is newer.
    pub(super) fn is_newest(&self, snapshot: &Snapshot) -> bool {
        self.snapshots_of(&snapshot.dataset).next_back() == Some(snapshot)
    }
}
