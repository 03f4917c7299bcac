//! What a project would survive.

use jiff::Timestamp;
use serde::Serialize;

use super::facts::{Exposure, Project, Repository};
use crate::place::Nearness;

/// What a project would survive, each with the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Survival {
    /// An update that breaks it: back to before, from a snapshot or a backup.
    pub bad_update: Verdict,
    /// Files that somebody deleted.
    pub deleted_files: Verdict,
    /// The disk, or the disks, that it lies on.
    pub dead_disk: Verdict,
    /// The machine: fire, theft, the provider.
    pub lost_server: Verdict,
    /// Somebody who is root on the machine, and deletes or encrypts what can be reached from it.
    pub malware: Verdict,
}

/// Whether it would survive something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The answer.
    pub answer: Answer,
    /// Because of what.
    pub why: String,
    /// To which point in time it would come back, the newest if there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Timestamp>,
}

/// Yes or no, or nobody knows, which is as good as no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It would not.
    No,
    /// Perhaps.
    Unknown,
    /// It would.
    Yes,
}

/// Judges.
pub(super) fn survival(project: &Project) -> Survival {
    let from_backups = |judge: &dyn Fn(&Repository) -> (Answer, String)| best(&project.repositories, judge);
    let any = from_backups(&|_| (Answer::Yes, " has a backup".to_owned()));
    let back = match (project.snapshots.newest, any.as_of) {
        (Some(made), backed_up) if backed_up.is_none_or(|other| made >= other) => {
            Verdict { answer: Answer::Yes, why: "there is a snapshot".to_owned(), as_of: Some(made) }
        }
        (None, None) => Verdict { why: "there is neither a snapshot nor a backup".to_owned(), ..any },
        _ => any,
    };
    Survival {
        bad_update: back.clone(),
        deleted_files: back,
        dead_disk: from_backups(&on_other_disk),
        lost_server: from_backups(&on_other_machine),
        malware: from_backups(&|repository| match repository.exposure {
            Exposure::AppendOnly => (Answer::Yes, " takes additions only, as configured".to_owned()),
            // What is connected now is within reach, whatever somebody meant.
            Exposure::Offline if repository.unreachable.is_none() => {
                (Answer::Unknown, " is connected just now, though configured as offline".to_owned())
            }
            Exposure::Offline => (Answer::Yes, " is offline, as configured".to_owned()),
            Exposure::Full => (Answer::No, " can be deleted from this machine".to_owned()),
        }),
    }
}

fn on_other_disk(repository: &Repository) -> (Answer, String) {
    match (repository.relation.nearness, &repository.relation.doubt) {
        (_, Some(doubt)) => (Answer::Unknown, format!(" may lie on the same disk: {doubt}")),
        (Nearness::SameFilesystem, None) => (Answer::No, " lies in the same file system".to_owned()),
        (Nearness::SameDisk, None) => (Answer::No, " lies on the same disk".to_owned()),
        (Nearness::SameMachine, None) => (Answer::Yes, " lies on another disk".to_owned()),
        (Nearness::Elsewhere, None) => (Answer::Yes, " lies on another machine".to_owned()),
    }
}

fn on_other_machine(repository: &Repository) -> (Answer, String) {
    match (repository.relation.nearness, &repository.relation.doubt) {
        (Nearness::Elsewhere, None) => (Answer::Yes, " lies on another machine".to_owned()),
        (Nearness::Elsewhere, Some(doubt)) => (Answer::Unknown, format!(" may lie on this machine: {doubt}")),
        _ => (Answer::No, " lies on this machine".to_owned()),
    }
}

/// The best that one of the repositories gives, and of equal ones the newest. One without backups gives nothing, nor
/// does one in memory.
fn best(repositories: &[Repository], judge: &dyn Fn(&Repository) -> (Answer, String)) -> Verdict {
    let mut found = Verdict { answer: Answer::No, why: "there is no backup".to_owned(), as_of: None };
    for repository in repositories {
        let Some(newest) = repository.newest.filter(|_| repository.backups > 0) else { continue };
        let (answer, why) = match repository.is_in_memory {
            true => (Answer::No, " lies in memory".to_owned()),
            false => judge(repository),
        };
        let as_of = (answer != Answer::No).then_some(newest);
        if found.why == "there is no backup" || (answer, as_of) > (found.answer, found.as_of) {
            found = Verdict { answer, why: format!("the repository {}{why}", repository.name), as_of };
        }
    }
    found
}
