//! What is known, without any judgement.

use std::path::PathBuf;

use jiff::Timestamp;
use policy::Forecast;
use serde::Serialize;
use snapshot::provider::Kind;

use crate::catalog::proofs::Proof;
use crate::place::{Place, Relation};

/// All that is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// The configuration file, for the commands that change it.
    pub config: PathBuf,
    /// What is protected.
    pub projects: Vec<Project>,
    /// File systems that hold projects, snapshots or repositories.
    pub filesystems: Vec<Filesystem>,
    /// Whether the daemon runs; `None` if it has nothing to do.
    pub is_served: Option<bool>,
    /// What could not be looked at, in words.
    pub unseen: Vec<String>,
}

/// A project.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Project {
    /// Its name.
    pub name: String,
    /// What it consists of.
    pub paths: Vec<PathBuf>,
    /// Where that lies, path by path.
    pub places: Vec<Place>,
    /// Its snapshots.
    pub snapshots: Snapshots,
    /// Its repositories, in the order of its plans.
    pub repositories: Vec<Repository>,
    /// What its plans say is to be done.
    pub tasks: Vec<Task>,
    /// Guards around it that have not ended.
    pub guards: Vec<Guard>,
    /// Its databases.
    pub databases: Vec<Database>,
}

/// A database of a project.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Database {
    /// Its name in the configuration.
    pub name: String,
    /// The last proof that a copy of it is whole, or that it is not.
    pub proof: Option<Proof>,
}

/// The snapshots of a project.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Snapshots {
    /// How they are made; `None` where there can be none.
    pub mechanism: Option<Kind>,
    /// How many are kept.
    pub kept: usize,
    /// When the newest was made.
    pub newest: Option<Timestamp>,
    /// When the next of them goes.
    pub next_expires: Option<Timestamp>,
    /// What was written since the oldest, if it can be told.
    pub growth: Option<Growth>,
}

/// What was written since a moment, and is kept twice because of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Growth {
    /// In bytes.
    pub bytes: u64,
    /// When the snapshot was made.
    pub since: Timestamp,
}

/// A repository of a project, with what is in it of that project.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Repository {
    /// Its name.
    pub name: String,
    /// Its address, without anything secret.
    pub url: String,
    /// What a command takes to be about it: `-r URL`, and where the password is found.
    #[serde(skip)]
    pub arguments: String,
    /// How near it is to the project.
    pub relation: Relation,
    /// It lies in memory, and is gone with the power.
    pub is_in_memory: bool,
    /// What somebody who owns this machine can do to it.
    pub exposure: Exposure,
    /// How many backups of the project are in it, as far as is known.
    pub backups: u64,
    /// There are some in it, but the catalog knows of none of any project: it was begun anew.
    pub is_unlisted: bool,
    /// When the newest of them was made.
    pub newest: Option<Timestamp>,
    /// What the newest lacks, if it is incomplete: no dump of a database.
    pub lacks: Option<String>,
    /// How much it takes altogether, with all projects, in bytes.
    pub size_bytes: Option<u64>,
    /// When it was last checked and found good.
    pub checked: Option<Timestamp>,
    /// It cannot be reached.
    pub unreachable: Option<Unreachable>,
}

/// What somebody who owns this machine can do to a repository, as the configuration says: from here nobody can see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exposure {
    /// Everything; or nobody knows.
    #[default]
    Full,
    /// Add to it, but not delete.
    AppendOnly,
    /// Nothing: it is connected only while somebody looks after it.
    Offline,
}

/// A repository that cannot be reached.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Unreachable {
    /// When it last could, or was first missed; `None` if it never could.
    pub since: Option<Timestamp>,
    /// Why.
    pub reason: String,
    /// There was never a repository.
    pub is_new: bool,
}

/// Something a plan says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Task {
    /// What is done.
    pub kind: TaskKind,
    /// With which repository.
    pub repository: Option<String>,
    /// When the last run began that went well.
    pub last: Option<Timestamp>,
    /// When it is due; past, if it is.
    pub due: Option<Timestamp>,
    /// It runs.
    pub is_running: bool,
    /// What went wrong since it last went well.
    pub failure: Option<Failure>,
}

/// What a plan lets do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskKind {
    /// A snapshot.
    Snapshot,
    /// A backup.
    Backup,
    /// A check of a repository.
    Check,
}

/// Runs that failed since the last one that went well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// How many.
    pub count: u32,
    /// When the first of them ended.
    pub since: Timestamp,
    /// When the last of them ended.
    pub at: Timestamp,
    /// What was wrong with it.
    pub message: String,
}

/// A guard that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Guard {
    /// Of its snapshot.
    pub id: String,
    /// What is run.
    pub command: String,
    /// What it waits for.
    pub phase: GuardPhase,
    /// How long until it goes back by itself.
    pub remaining_secs: Option<u64>,
    /// Nobody is there who would do that.
    pub is_unwatched: bool,
}

/// How far a guard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuardPhase {
    /// The command runs.
    Running,
    /// The command has ended, and nobody has confirmed.
    Waiting,
    /// It goes back.
    RollingBack,
}

/// A file system with something on it that must not be stopped by a full disk.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Filesystem {
    /// Where it is mounted.
    pub point: PathBuf,
    /// In bytes.
    pub total: u64,
    /// In bytes, for an ordinary user.
    pub free: u64,
    /// What is on it: names of projects and repositories.
    pub holds: Vec<String>,
    /// When it will be full.
    #[serde(skip)]
    pub forecast: Option<Forecast>,
}
