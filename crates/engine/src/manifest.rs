//! What a backup of a project says of itself: a file of the same backup, `/.snapback/manifest.json`, beside the dumps of
//! its databases in `/.snapback/databases/NAME/`. Whoever has the backup, and nothing else, learns from it what it takes
//! to bring the project back, also with restic and the databases' own tools.
//!
//! Whoever reads one ignores fields that it does not know; a [`Manifest::version`] that it does not know it refuses.
//!
//! Does not know how any of it is brought back.

use std::path::{Path, PathBuf};

use backup::read::{ContentError, Found, PathError, find_path, write_content};
use jiff::Timestamp;
use repository::Repository;
use repository::id::Id;
use repository::index::Index;
use serde::{Deserialize, Serialize};
use workload::dump::{Format, Part};

/// Where a backup has what is not of the project's files.
pub const DIRECTORY: &str = "/.snapback";
/// The manifest.
pub const PATH: &str = "/.snapback/manifest.json";
/// The newest version there is.
pub const VERSION: u32 = 1;
/// Much more than a manifest has, in bytes: what is larger is something else.
const MAX_BYTES: u64 = 64 << 20;

/// A manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// It changes when what is there means something else, and not when something is added.
    pub version: u32,
    /// The project's name in the configuration.
    pub project: String,
    /// The machine's name.
    pub host: String,
    /// What made the backup: "snapback 1.0".
    pub program: String,
    /// When it was begun.
    pub time: Timestamp,
    /// Of which there should be dumps.
    #[serde(default)]
    pub databases: Vec<DumpedDatabase>,
}

