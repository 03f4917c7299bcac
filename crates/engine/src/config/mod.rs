//! What a person wrote down: repositories, plans, and projects, in one TOML file.
//!
//! The invariant: a [`Config`] makes sense as a whole. Every plan and repository that is named exists, every path is
//! absolute, every pattern can be used, and no path belongs to two projects. Whatever does not fit is an [`Issue`] that
//! names file, line and the fix, and all that a file has are told at once.
//!
//! Does not know of what is done with it, nor where the file lies: whoever calls says so, and says which directory `~`
//! stands for. Secrets are never in the file, only where they are found.

mod check;
mod database;
mod decode;
mod issue;
mod keys;
mod named;
mod schema;
mod section;
#[cfg(test)]
mod tests;
mod value;
mod words;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::civil::{Time, Weekday};
use policy::{Keep, Span};
use workload::address::Login;

pub use issue::{ConfigError, Issue, Place};
pub use schema::schema;
pub use value::{Percentage, Rate};
pub use words::split_words;

/// All that a configuration file says. The maps go by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// The file.
    pub path: PathBuf,
    /// Where backups lie.
    pub repositories: BTreeMap<String, Repository>,
    /// When what is done, and how long it is kept.
    pub plans: BTreeMap<String, Plan>,
    /// What is protected.
    pub projects: BTreeMap<String, Project>,
    /// `[net] directory`: where local backups lie that stand in for snapshots.
    pub net_directory: Option<PathBuf>,
    /// What is no error, but was hardly meant.
    pub warnings: Vec<Issue>,
}

/// `[repository.NAME]`
#[derive(Clone, Debug, PartialEq)]
pub struct Repository {
    /// Its name.
    pub name: String,
    /// A directory, or a scheme and what it takes.
    pub url: String,
    /// Where its password is found.
    pub password: PasswordSource,
    /// `limit-upload`: no more than this is written to it.
    pub limit_upload: Option<Rate>,
    /// `limit-download`: no more than this is read from it.
    pub limit_download: Option<Rate>,
    /// `low-priority`: jobs give way to whatever else wants processor and disk.
    pub low_priority: bool,
    /// How often a job that the repository failed is tried again.
    pub retries: u32,
    /// `append-only`: nobody on this machine can delete from it. Somebody says so; nobody here can see it.
    pub append_only: bool,
    /// `offline`: it is connected only for a backup. Somebody says so.
    pub offline: bool,
}

/// Where a password is found; never the password itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordSource {
    /// `password-file`: the first line of this file, or all of it. Absolute.
    File(PathBuf),
    /// `password-command`: what this program prints. The words, the program first.
    Command(Vec<String>),
    /// `password-env`: the value of this variable.
    Environment(String),
    /// `password-credential`: the file of this name in systemd's `$CREDENTIALS_DIRECTORY` (systemd.exec(5),
    /// "Credentials").
    Credential(String),
}

/// `[plan.NAME]`
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// Backups by the clock.
    pub backup: Option<BackupPlan>,
    /// Snapshots by the clock.
    pub snapshot: Option<SnapshotPlan>,
    /// Which backups stay. With no rule, all do.
    pub keep: Keep,
    /// Repositories that are looked through by the clock.
    pub check: Option<CheckPlan>,
    /// `min-depth`: no rule removes a backup that is younger.
    pub min_depth: Span,
}

/// When something is due: in the machine's local time, or so long after it was last done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Timing {
    /// `at`: at each of these times. Never empty.
    At(Vec<At>),
    /// `every`: at least a minute.
    Every(Duration),
}

/// A time of day on some days of the week, such as `02:30` or `sat,sun 04:00`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// Sorted from Monday on; never empty.
    pub days: Vec<Weekday>,
    /// The local time.
    pub time: Time,
}

/// `backup = { ... }` of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct BackupPlan {
    /// When.
    pub timing: Timing,
    /// Up to this much later, so that not all machines come at once.
    pub spread: Duration,
    /// Names of repositories, in the order of the file; never empty, none twice.
    pub to: Vec<String>,
    /// `full-walk`: after so many backups that looked only at what changed, one looks at everything. At least 1, which
    /// is every time.
    pub full_walk: u32,
}

/// `snapshot = { ... }` of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotPlan {
    /// When.
    pub timing: Timing,
    /// How long each lives.
    pub keep: Duration,
}

/// `check = { ... }` of a plan: of each repository that its backups go to.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckPlan {
    /// When.
    pub timing: Timing,
    /// `read-data`: so much of the data is read too, another part each time. Nothing if none.
    pub read_data: Option<Percentage>,
}

/// `[project.NAME]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// Its name; letters, digits and `-_.` alone.
    pub name: String,
    /// What it consists of: absolute, without `.` and `..`, none twice; never empty.
    pub paths: Vec<PathBuf>,
    /// Patterns of what no backup needs, as [`backup::patterns`] reads them.
    pub exclude: Vec<String>,
    /// `one-file-system`: backups stay on the file systems of the paths.
    pub one_file_system: bool,
    /// Units of systemd that are stopped before a rollback and started after it.
    pub units: Vec<String>,
    /// A shell command that succeeds when the project is well.
    pub probe: Option<String>,
    /// `probe-limit`: how long it may take until it is.
    pub probe_limit: Duration,
    /// Names of plans.
    pub plans: Vec<String>,
    /// Commands around each job.
    pub hooks: Hooks,
    /// How its snapshots are made.
    pub snapshot: SnapshotOptions,
    /// Its databases, by name.
    pub databases: BTreeMap<String, Database>,
}

/// `[project.NAME.database.NAME]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// Its name; letters, digits and `-_.` alone. It need not be the server's name of it.
    pub name: String,
    /// `url` and `password-file`. A server's address names a database if and only if not `all`.
    pub login: Login,
    /// Whether every backup has a dump of it.
    pub dump: bool,
    /// Every database of the server, with roles and grants.
    pub all: bool,
    /// A statement that proves it whole. It passed if there was no error, and the first value of the first row is there
    /// (some row, not NULL) and is neither empty, nor `0`, nor false (`f`, `false`). Never given together with `all`.
    pub query: Option<String>,
    /// Whether its writes are held for the moment of a snapshot.
    pub quiesce: bool,
}

/// `hooks = { ... }` of a project: shell commands, each run in turn with the job's facts in its environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// One that fails stops the job.
    pub before: Vec<String>,
    /// Run however the job ended, unless a `before` stopped it.
    pub after: Vec<String>,
}

/// `snapshot = { ... }` of a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotOptions {
    /// How long those live that somebody asked for without saying how long.
    pub expire: Duration,
    /// `keep-base`: the snapshot of a backup is kept until the next, which then looks only at what changed since.
    pub keep_base: bool,
}
