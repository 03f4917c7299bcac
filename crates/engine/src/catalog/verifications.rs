//! Whether backups were seen to be restorable: by a check that read their data, or by restoring them.

use jiff::Timestamp;
use repository::id::Id;
use rusqlite::params;
use serde::Serialize;

use super::backups::KnownBackup;
use super::columns::{self, millis, timestamp};
use super::{Catalog, Error};

columns::words! {
    /// How it was seen.
    pub enum Way {
        /// Stored data was read, and compared with its hashes.
        Data = "data",
        /// It was restored.
        Drill = "drill",
    }
}

/// A look at the data of a repository, or of one backup in it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verification {
    /// Of which repository.
    pub repository: String,
    /// Of which backup; `None` for all that the repository had.
    pub backup: Option<Id>,
    /// When it began.
    pub at: Timestamp,
    /// How.
    pub way: Way,
    /// How much of the data was looked at.
    pub percent: f64,
    /// Whether all was well.
    pub is_good: bool,
}

/// What is known of whether a backup can be restored.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Verified {
    /// Nobody has looked.
    No,
    /// A part of the repository's data was read since, and was well.
    Partly {
        /// When it was last looked at.
        at: Timestamp,
        /// How much of the data.
        percent: f64,
    },
    /// All of its data was read, or it was restored.
    Yes {
        /// When.
        at: Timestamp,
        /// How.
        way: Way,
    },
    /// The last look found damage in it, or in its repository.
    Failed {
        /// When.
        at: Timestamp,
    },
}

impl Verified {
    /// What a repository's verifications say of one of its backups. A look only tells of what was there when it began.
    pub fn of(backup: &KnownBackup, verifications: &[Verification]) -> Verified {
        let concerns = |of: &&Verification| {
            of.at >= backup.time && of.backup.is_none_or(|id| id == backup.id || Some(id) == backup.original)
        };
        let all = || verifications.iter().filter(concerns);
        let Some(last) = all().max_by_key(|of| of.at) else { return Verified::No };
        if !last.is_good {
            return Verified::Failed { at: last.at };
        }
        // What was found damaged may have been repaired, or not been looked at again.
        let failed = all().filter(|of| !of.is_good).map(|of| of.at).max();
        let good = || all().filter(|of| of.is_good && failed.is_none_or(|failed| of.at > failed));
        let whole = good().filter(|of| of.way == Way::Drill || of.percent >= 100.0).max_by_key(|of| of.at);
        match (whole, failed) {
            (Some(whole), _) => Verified::Yes { at: whole.at, way: whole.way },
            (None, Some(failed)) => Verified::Failed { at: failed },
            (None, None) => Verified::Partly { at: last.at, percent: last.percent },
        }
    }
}

impl Catalog {
    /// Records a look at data. One that read none is no verification, and not recorded.
    pub fn record_verification(&self, verification: &Verification) -> Result<(), Error> {
        if verification.is_good && verification.percent <= 0.0 {
            return Ok(());
        }
        self.write(|connection| {
            let Verification { repository, backup, at, way, percent, is_good } = verification;
            let text = "INSERT INTO verifications (repository, backup, at, way, percent, is_good) \
                        VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            let backup = backup.map(|id| id.to_string());
            connection.execute(text, params![repository, backup, millis(*at), way.as_str(), percent, is_good])?;
            Ok(())
        })
    }

    /// The looks at the data of a repository, oldest first.
    pub fn verifications(&self, repository: &str) -> Result<Vec<Verification>, Error> {
        let query = "SELECT repository, backup, at, way, percent, is_good FROM verifications \
                     WHERE repository = ?1 ORDER BY at, id";
        self.read(|connection| {
            let mut statement = connection.prepare(query)?;
            let verifications = statement.query_map([repository], |row| {
                let way: String = row.get(3)?;
                Ok(Verification {
                    repository: row.get(0)?,
                    backup: row.get::<_, Option<String>>(1)?.map(|_| columns::parsed(row, 1)).transpose()?,
                    at: timestamp(row, 2)?,
                    way: columns::word(Way::parse(&way), 3)?,
                    percent: row.get(4)?,
                    is_good: row.get(5)?,
                })
            })?;
            verifications.collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_second(secs).unwrap()
    }

    fn backup() -> KnownBackup {
        KnownBackup {
            id: Id([1; 32]),
            time: at(100),
            host: String::new(),
            paths: Vec::new(),
            tags: Vec::new(),
            files: None,
            bytes: None,
            added_bytes: None,
            original: None,
        }
    }

    fn look(secs: i64, percent: f64, is_good: bool) -> Verification {
        let repository = "usb".to_owned();
        Verification { repository, backup: None, at: at(secs), way: Way::Data, percent, is_good }
    }

    #[test]
    fn a_look_tells_only_of_what_was_there_when_it_began() {
        assert_eq!(Verified::of(&backup(), &[]), Verified::No);
        assert_eq!(Verified::of(&backup(), &[look(99, 100.0, true)]), Verified::No);
        let yes = Verified::Yes { at: at(100), way: Way::Data };
        assert_eq!(Verified::of(&backup(), &[look(100, 100.0, true)]), yes);
        assert_eq!(Verified::of(&backup(), &[look(100, 100.0, true), look(200, 10.0, true)]), yes);
    }

    #[test]
    fn a_part_is_not_the_whole_and_another_backups_drill_says_nothing() {
        let partly = Verified::Partly { at: at(200), percent: 10.0 };
        assert_eq!(Verified::of(&backup(), &[look(150, 10.0, true), look(200, 10.0, true)]), partly);
        let drill = |id| Verification { backup: Some(Id([id; 32])), way: Way::Drill, ..look(200, 0.0, true) };
        assert_eq!(Verified::of(&backup(), &[drill(2)]), Verified::No);
        assert_eq!(Verified::of(&backup(), &[drill(1)]), Verified::Yes { at: at(200), way: Way::Drill });
    }

    #[test]
    fn damage_stays_until_all_was_looked_at_again() {
        let looks = [look(150, 100.0, true), look(200, 10.0, false)];
        assert_eq!(Verified::of(&backup(), &looks), Verified::Failed { at: at(200) });
        let looks = [looks[0].clone(), looks[1].clone(), look(300, 10.0, true)];
        assert_eq!(Verified::of(&backup(), &looks), Verified::Failed { at: at(200) });
        let looks = [looks[0].clone(), looks[1].clone(), look(300, 100.0, true)];
        assert_eq!(Verified::of(&backup(), &looks), Verified::Yes { at: at(300), way: Way::Data });
    }
}
