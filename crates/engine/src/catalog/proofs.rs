//! Proofs of databases: a throw-away server was started on a copy, and asked.

use jiff::Timestamp;
use rusqlite::params;
use serde::{Deserialize, Serialize};

use super::columns::{document, millis, timestamp};
use super::{Catalog, Error};
use crate::redact;

/// How many are kept of each database.
const KEPT: i64 = 50;

/// A proof of a database, or that it failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// Of which project.
    pub project: String,
    /// Which database, as the configuration called it.
    pub database: String,
    /// Of which copy.
    pub of: Copy,
    /// When it began.
    pub at: Timestamp,
    /// What came of it.
    pub outcome: Outcome,
}

/// The copy that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Copy {
    /// A snapshot.
    Snapshot(String),
    /// A dump in a backup.
    Backup(String),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is whole.
    Good {
        /// Name and version of the server.
        server: String,
        /// What was looked at: `amcheck of 214 indexes`.
        checks: Vec<String>,
        /// What the project's own query gave.
        answer: Option<String>,
        /// From the start until the server took queries, in milliseconds.
        started_in_ms: u64,
        /// All of it, in milliseconds.
        took_ms: u64,
        /// What could not be looked at.
        warnings: Vec<String>,
    },
    /// It is not, or nobody can tell.
    Failed {
        /// What happened.
        reason: String,
    },
}

impl Outcome {
    /// Whether the database is proven to be whole.
    pub fn is_good(&self) -> bool {
        matches!(self, Outcome::Good { .. })
    }
}

impl Catalog {
    /// Records a proof, and forgets those of the database that nobody asks for any more.
    pub fn record_proof(&self, proof: &Proof) -> Result<(), Error> {
        let Proof { project, database, of, at, outcome } = proof;
        let outcome = match outcome {
            Outcome::Failed { reason } => Outcome::Failed { reason: redact::text(reason) },
            good => good.clone(),
        };
        let [of, outcome] = [serde_json::to_string(of), serde_json::to_string(&outcome)]
            .map(|json| json.expect("words and numbers are JSON"));
        self.write(|connection| {
            let text = "INSERT INTO proofs (project, name, of, at, outcome) VALUES (?1, ?2, ?3, ?4, ?5)";
            connection.execute(text, params![project, database, of, millis(*at), outcome])?;
            let text = "DELETE FROM proofs WHERE project = ?1 AND name = ?2 AND id NOT IN \
                        (SELECT id FROM proofs WHERE project = ?1 AND name = ?2 ORDER BY at DESC, id DESC LIMIT ?3)";
            connection.execute(text, params![project, database, KEPT])?;
            Ok(())
        })
    }

    /// The proofs of a project's databases, newest first.
    pub fn proofs(&self, project: &str) -> Result<Vec<Proof>, Error> {
        let query = "SELECT name, of, at, outcome FROM proofs WHERE project = ?1 ORDER BY at DESC, id DESC";
        self.read(|connection| {
            let mut statement = connection.prepare(query)?;
            let proofs = statement.query_map([project], |row| {
                Ok(Proof {
                    project: project.to_owned(),
                    database: row.get(0)?,
                    of: document(row, 1)?,
                    at: timestamp(row, 2)?,
                    outcome: document(row, 3)?,
                })
            })?;
            proofs.collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_proofs_of_each_database_are_remembered_without_passwords() {
        let directory = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&directory.path().join("catalog.sqlite"), Timestamp::UNIX_EPOCH).unwrap();
        let proof = |database: &str, secs| Proof {
            project: "shop".to_owned(),
            database: database.to_owned(),
            of: Copy::Snapshot("7f3a".to_owned()),
            at: Timestamp::from_second(secs).unwrap(),
            outcome: Outcome::Failed { reason: "postgres://shop:hunter2@db/orders went away".to_owned() },
        };
        for secs in 0..KEPT + 3 {
            catalog.record_proof(&proof("orders", secs)).unwrap();
        }
        catalog.record_proof(&proof("users", 1)).unwrap();
        let known = catalog.proofs("shop").unwrap();
        assert_eq!(known.len() as i64, KEPT + 1);
        assert_eq!((known[0].at.as_second(), known[0].database.as_str()), (KEPT + 2, "orders"));
        assert!(!format!("{known:?}").contains("hunter2"));
        assert_eq!(catalog.proofs("other").unwrap(), []);
    }
}
