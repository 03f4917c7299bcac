//! What a rollback will do, decided from facts alone.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::changes::Summary;
use crate::holders::{By, Holder, Tree};
use crate::id::Id;
use crate::provider::{Abilities, Handle, Step};
use crate::record::Record;

/// All that a plan depends on.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Of each directory that goes back, in the order in which they do.
    pub directories: Vec<OfDirectory>,
    /// Units that are to be stopped, and are running.
    pub running: Vec<String>,
    /// Units to restart after the switch.
    pub restart: Vec<String>,
    /// A command that must succeed after the switch.
    pub probe: Vec<String>,
    /// Within so many seconds.
    pub probe_secs: u64,
    /// When expiry may delete the present state.
    pub safety_expires: Option<Timestamp>,
}

/// What a plan depends on of one directory.
#[derive(Clone, Debug)]
pub struct OfDirectory {
    /// The snapshot to go back to.
    pub snapshot: Record,
    /// Whether it still lies where its record says.
    pub is_there: bool,
    /// What the mechanism can do.
    pub abilities: Abilities,
    /// The provider's steps, or why it has none.
    pub switch: Result<Vec<Step>, Refusal>,
    /// Mounts below the directory.
    pub mounts_below: Vec<PathBuf>,
    /// How the live tree is told from others.
    pub live: Tree,
    /// Who holds the live tree.
    pub holders: Vec<Holder>,
    /// The id the present state is kept under.
    pub safety: Id,
    /// What differs between the snapshot and the live tree, and so will be lost, if somebody looked.
    pub losses: Option<Summary>,
    /// Locks that processes left in the snapshot, relative to the directory.
    pub stale: Vec<PathBuf>,
    /// Whether the state directory lies in the tree that would be switched.
    pub is_state_inside: bool,
    /// What other change of the directory is under way: "adoption".
    pub under_way: Option<String>,
}

/// Why it cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What stands against it.
    pub message: String,
    /// The way out.
    pub hint: Option<String>,
}

/// What will be done to all directories together, and what to know before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The directories, in the order in which they are switched; at least one.
    pub parts: Vec<Part>,
    /// Why it will not be done; empty if it can.
    pub refusals: Vec<Refusal>,
    /// Units that are stopped before, and started again afterwards.
    pub stop: Vec<String>,
    /// When expiry may delete the present state, which is kept.
    pub safety_expires: Option<Timestamp>,
    /// Units that are restarted, for they held the tree and were not stopped.
    pub restart: Vec<String>,
    /// A command that must succeed, or all is taken back; none if empty.
    pub probe: Vec<String>,
    /// Within so many seconds.
    pub probe_secs: u64,
}

/// What will be done to one directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The snapshot to go back to.
    pub to: Id,
    /// Where it lies.
    pub handle: Handle,
    /// The live directory.
    pub directory: PathBuf,
    /// What will be lost; `None` if nobody looked.
    pub losses: Option<Summary>,
    /// Mounts below the directory, which stay as they are.
    pub mounts_below: Vec<PathBuf>,
    /// Who holds the live tree, and would go on with the old one.
    pub holders: Vec<Holder>,
    /// The snapshot itself becomes the live tree, and is no more.
    pub is_snapshot_used_up: bool,
    /// How the old tree is told from others.
    pub old: Tree,
    /// The name of the present state.
    pub safety: Id,
    /// Whether the present state is kept by a snapshot that is made first. Else the switch keeps it.
    pub is_safety_made: bool,
    /// The provider's steps.
    pub switch: Vec<Step>,
    /// Locks that are removed before units are started: whoever held them did so when the snapshot was made. Relative to
    /// the directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stale: Vec<PathBuf>,
}

/// Decides.
pub fn plan(facts: Facts) -> Result<Plan, Refusal> {
    let mut refusals = inside_of_each_other(&facts.directories);
    let mut parts = Vec::new();
    for of in facts.directories {
        refusals.extend(against(&of, &facts.running));
        let Some(handle) = of.snapshot.handle else {
            return Err(Refusal::new(format!("snapshot {} was never finished", of.snapshot.id)));
        };
        let switch = match of.switch {
            Ok(steps) => steps,
            Err(refusal) => {
                refusals.push(refusal);
                Vec::new()
            }
        };
        parts.push(Part {
            to: of.snapshot.id,
            handle,
            directory: of.snapshot.directory,
            losses: of.losses,
            mounts_below: of.mounts_below,
            holders: of.holders,
            is_snapshot_used_up: !of.abilities.keeps_snapshot,
            old: of.live,
            safety: of.safety,
            is_safety_made: !of.abilities.keeps_old_tree,
            switch,
            stale: of.stale,
        });
    }
    if parts.is_empty() {
        return Err(Refusal::new("there is nothing to roll back"));
    }
    let Facts { running, restart, probe, probe_secs, safety_expires, .. } = facts;
    Ok(Plan { parts, refusals, stop: running, safety_expires, restart, probe, probe_secs })
}

