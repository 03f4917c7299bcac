//! What is done by the clock, and by which name it is remembered.

use std::fmt;

use policy::schedule::Schedule;

/// A thing that is done again and again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Task {
    /// Snapshots that have had their time are deleted.
    Expire,
    /// A snapshot of a project.
    Snapshot {
        /// Of which.
        project: String,
        /// Which plan wants it.
        plan: String,
    },
    /// A backup of a project to one repository, so that one that cannot be reached holds up no other.
    Backup {
        /// Of which.
        project: String,
        /// Which plan wants it.
        plan: String,
        /// Where to.
        repository: String,
    },
    /// A repository is looked through.
    Check {
        /// Which.
        repository: String,
        /// Which plan wants it.
        plan: String,
    },
}

impl Task {
    /// The project, of which one task runs at a time.
    pub fn project(&self) -> Option<&str> {
        match self {
            Self::Snapshot { project, .. } | Self::Backup { project, .. } => Some(project),
            Self::Expire | Self::Check { .. } => None,
        }
    }

    /// The repository it works with.
    pub fn repository(&self) -> Option<&str> {
        match self {
            Self::Backup { repository, .. } | Self::Check { repository, .. } => Some(repository),
            Self::Expire | Self::Snapshot { .. } => None,
        }
    }

    /// The plan that wants it.
    pub fn plan(&self) -> Option<&str> {
        match self {
            Self::Snapshot { plan, .. } | Self::Backup { plan, .. } | Self::Check { plan, .. } => Some(plan),
            Self::Expire => None,
        }
    }

    /// One word for what is done.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Expire => "expire",
            Self::Snapshot { .. } => "snapshot",
            Self::Backup { .. } => "backup",
            Self::Check { .. } => "check",
        }
    }

    /// The name it is remembered by. Names of projects, plans and repositories have no slash.
    pub fn key(&self) -> String {
        let names = [self.project(), self.plan(), self.repository()];
        std::iter::once(self.kind()).chain(names.into_iter().flatten()).collect::<Vec<_>>().join("/")
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expire => f.write_str("expiry of snapshots"),
            Self::Snapshot { project, .. } => write!(f, "{project}: snapshot"),
            Self::Backup { project, repository, .. } => write!(f, "{project}: backup to {repository}"),
            Self::Check { repository, .. } => write!(f, "{repository}: check"),
        }
    }
}

/// A task and its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// What.
    pub task: Task,
    /// When.
    pub schedule: Schedule,
    /// What makes it begin at another time than the same task of another machine, where its schedule is spread.
    pub seed: String,
}
