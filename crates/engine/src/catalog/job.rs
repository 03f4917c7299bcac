//! What was done, by whom, and how it ended.

use std::collections::HashSet;

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};
use snapshot::id::Id;

use super::columns::{self, millis, timestamp};
use super::{Catalog, Error};
use crate::process::Process;
use crate::redact;

columns::words! {
    /// What a job does.
    pub enum JobKind {
        /// A snapshot of a project.
        Snapshot = "snapshot",
        /// A backup into a repository.
        Backup = "backup",
        /// Backups, or snapshots, are removed by the rules of a plan.
        Retention = "retention",
        /// A repository gives back what nothing refers to.
        Prune = "prune",
        /// A repository is checked.
        Check = "check",
        /// A backup is restored to see that it can be.
        Drill = "drill",
        /// Files come back from a backup.
        Restore = "restore",
        /// A directory goes back to a snapshot.
        Rollback = "rollback",
        /// A risky command runs.
        Guard = "guard",
        /// What has had its time goes.
        Expire = "expire",
        /// Anything else.
        Other = "other",
    }
}

columns::words! {
    /// How a job ended.
    pub enum Outcome {
        /// As it should.
        Succeeded = "succeeded",
        /// A backup was made, without some of the files.
        Incomplete = "incomplete",
        /// It did not.
        Failed = "failed",
        /// Somebody stopped it.
        Cancelled = "cancelled",
        /// Whoever did it died.
        Interrupted = "interrupted",
    }
}

impl Outcome {
    /// Whether there is something to show for it.
    pub fn is_success(self) -> bool {
        matches!(self, Outcome::Succeeded | Outcome::Incomplete)
    }
}

/// What a job did, in numbers; those that do not apply are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Figures {
    /// Files that were looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Their bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Bytes that were stored for what is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub added_bytes: Option<u64>,
    /// Files that could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<u64>,
    /// Points in time that were removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removed: Option<u64>,
    /// Bytes that were given back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freed_bytes: Option<u64>,
}

/// A job. It is recorded when it begins and once more when it ends, each time whole, so that either record may be
/// missed: of a job that only its end is known of, everything is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Job {
    /// Its name.
    pub id: Id,
    /// What it does.
    pub kind: JobKind,
    /// For which project.
    pub project: Option<String>,
    /// With which repository, by its name in the configuration.
    pub repository: Option<String>,
    /// When it began.
    pub started: Timestamp,
    /// Who does it.
    pub process: Process,
    /// How it ended; `None` while it runs, or if whoever did it died.
    pub end: Option<End>,
}

/// The end of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct End {
    /// When. Of a job whose process died, when that was found.
    pub at: Timestamp,
    /// How.
    pub outcome: Outcome,
    /// What went wrong.
    pub error: Option<String>,
    /// The id of the snapshot or of the backup that was made.
    pub point: Option<String>,
    /// What was done.
    pub figures: Figures,
}

impl Job {
    /// One that begins now, done by this process.
    pub fn begin(
        kind: JobKind,
        project: Option<&str>,
        repository: Option<&str>,
        now: Timestamp,
    ) -> Result<Job, snapshot::error::Error> {
        Ok(Job {
            id: Id::random(),
            kind,
            project: project.map(str::to_owned),
            repository: repository.map(str::to_owned),
            started: now,
            process: Process::current()?,
            end: None,
        })
    }

    /// The same, ended.
    #[must_use]
    pub fn ended(self, at: Timestamp, outcome: Outcome) -> Job {
        let end = End { at, outcome, error: None, point: None, figures: Figures::default() };
        Job { end: Some(end), ..self }
    }

    /// The same, with what it did.
    #[must_use]
    pub fn with_figures(mut self, figures: Figures) -> Job {
        if let Some(end) = &mut self.end {
            end.figures = figures;
        }
        self
    }

    /// The same, with the id of what it made.
    #[must_use]
    pub fn with_point(mut self, point: impl ToString) -> Job {
        if let Some(end) = &mut self.end {
            end.point = Some(point.to_string());
        }
        self
    }

    /// The same, with what went wrong.
    #[must_use]
    pub fn with_error(mut self, error: impl ToString) -> Job {
        if let Some(end) = &mut self.end {
            end.error = Some(error.to_string());
        }
        self
    }
}

/// Which jobs are meant: those that agree in all that is said.
#[derive(Clone, Copy, Debug, Default)]
pub struct Task<'a> {
    /// Of this kind.
    pub kind: Option<JobKind>,
    /// For this project.
    pub project: Option<&'a str>,
    /// With this repository.
    pub repository: Option<&'a str>,
}

const COLUMNS: &str = "id, kind, project, repository, started, pid, process_start, boot, ended, outcome, error, point, \
                       figures";
const MEANT: &str = "(?1 IS NULL OR kind = ?1) AND (?2 IS NULL OR project = ?2) AND (?3 IS NULL OR repository = ?3)";

impl Catalog {
    /// Records a job as it is now: when it begins, and when it has ended.
    pub fn record_job(&self, job: &Job) -> Result<(), Error> {
        self.write(|connection| save(connection, job))
    }

    /// Jobs that have not ended and whose process is alive, oldest first.
    pub fn running_jobs(&self) -> Result<Vec<Job>, Error> {
        let mut jobs = self.read(unended)?;
        jobs.retain(|job| job.process.is_alive());
        Ok(jobs)
    }