/// What stands against it of one directory, but for the switch itself.
fn against(of: &OfDirectory, running: &[String]) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    if let Some(change) = &of.under_way {
        let message = format!("a {change} of {} is not finished", of.snapshot.directory.display());
        refusals.push(
            Refusal::new(message)
                .or("whatever changes something finishes or reverts it first, such as: snapback snapshot expire"),
        );
    }
    if !of.is_there {
        let message = format!("snapshot {} is gone: it no longer lies where it was made", of.snapshot.id);
        refusals.push(Refusal::new(message).or("choose another: snapback snapshot list"));
    }
    if of.is_state_inside {
        let message = "what Snapback knows lies in the tree that would be rolled back, and would be rolled back, too";
        refusals.push(Refusal::new(message).or("move the state directory to another place: --state-dir DIR"));
    }
    let is_stopped = |holder: &&Holder| holder.unit.as_ref().is_some_and(|unit| running.contains(unit));
    // A mount in another namespace goes with ours if it came from it, and else does not hinder that ours goes.
    let is_in_the_way = |holder: &&Holder| holder.holds.iter().any(|hold| hold.by != By::Mount) && !is_stopped(holder);
    let mut remaining = of.holders.iter().filter(is_in_the_way).peekable();
    if !of.abilities.switches_live && remaining.peek().is_some() {
        let who: Vec<String> = remaining.map(Holder::to_string).collect();
        let message = format!("the directory has to be unmounted for the switch, and is in use by {}", who.join(", "));
        refusals.push(Refusal::new(message).or("end them, or name their units to be stopped: --stop UNIT"));
    }
    refusals
}

/// The steps of one are planned before those of the other have moved what they are about.
fn inside_of_each_other(directories: &[OfDirectory]) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    for (number, inner) in directories.iter().enumerate() {
        let directory = &inner.snapshot.directory;
        let holds = |(other, outer): &(usize, &OfDirectory)| {
            *other != number && directory.starts_with(&outer.snapshot.directory)
        };
        if let Some((_, outer)) = directories.iter().enumerate().find(holds) {
            let (inner_id, outer_id) = (inner.snapshot.id, outer.snapshot.id);
            let outer = outer.snapshot.directory.display();
            let message = format!("{} lies in {outer}, and they cannot go back in one step", directory.display());
            let hint = format!("one after the other, the outer one first: {outer_id}, then {inner_id}, with --alone");
            refusals.push(Refusal::new(message).or(hint));
        }
    }
    refusals
}

impl Plan {
    /// The live directories.
    pub fn directories(&self) -> Vec<PathBuf> {
        self.parts.iter().map(|part| part.directory.clone()).collect()
    }

    /// What is done, one line each, in this order.
    pub fn steps(&self) -> Vec<String> {
        let of = |part: &Part, step: &str| match self.parts.len() {
            1 => step.to_owned(),
            _ => format!("{step} ({})", part.directory.display()),
        };
        let mut steps: Vec<String> = self.stop.iter().map(|unit| format!("stop {unit}")).collect();
        for part in self.parts.iter().filter(|part| part.is_safety_made) {
            steps.push(of(part, &format!("keep the present state as {}", part.safety)));
        }
        for part in &self.parts {
            steps.extend(part.switch.iter().map(|step| of(part, &step.name)));
        }
        for part in &self.parts {
            steps.extend(part.stale.iter().map(|path| of(part, &format!("remove the stale {}", path.display()))));
        }
        steps.extend(self.stop.iter().map(|unit| format!("start {unit}")));
        steps.extend(self.restart.iter().map(|unit| format!("restart {unit}")));
        if !self.probe.is_empty() {
            steps.push(format!("probe: {}", self.probe.join(" ")));
        }
        steps
    }
}

impl Refusal {
    /// Without a way out.
    pub fn new(message: impl Into<String>) -> Refusal {
        Refusal { message: message.into(), hint: None }
    }

