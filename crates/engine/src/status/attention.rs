//! What somebody should do, each with the one command that begins it.

use jiff::{SignedDuration, Timestamp};
use policy::Forecast;
use serde::Serialize;

use super::facts::{Facts, Filesystem, GuardPhase, Project, Repository, Task, TaskKind};
use super::survival::{Answer, Survival};

/// Something that somebody should do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attention {
    /// What it is about.
    pub about: About,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub command: String,
}

/// What something is about, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum About {
    /// A guard waits, or nobody looks after it.
    Guard,
    /// A run failed.
    Failed,
    /// The newest backup lacks something.
    Incomplete,
    /// A repository cannot be reached.
    Unreachable,
    /// A run is overdue.
    Overdue,
    /// A run has never been.
    NeverRun,
    /// A disk is full, or will be.
    Space,
    /// There is no backup, or none that would help.
    Coverage,
    /// Nothing is planned.
    Plan,
    /// Nobody runs the plans.
    Daemon,
    /// Something could not be looked at.
    Unseen,
}

/// A run that is due begins within minutes; what is later than this does not begin by itself.
pub(super) const OVERDUE_AFTER: SignedDuration = SignedDuration::from_hours(1);
/// How long before a disk is full somebody should know.
const FULL_WITHIN: SignedDuration = SignedDuration::from_hours(14 * 24);
/// A part of a file system, and a size, below both of which it counts as full.
const FULL_PART: u64 = 20;
const FULL_BYTES: u64 = 5_000_000_000;

/// Of one project.
pub(super) fn of_project(project: &Project, survival: &Survival, facts: &Facts, now: Timestamp) -> Vec<Attention> {
    let mut found: Vec<Attention> = project.guards.iter().filter_map(of_guard).collect();
    found.extend(project.repositories.iter().filter_map(|repository| of_repository(repository, now)));
    let is_reached = |task: &&Task| {
        let of = |repository: &&Repository| Some(&repository.name) == task.repository.as_ref();
        project.repositories.iter().find(of).is_none_or(|repository| repository.unreachable.is_none())
    };
    // Why a run to a repository that cannot be reached failed is said already.
    found.extend(project.tasks.iter().filter(is_reached).filter_map(|task| of_task(project, task, now)));
    found.extend(project.repositories.iter().filter_map(|repository| of_incomplete(project, repository)));
    let runs_are_well = found.iter().all(|found| found.about == About::Guard);
    found.extend(of_coverage(project, survival, facts, runs_are_well));
    found.sort_by_key(|attention| attention.about);
    found
}

fn of_guard(guard: &super::facts::Guard) -> Option<Attention> {
    let about = About::Guard;
    let command = &guard.command;
    if guard.is_unwatched {
        let problem = format!("nobody looks after the guard {} around {command:?}", guard.id);
        return Some(Attention { about, problem, command: "snapback guard --resume".to_owned() });
    }
    let within = guard.remaining_secs.map(|secs| format!(" within {}", span(secs))).unwrap_or_default();
    (guard.phase == GuardPhase::Waiting).then(|| Attention {
        about,
        problem: format!("{command:?} is undone unless somebody confirms it{within}"),
        command: format!("snapback confirm {}", guard.id),
    })
}

fn of_repository(repository: &Repository, now: Timestamp) -> Option<Attention> {
    let unreachable = repository.unreachable.as_ref()?;
    let name = &repository.name;
    if unreachable.is_new {
        let problem = format!("there is no repository {name} yet");
        return Some(Attention {
            about: About::Unreachable,
            problem,
            command: format!("snapback repo init {}", repository.arguments),
        });
    }
    let since = unreachable.since.map(|since| format!(" for {}", past(since, now))).unwrap_or_default();
    Some(Attention {
        about: About::Unreachable,
        problem: format!("the repository {name} cannot be reached{since}: {}", unreachable.reason),
        command: format!("snapback repo check {}", repository.arguments),
    })
}

fn of_incomplete(project: &Project, repository: &Repository) -> Option<Attention> {
    let lacks = repository.lacks.as_ref()?;
    let problem = format!("the newest backup in {} is incomplete: {lacks}", repository.name);
    let command = format!("snapback backup {} --to {}", project.name, repository.name);
    Some(Attention { about: About::Incomplete, problem, command })
}

fn of_task(project: &Project, task: &Task, now: Timestamp) -> Option<Attention> {
    let Project { name: project, repositories, .. } = project;
    let (what, command) = match (task.kind, &task.repository) {
        (TaskKind::Snapshot, _) => ("the snapshot".to_owned(), format!("snapback snapshot create {project}")),
        (TaskKind::Backup, Some(to)) => (format!("the backup to {to}"), format!("snapback backup {project} --to {to}")),
        (TaskKind::Backup, None) => ("the backup".to_owned(), format!("snapback backup {project}")),
        (TaskKind::Check, of) => {
            let of = of.as_deref().unwrap_or_default();
            let arguments = repositories.iter().find(|known| known.name == of).map(|known| known.arguments.as_str());
            (format!("the check of {of}"), format!("snapback repo check {}", arguments.unwrap_or_default()))
        }
    };
    if let Some(failure) = &task.failure {
        let times = match failure.count {
            0 | 1 => format!("failed {} ago", past(failure.at, now)),
            count => format!("failed {count} times, first {} ago", past(failure.since, now)),
        };
        let problem = format!("{what} {times}: {}", failure.message.lines().next().unwrap_or_default());
        return Some(Attention { about: About::Failed, problem, command });
    }
    let late = task.due.filter(|due| !task.is_running && now.duration_since(*due) > OVERDUE_AFTER)?;
    Some(match task.last {
        Some(_) => {
            let problem = format!("{what} is overdue by {}", past(late, now));
            Attention { about: About::Overdue, problem, command }
        }
        None => Attention { about: About::NeverRun, problem: format!("{what} has never run"), command },
    })
}

