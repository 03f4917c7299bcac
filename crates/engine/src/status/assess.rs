//! From facts to a judgement: pure.

use std::path::PathBuf;

use jiff::Timestamp;
use policy::Forecast;
use serde::Serialize;

use super::attention::{self, OVERDUE_AFTER};
pub use super::attention::{About, Attention};
use super::facts::{self, Database, Facts, Guard, Repository, Snapshots, Task};
use super::survival::{self, Survival};

/// How well all is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// As of when.
    pub now: Timestamp,
    /// Nothing needs attention.
    pub is_well: bool,
    /// Project by project.
    pub projects: Vec<Project>,
    /// The file systems they and their repositories lie on.
    pub filesystems: Vec<Filesystem>,
    /// What needs attention, and is not of one project.
    pub attention: Vec<Attention>,
}

/// How well a project is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Project {
    /// Its name.
    pub name: String,
    /// What it consists of.
    pub paths: Vec<PathBuf>,
    /// What it would survive.
    pub survives: Survival,
    /// Its snapshots.
    pub snapshots: Snapshots,
    /// How fast the live tree moves away from them, in bytes a day.
    pub growth_per_day: Option<u64>,
    /// Its repositories.
    pub backups: Vec<Repository>,
    /// What comes next, soonest first.
    pub next: Vec<Next>,
    /// Guards that have not ended.
    pub guards: Vec<Guard>,
    /// Its databases, and what was last proven of each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<Database>,
    /// What needs attention.
    pub attention: Vec<Attention>,
}

/// A run to come.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Next {
    /// Which.
    #[serde(flatten)]
    pub task: Task,
    /// It should have begun long ago.
    pub is_overdue: bool,
}

/// How full a file system is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Filesystem {
    /// What is known of it.
    #[serde(flatten)]
    pub facts: facts::Filesystem,
    /// When it will be full; `None` if it does not fill, or nobody knows.
    pub full_at: Option<Timestamp>,
    /// By how much it fills, in bytes a day.
    pub fills_per_day: Option<u64>,
}

/// A snapshot of minutes ago says nothing about a day.
const LEAST_FOR_GROWTH_SECS: i64 = 3600;

/// Judges.
pub fn assess(facts: &Facts, now: Timestamp) -> Status {
    let projects: Vec<Project> = facts.projects.iter().map(|project| of_project(project, facts, now)).collect();
    let mut attention = attention::of_machine(facts);
    attention.extend(facts.filesystems.iter().filter_map(|filesystem| attention::of_filesystem(filesystem, now)));
    let is_well = attention.is_empty() && projects.iter().all(|project| project.attention.is_empty());
    let filesystems = facts.filesystems.iter().map(of_filesystem).collect();
    Status { now, is_well, projects, filesystems, attention }
}

fn of_project(project: &facts::Project, facts: &Facts, now: Timestamp) -> Project {
    let survives = survival::survival(project);
    let mut next: Vec<Next> = project.tasks.iter().map(|task| of_task(task, now)).collect();
    next.sort_by_key(|next| (!next.task.is_running, next.task.due.unwrap_or(Timestamp::MAX), next.task.kind));
    Project {
        name: project.name.clone(),
        paths: project.paths.clone(),
        attention: attention::of_project(project, &survives, facts, now),
        survives,
        growth_per_day: project.snapshots.growth.and_then(|growth| per_day(growth, now)),
        snapshots: project.snapshots.clone(),
        backups: project.repositories.clone(),
        next,
        guards: project.guards.clone(),
        databases: project.databases.clone(),
    }
}

fn of_task(task: &Task, now: Timestamp) -> Next {
    let is_overdue = !task.is_running && task.due.is_some_and(|due| now.duration_since(due) > OVERDUE_AFTER);
    Next { task: task.clone(), is_overdue }
}

fn of_filesystem(filesystem: &facts::Filesystem) -> Filesystem {
    let (full_at, fills_per_day) = match filesystem.forecast {
        Some(Forecast::Full { at, per_day }) => (Some(at), Some(per_day as u64)),
        _ => (None, None),
    };
    Filesystem { facts: filesystem.clone(), full_at, fills_per_day }
}

fn per_day(growth: facts::Growth, now: Timestamp) -> Option<u64> {
    let secs = now.duration_since(growth.since).as_secs();
    (secs >= LEAST_FOR_GROWTH_SECS).then(|| (growth.bytes as f64 * 86_400.0 / secs as f64) as u64)
}