    /// With the way out.
    #[must_use]
    pub fn or(self, hint: impl Into<String>) -> Refusal {
        Refusal { hint: Some(hint.into()), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::holders::Hold;
    use crate::record::Purpose;

    fn facts() -> Facts {
        let snapshot = Record {
            id: "00000000000a".parse().unwrap(),
            directory: PathBuf::from("/srv/shop"),
            created: Timestamp::UNIX_EPOCH,
            note: String::new(),
            expires: None,
            is_held: false,
            purpose: Purpose::Asked,
            handle: Some(Handle::Reflink { path: PathBuf::from("/srv/.snapback/a") }),
            project: None,
            group: None,
            old_tree: None,
            around: None,
        };
        let abilities = Abilities {
            is_atomic: true,
            switches_live: false,
            keeps_snapshot: true,
            keeps_old_tree: false,
            knows_changes: false,
            works_unprivileged: false,
            spares_state: false,
        };
        let of = OfDirectory {
            snapshot,
            is_there: true,
            abilities,
            switch: Ok(vec![Step { name: "exchange".to_owned(), arguments: serde_json::Value::Null }]),
            mounts_below: Vec::new(),
            live: Tree::Device(0, 1),
            holders: Vec::new(),
            safety: "00000000000b".parse().unwrap(),
            losses: None,
            stale: Vec::new(),
            is_state_inside: false,
            under_way: None,
        };
        Facts {
            directories: vec![of],
            running: vec!["shop.service".to_owned()],
            restart: vec!["web.service".to_owned()],
            probe: vec!["curl".to_owned(), "localhost".to_owned()],
            probe_secs: 30,
            safety_expires: None,
        }
    }

    fn holder(unit: Option<&str>, by: By) -> Holder {
        let holds = vec![Hold { by, path: PathBuf::from("/srv/shop/x") }];
        Holder { pid: 7, command: "vi x".to_owned(), unit: unit.map(str::to_owned), holds }
    }

    #[test]
    fn a_plan_says_what_is_done_in_its_order_and_survives_being_written() {
        let plan = plan(facts()).unwrap();
        let steps = [
            "stop shop.service",
            "keep the present state as 00000000000b",
            "exchange",
            "start shop.service",
            "restart web.service",
            "probe: curl localhost",
        ];
        assert_eq!(plan.steps(), steps);
        assert_eq!(plan.refusals, []);
        let written = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&written).unwrap(), plan);
    }

    #[test]
    fn who_is_in_the_way_of_unmounting_is_named_unless_stopped_first() {
        let mut facts = facts();
        facts.directories[0].holders = vec![
            holder(Some("shop.service"), By::Descriptor(3)),
            holder(Some("other.service"), By::Mount),
            holder(None, By::WorkingDirectory),
        ];
        let refusals = plan(facts.clone()).unwrap().refusals;
        let message = "the directory has to be unmounted for the switch, and is in use by vi x (process 7)";
        assert_eq!(refusals.iter().map(|refusal| refusal.message.as_str()).collect::<Vec<_>>(), [message]);
        facts.directories[0].abilities.switches_live = true;
        assert_eq!(plan(facts).unwrap().refusals, []);
    }

    #[test]
    fn all_that_stands_against_it_is_told_at_once() {
        let mut facts = facts();
        let of = &mut facts.directories[0];
        of.is_there = false;
        of.is_state_inside = true;
        of.under_way = Some("adoption".to_owned());
        of.switch = Err(Refusal::new("the top level cannot be exchanged"));
        assert_eq!(plan(facts).unwrap().refusals.len(), 4);
    }

    #[test]
    fn several_go_back_in_one_plan_in_which_units_are_stopped_once() {
        let mut facts = facts();
        let mut other = facts.directories[0].clone();
        other.snapshot.directory = PathBuf::from("/srv/shop2");
        other.safety = "00000000000c".parse().unwrap();
        facts.directories.push(other);
        let plan = plan(facts.clone()).unwrap();
        let steps = [
            "stop shop.service",
            "keep the present state as 00000000000b (/srv/shop)",
            "keep the present state as 00000000000c (/srv/shop2)",
            "exchange (/srv/shop)",
            "exchange (/srv/shop2)",
            "start shop.service",
            "restart web.service",
            "probe: curl localhost",
        ];
        assert_eq!((plan.steps(), &plan.refusals[..]), (steps.map(str::to_owned).to_vec(), &[][..]));
    }

    #[test]
    fn one_inside_of_another_does_not_go_back_together_with_it() {
        let mut facts = facts();
        let mut other = facts.directories[0].clone();
        other.snapshot.directory = PathBuf::from("/srv/shop/db");
        facts.directories.push(other);
        let refusals = plan(facts).unwrap().refusals;
        let message = "/srv/shop/db lies in /srv/shop, and they cannot go back in one step";
        assert_eq!(refusals.iter().map(|refusal| refusal.message.as_str()).collect::<Vec<_>>(), [message]);
    }
}