/// What no run that goes well would mend: one thing, the first that is missing.
fn of_coverage(project: &Project, survival: &Survival, facts: &Facts, runs_are_well: bool) -> Option<Attention> {
    let about = About::Coverage;
    let name = &project.name;
    let config = facts.config.display();
    if project.repositories.is_empty() {
        let problem = "no plan backs it up".to_owned();
        return Some(Attention { about: About::Plan, problem, command: format!("sudoedit {config}") });
    }
    if let Some(memory) = project.repositories.iter().find(|repository| repository.is_in_memory) {
        let problem = format!("the repository {} lies in memory, and is gone with the power", memory.name);
        return Some(Attention { about, problem, command: format!("sudoedit {config}") });
    }
    if let Some(unlisted) = project.repositories.iter().find(|repository| repository.is_unlisted) {
        let problem = format!("the catalog does not know which backups {} has", unlisted.name);
        return Some(Attention { about: About::Unseen, problem, command: "snapback catalog rebuild".to_owned() });
    }
    let wants_snapshots = project.tasks.iter().any(|task| task.kind == TaskKind::Snapshot);
    if wants_snapshots && project.snapshots.mechanism.is_none() && project.snapshots.kept == 0 {
        let path = project.paths.first().map(|path| path.display().to_string()).unwrap_or_default();
        let problem = "its plan has snapshots, and where it lies there can be none".to_owned();
        return Some(Attention { about, problem, command: format!("snapback adopt {path}") });
    }
    let has_backup = project.repositories.iter().any(|repository| repository.backups > 0);
    if !has_backup {
        let problem = "there is no backup yet".to_owned();
        // That the first run failed, or is overdue, says as much.
        return runs_are_well.then(|| Attention { about, problem, command: format!("snapback backup {name}") });
    }
    let problem = match (survival.dead_disk.answer, survival.lost_server.answer) {
        (_, Answer::Yes) => return None,
        (Answer::Yes, _) => "no backup lies off this machine: add a repository elsewhere".to_owned(),
        (Answer::No, _) => "no backup lies off this disk: add a repository elsewhere".to_owned(),
        (Answer::Unknown, _) => format!("a dead disk may take the backups, too: {}", survival.dead_disk.why),
    };
    Some(Attention { about, problem, command: format!("sudoedit {config}") })
}

/// Of a file system that is, or will soon be, full.
pub(super) fn of_filesystem(filesystem: &Filesystem, now: Timestamp) -> Option<Attention> {
    let (point, about) = (filesystem.point.display(), About::Space);
    let holds = filesystem.holds.join(", ");
    // What gives room back: snapshots are gone soonest.
    let command = "snapback snapshot list".to_owned();
    if filesystem.free < (filesystem.total / FULL_PART).min(FULL_BYTES) {
        return Some(Attention { about, problem: format!("{point} is nearly full ({holds})"), command });
    }
    match filesystem.forecast {
        Some(Forecast::Full { at, .. }) if at.duration_since(now) < FULL_WITHIN => {
            let left = span(u64::try_from(at.duration_since(now).as_secs()).unwrap_or(0));
            Some(Attention { about, problem: format!("{point} will be full in {left} ({holds})"), command })
        }
        _ => None,
    }
}

/// Of all projects together.
pub(super) fn of_machine(facts: &Facts) -> Vec<Attention> {
    let mut found = Vec::new();
    if facts.is_served == Some(false) {
        let problem = "nobody runs the plans: snapback serve is not running".to_owned();
        let command = "systemctl enable --now snapback.service".to_owned();
        found.push(Attention { about: About::Daemon, problem, command });
    }
    if facts.projects.is_empty() {
        let problem = "no project is protected".to_owned();
        found.push(Attention { about: About::Plan, problem, command: "snapback protect DIR".to_owned() });
    }
    for unseen in &facts.unseen {
        found.push(Attention {
            about: About::Unseen,
            problem: unseen.clone(),
            command: "snapback catalog rebuild".to_owned(),
        });
    }
    found
}

fn past(since: Timestamp, now: Timestamp) -> String {
    span(u64::try_from(now.duration_since(since).as_secs()).unwrap_or(0))
}

/// `25 s`, `12 min`, `3 h`, `2 days`.
fn span(secs: u64) -> String {
    match secs {
        0..90 => format!("{secs} s"),
        90..5400 => format!("{} min", secs / 60),
        5400..172_800 => format!("{} h", secs / 3600),
        _ => format!("{} days", secs / 86_400),
    }
}