    /// Jobs whose process died before they ended; they are recorded as interrupted, and given back.
    pub fn end_dead_jobs(&self, now: Timestamp) -> Result<Vec<Job>, Error> {
        let mut dead = self.read(unended)?;
        dead.retain(|job| !job.process.is_alive());
        if dead.is_empty() {
            return Ok(dead);
        }
        let dead: Vec<Job> = dead.into_iter().map(|job| job.ended(now, Outcome::Interrupted)).collect();
        self.write(|connection| {
            let mut ended = Vec::new();
            for job in &dead {
                // It may have written down its end just before it died.
                let text = "UPDATE jobs SET ended = ?2, outcome = ?3 WHERE id = ?1 AND outcome IS NULL";
                let what = params![job.id.to_string(), millis(now), Outcome::Interrupted.as_str()];
                if connection.execute(text, what)? > 0 {
                    ended.push(job.clone());
                }
            }
            Ok(ended)
        })
    }

    /// The newest jobs, newest first.
    pub fn jobs(&self, task: Task<'_>, at_most: u32) -> Result<Vec<Job>, Error> {
        let query = format!("SELECT {COLUMNS} FROM jobs WHERE {MEANT} ORDER BY started DESC, id DESC LIMIT ?4");
        self.read(|connection| {
            let kind = task.kind.map(JobKind::as_str);
            let mut statement = connection.prepare(&query)?;
            statement.query_map(params![kind, task.project, task.repository, at_most], from_row)?.collect()
        })
    }

    /// The newest job that there is something to show for.
    pub fn last_success(&self, task: Task<'_>) -> Result<Option<Job>, Error> {
        let query = format!(
            "SELECT {COLUMNS} FROM jobs WHERE {MEANT} AND outcome IN ('succeeded', 'incomplete') \
             ORDER BY started DESC, id DESC LIMIT 1"
        );
        self.read(|connection| {
            let kind = task.kind.map(JobKind::as_str);
            let mut statement = connection.prepare(&query)?;
            let mut found = statement.query_map(params![kind, task.project, task.repository], from_row)?;
            found.next().transpose()
        })
    }

    /// How many times in a row it has failed, or died, since it last went well. Those that somebody stopped do not count.
    pub fn failures_in_a_row(&self, task: Task<'_>) -> Result<u64, Error> {
        let query = format!(
            "SELECT count(*) FROM jobs WHERE {MEANT} AND outcome IN ('failed', 'interrupted') AND started > coalesce(\
             (SELECT max(started) FROM jobs WHERE {MEANT} AND outcome IN ('succeeded', 'incomplete')), -1 << 63)"
        );
        self.read(|connection| {
            let kind = task.kind.map(JobKind::as_str);
            let mut statement = connection.prepare(&query)?;
            statement.query_row(params![kind, task.project, task.repository], |row| row.get::<_, u64>(0))
        })
    }

    /// The ids of the backups in a repository that were made without some of the files.
    pub fn incomplete_points(&self, repository: &str) -> Result<HashSet<String>, Error> {
        self.read(|connection| {
            let query = "SELECT point FROM jobs WHERE point IS NOT NULL AND outcome = 'incomplete' AND repository = ?1";
            let mut statement = connection.prepare(query)?;
            statement.query_map([repository], |row| row.get(0))?.collect()
        })
    }
}

fn save(connection: &Connection, job: &Job) -> rusqlite::Result<()> {
    let end = job.end.as_ref();
    let figures = end.map(|end| serde_json::to_string(&end.figures).expect("numbers are always JSON"));
    let text = format!("INSERT OR REPLACE INTO jobs ({COLUMNS}) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13)");
    connection.prepare(&text)?.execute(params![
        job.id.to_string(),
        job.kind.as_str(),
        job.project,
        job.repository,
        millis(job.started),
        job.process.pid,
        job.process.start,
        job.process.boot,
        end.map(|end| millis(end.at)),
        end.map(|end| end.outcome.as_str()),
        end.and_then(|end| end.error.as_deref()).map(redact::text),
        end.and_then(|end| end.point.as_deref()),
        figures,
    ])?;
    Ok(())
}

fn unended(connection: &Connection) -> rusqlite::Result<Vec<Job>> {
    let query = format!("SELECT {COLUMNS} FROM jobs WHERE outcome IS NULL ORDER BY started, id");
    let mut statement = connection.prepare(&query)?;
    statement.query_map([], from_row)?.collect()
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Job> {
    let end = match row.get::<_, Option<String>>(9)? {
        None => None,
        Some(outcome) => Some(End {
            at: timestamp(row, 8)?,
            outcome: columns::word(Outcome::parse(&outcome), 9)?,
            error: row.get(10)?,
            point: row.get(11)?,
            figures: columns::document(row, 12)?,
        }),
    };
    let kind: String = row.get(1)?;
    Ok(Job {
        id: columns::parsed(row, 0)?,
        kind: JobKind::parse(&kind).unwrap_or(JobKind::Other),
        project: row.get(2)?,
        repository: row.get(3)?,
        started: timestamp(row, 4)?,
        process: Process { pid: row.get(5)?, start: row.get(6)?, boot: row.get(7)? },
        end,
    })
}