/// A database of the project, or all of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpedDatabase {
    /// Its name in the configuration.
    pub name: String,
    /// Its address then; never with a password.
    pub url: String,
    /// Whether it stands for all databases of the server.
    pub all: bool,
    /// Name and version of the server: `PostgreSQL 15.18`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Name and version of what dumped it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// The files.
    #[serde(default)]
    pub parts: Vec<DumpedPart>,
    /// Why nothing of it was dumped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A file of a dump, or what should have been one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpedPart {
    /// Which; its file lies in the database's directory ([`directory_of`]).
    #[serde(flatten)]
    pub part: Part,
    /// The command that brings it back, for a person.
    pub restored_with: String,
    /// When it was begun: what it holds is of this moment.
    pub time: Timestamp,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// How long it is; `None` if it failed, and then the backup does not have the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Why a backup's manifest cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It cannot be looked for.
    #[error(transparent)]
    Path(#[from] PathError),
    /// It cannot be read.
    #[error("cannot read {PATH} of the backup")]
    Content(#[from] ContentError),
    /// It is not one.
    #[error("{PATH} of the backup is not a manifest: {0}")]
    Unknown(String),
    /// It was made by a newer version.
    #[error("{PATH} of the backup has version {0}, and this program knows {VERSION}: a newer one made it")]
    Newer(u32),
}

/// Where a backup has the dumps of a database.
pub fn directory_of(database: &str) -> PathBuf {
    Path::new(DIRECTORY).join("databases").join(database)
}

impl Manifest {
    /// The one of a backup, by its root tree; `None` if it has none.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn load(repository: &Repository, index: &Index, tree: Id) -> Result<Option<Manifest>, ManifestError> {
        let mut reader = repository.reader(index);
        let node = match find_path(&mut reader, tree, Path::new(PATH)) {
            Ok(Found::Entry(node)) => node,
            Ok(Found::Root(_)) | Err(PathError::NotFound { .. } | PathError::NoDirectory { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if node.size > MAX_BYTES {
            return Err(ManifestError::Unknown(format!("it has {} bytes", node.size)));
        }
        let mut bytes = Vec::new();
        write_content(repository, index, &mut reader, &node, &mut bytes)?;
        Manifest::parse(&bytes).map(Some)
    }

    fn parse(bytes: &[u8]) -> Result<Manifest, ManifestError> {
        #[derive(Deserialize)]
        struct Any {
            version: u32,
        }
        let unknown = |error: serde_json::Error| ManifestError::Unknown(error.to_string());
        match serde_json::from_slice::<Any>(bytes).map_err(unknown)? {
            Any { version } if version > VERSION => Err(ManifestError::Newer(version)),
            _ => serde_json::from_slice(bytes).map_err(unknown),
        }
    }

    /// As it is stored.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("names, numbers and times are always JSON");
        text.push(b'\n');
        text
    }
}

/// What a person types to bring a file of a dump back; the engine has its own way, which does it beside the old one.
pub(crate) fn restored_with(part: &Part) -> String {
    let file = quoted(&part.file);
    match (part.format, &part.database) {
        (Format::PgCustom, Some(database)) => {
            let database = quoted(database);
            format!("createdb {database} && pg_restore --exit-on-error --dbname={database} {file}")
        }
        (Format::PgCustom, None) => format!("pg_restore --exit-on-error --dbname=postgres {file}"),
        (Format::PgSql, database) => {
            format!("psql --dbname={} --file={file}", quoted(database.as_deref().unwrap_or("postgres")))
        }
        (Format::MysqlSql, Some(database)) => format!("mariadb {} < {file}", quoted(database)),
        (Format::MysqlSql, None) => format!("mariadb < {file}"),
        (Format::SqliteFile, _) => format!("cp {file} in the place of the database, without its -wal and -shm files"),
    }
}

fn quoted(text: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-:@+=,".contains(letter);
    let is_plain = !text.is_empty() && !text.starts_with('-') && text.chars().all(is_plain);
    if is_plain { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let part =
            Part { file: "orders.pgdump".to_owned(), database: Some("orders".to_owned()), format: Format::PgCustom };
        let part = DumpedPart {
            restored_with: restored_with(&part),
            part,
            time: "2026-03-01T12:00:00Z".parse().unwrap(),
            took_ms: 1200,
            bytes: Some(7),
            error: None,
        };
        let database = DumpedDatabase {
            name: "orders".to_owned(),
            url: "postgres:///orders".to_owned(),
            all: false,
            server: Some("PostgreSQL 15.18".to_owned()),
            tool: Some("pg_dump 15.18".to_owned()),
            parts: vec![part],
            error: None,
        };
        Manifest {
            version: VERSION,
            project: "shop".to_owned(),
            host: "web1".to_owned(),
            program: "snapback 1.0".to_owned(),
            time: "2026-03-01T12:00:00Z".parse().unwrap(),
            databases: vec![database],
        }
    }

    #[test]
    fn one_comes_back_and_fields_of_later_days_do_not_matter() {
        let mut json: serde_json::Value = serde_json::from_slice(&manifest().to_json()).unwrap();
        assert_eq!(json["databases"][0]["parts"][0]["format"], "pg-custom");
        json["units"] = serde_json::json!(["shop.service"]);
        json["databases"][0]["parts"][0]["sha256"] = "0".into();
        assert_eq!(Manifest::parse(json.to_string().as_bytes()).unwrap(), manifest());
    }

    #[test]
    fn what_is_none_or_of_another_version_is_refused() {
        for text in ["", "[]", "{}", r#"{"version": "1"}"#, r#"{"version": 1}"#] {
            assert!(matches!(Manifest::parse(text.as_bytes()), Err(ManifestError::Unknown(_))), "{text}");
        }
        assert!(matches!(Manifest::parse(br#"{"version": 2}"#), Err(ManifestError::Newer(2))));
    }

    #[test]
    fn names_are_quoted_for_a_shell() {
        let part = |database: &str| Part {
            file: format!("{database}.sql"),
            database: Some(database.to_owned()),
            format: Format::MysqlSql,
        };
        assert_eq!(restored_with(&part("shop")), "mariadb shop < shop.sql");
        assert_eq!(restored_with(&part("it's; rm")), r"mariadb 'it'\''s; rm' < 'it'\''s; rm.sql'");
        assert_eq!(restored_with(&part("-e")), "mariadb '-e' < '-e.sql'");
    }
}
