//! What a run does for a project: snapshots, backups into its repositories, and what keeps these in order.
//!
//! A backup: the project's lock; its `before` hooks; snapshots of all its volumes, taken together; one backup after the
//! other from them, each under the project's own paths and with dumps of its databases; retention and, when it pays, a prune of each repository; the
//! snapshots deleted, or kept as what the next backup is compared with; its `after` hooks.
//!
//! Invariants:
//! - One job of a project at a time ([`lock::ProjectLock`]), whoever asked for it.
//! - One repository that fails does not keep the others from their backup, and is told.
//! - Whenever the process is killed, nothing is lost but the work of this run: every step leaves what the next job of
//!   the project finds, uses, or removes.
//!
//! Does not know of schedules and terminals: whoever calls says when, shows, and is asked whether to go on.

mod archive;
mod backup_job;
mod base;
mod changed;
pub mod check;
mod dumps;
mod emptied;
mod error;
pub mod hooks;
pub mod lock;
mod notes;
pub mod priority;
mod prune;
mod retention;
pub mod snapshots;
mod source;
mod survey;
mod wait;
mod wanted;

use std::ffi::OsString;
use std::time::Duration;

use jiff::tz::TimeZone;
use repository::holder::Holder;
use repository::storage::limited::IsCancelled;
use snapshot::error::Error as SnapshotError;
use snapshot::state::{Lock, State};

pub use archive::tag;
pub use backup_job::{BackupRequest, Backups, Into, Made, Walk, back_up, destinations};
pub use dumps::MissingDump;
pub use error::Error;
pub use prune::Pruned;
pub use retention::Retained;

use crate::catalog::Recorder;
use crate::moment::Clock;
use crate::repositories::World;

/// What jobs need of the world.
pub struct Context<'a> {
    /// What is known of snapshots, and where jobs keep what they know.
    pub state: &'a State,
    /// Takes the lock on the snapshots, and finishes or takes back what was cut short.
    pub lock_snapshots: &'a (dyn Fn() -> Result<Lock, SnapshotError> + Sync),
    /// Who we are, in locks and records.
    pub holder: &'a Holder,
    /// What records are made by: "snapback 1.0".
    pub program: &'a str,
    /// In which times are written.
    pub zone: TimeZone,
    /// Tells the time.
    pub clock: &'a dyn Clock,
    /// The value of an environment variable.
    pub variable: &'a (dyn Fn(&str) -> Option<OsString> + Sync),
    /// Whether to end at the next step.
    pub is_cancelled: IsCancelled,
    /// How long to wait for whoever has a repository locked.
    pub patience: Duration,
    /// Look at everything, whatever is known of what changed.
    pub looks_at_everything: bool,
    /// Who watches.
    pub watch: &'a dyn Watch,
    /// Where jobs are recorded.
    pub recorder: &'a Recorder<'a>,
}

impl Context<'_> {
    fn is_cancelled(&self) -> bool {
        (self.is_cancelled)()
    }

    fn world(&self) -> World<'_> {
        World { variable: self.variable, is_cancelled: &self.is_cancelled }
    }
}

/// Watches one phase of a job.
pub trait Meter: backup::progress::Progress + repository::progress::Progress {}

impl<T: backup::progress::Progress + repository::progress::Progress> Meter for T {}

/// Watches jobs.
pub trait Watch: Sync {
    /// A phase begins: "shop to offsite". It ends when the meter is dropped.
    fn meter<'a>(&'a self, label: &str) -> Box<dyn Meter + 'a>;

    /// Something to know.
    fn say(&self, text: &str);

    /// Something to look at.
    fn warn(&self, text: &str);
}
