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
    /// Units that are to be stopped, and are running.
    pub running: Vec<String>,
    /// Units to restart after the switch.
    pub restart: Vec<String>,
    /// A command that must succeed after the switch.
    pub probe: Vec<String>,
    /// Within so many seconds.
    pub probe_secs: u64,
    /// The id the present state is kept under.
    pub safety: Id,
    /// When expiry may delete the present state.
    pub safety_expires: Option<Timestamp>,
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

/// What will be done, in the order of the fields of the second half; and what to know before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The snapshot to go back to.
    pub to: Id,
    /// Where it lies.
    pub handle: Handle,
    /// The live directory.
    pub directory: PathBuf,
    /// Why it will not be done; empty if it can.
    pub refusals: Vec<Refusal>,
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

    /// Units that are stopped, and started again afterwards.
    pub stop: Vec<String>,
    /// The name of the present state.
    pub safety: Id,
    /// When expiry may delete it.
    pub safety_expires: Option<Timestamp>,
    /// Whether the present state is kept by a snapshot that is made first. Else the switch keeps it.
    pub is_safety_made: bool,
    /// The provider's steps.
    pub switch: Vec<Step>,
    /// Locks that are removed before units are started: whoever held them did so when the snapshot was made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stale: Vec<PathBuf>,
    /// Units that are restarted, for they held the tree and were not stopped.
    pub restart: Vec<String>,
    /// A command that must succeed, or all is taken back; none if empty.
    pub probe: Vec<String>,
    /// Within so many seconds.
    pub probe_secs: u64,
}

/// Decides.
pub fn plan(facts: Facts) -> Result<Plan, Refusal> {
    let Some(handle) = facts.snapshot.handle.clone() else {
        return Err(Refusal::new(format!("snapshot {} was never finished", facts.snapshot.id)));
    };
    let mut refusals = Vec::new();
    if let Some(change) = &facts.under_way {
        let message = format!("a {change} of {} is not finished", facts.snapshot.directory.display());
        refusals.push(
            Refusal::new(message)
                .or("whatever changes something finishes or reverts it first, such as: snapback snapshot expire"),
        );
    }
    if !facts.is_there {
        let message = format!("snapshot {} is gone: it no longer lies where it was made", facts.snapshot.id);
        refusals.push(Refusal::new(message).or("choose another: snapback snapshot list"));
    }
    if facts.is_state_inside {
        let message = "what Snapback knows lies in the tree that would be rolled back, and would be rolled back, too";
        refusals.push(Refusal::new(message).or("move the state directory to another place: --state DIR"));
    }
    let switch = match facts.switch {
        Ok(steps) => steps,
        Err(refusal) => {
            refusals.push(refusal);
            Vec::new()
        }
    };
    let is_stopped = |holder: &&Holder| holder.unit.as_ref().is_some_and(|unit| facts.running.contains(unit));
    // A mount in another namespace goes with ours if it came from it, and else does not hinder that ours goes.
    let is_in_the_way = |holder: &&Holder| holder.holds.iter().any(|hold| hold.by != By::Mount) && !is_stopped(holder);
    let mut remaining = facts.holders.iter().filter(is_in_the_way).peekable();
    if !facts.abilities.switches_live && remaining.peek().is_some() {
        let who: Vec<String> = remaining.map(Holder::to_string).collect();
        let message = format!("the directory has to be unmounted for the switch, and is in use by {}", who.join(", "));
        refusals.push(Refusal::new(message).or("end them, or name their units to be stopped: --stop UNIT"));
    }
    Ok(Plan {
        to: facts.snapshot.id,
        handle,
        directory: facts.snapshot.directory,
        refusals,
        losses: facts.losses,
        mounts_below: facts.mounts_below,
        holders: facts.holders,
        is_snapshot_used_up: !facts.abilities.keeps_snapshot,
        old: facts.live,
        stop: facts.running,
        safety: facts.safety,
        safety_expires: facts.safety_expires,
        is_safety_made: !facts.abilities.keeps_old_tree,
        switch,
        stale: facts.stale,
        restart: facts.restart,
        probe: facts.probe,
        probe_secs: facts.probe_secs,
    })
}

impl Plan {
    /// What is done, one line each, in this order.
    pub fn steps(&self) -> Vec<String> {
        let mut steps: Vec<String> = self.stop.iter().map(|unit| format!("stop {unit}")).collect();
        if self.is_safety_made {
            steps.push(format!("keep the present state as {}", self.safety));
        }
        steps.extend(self.switch.iter().map(|step| step.name.clone()));
        steps.extend(self.stale.iter().map(|path| format!("remove the stale {}", path.display())));
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
        Facts {
            snapshot,
            is_there: true,
            abilities,
            switch: Ok(vec![Step { name: "exchange".to_owned(), arguments: serde_json::Value::Null }]),
            mounts_below: Vec::new(),
            live: Tree::Device(0, 1),
            holders: Vec::new(),
            running: vec!["shop.service".to_owned()],
            restart: vec!["web.service".to_owned()],
            probe: vec!["curl".to_owned(), "localhost".to_owned()],
            probe_secs: 30,
            safety: "00000000000b".parse().unwrap(),
            safety_expires: None,
            losses: None,
            stale: Vec::new(),
            is_state_inside: false,
            under_way: None,
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
        facts.holders = vec![
            holder(Some("shop.service"), By::Descriptor(3)),
            holder(Some("other.service"), By::Mount),
            holder(None, By::WorkingDirectory),
        ];
        let refusals = plan(facts.clone()).unwrap().refusals;
        let message = "the directory has to be unmounted for the switch, and is in use by vi x (process 7)";
        assert_eq!(refusals.iter().map(|refusal| refusal.message.as_str()).collect::<Vec<_>>(), [message]);
        facts.abilities.switches_live = true;
        assert_eq!(plan(facts).unwrap().refusals, []);
    }

    #[test]
    fn all_that_stands_against_it_is_told_at_once() {
        let mut facts = facts();
        facts.is_there = false;
        facts.is_state_inside = true;
        facts.under_way = Some("adoption".to_owned());
        facts.switch = Err(Refusal::new("the top level cannot be exchanged"));
        assert_eq!(plan(facts).unwrap().refusals.len(), 4);
    }
}
