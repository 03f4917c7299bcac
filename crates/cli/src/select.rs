//! Which backup is meant: the beginning of an id, `latest`, or `latest~2`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use backup::read::{Found, PathError, find_path};
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use repository::id::Id;
use repository::record::BackupRecord;
use repository::{BlobReader, Error, Repository};

use crate::error::CommandError;
use crate::human;
use crate::output::Output;
use engine::nearest::nearest;

/// All records that can be read, oldest first; the others are named.
pub(crate) fn all(repository: &Repository, output: &Output) -> Result<Vec<(Id, BackupRecord)>> {
    let (records, damaged) = repository.backups()?;
    for error in damaged {
        output.warning(error);
    }
    Ok(records)
}

/// Narrows down which backups are looked at.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Which backups")]
pub(crate) struct Filter {
    /// Only backups of this host (may be repeated)
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Vec<String>,

    /// Only backups that have all of these tags, separated by commas (may be repeated)
    #[arg(long, value_name = "TAG[,TAG]")]
    pub(crate) tag: Vec<String>,

    /// Only backups of this path (may be repeated: of all of them)
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Vec<PathBuf>,
}

impl Filter {
    /// Whether all backups pass.
    pub(crate) fn is_empty(&self) -> bool {
        self.host.is_empty() && self.tag.is_empty() && self.path.is_empty()
    }

    pub(crate) fn matches(&self, record: &BackupRecord) -> bool {
        let has_tags = |tags: &String| tags.split(',').all(|tag| has_tag(record, tag));
        let has_path = |path: &PathBuf| {
            let absolute = absolute(path);
            record.paths.iter().any(|of_record| std::path::Path::new(of_record) == absolute)
        };
        (self.host.is_empty() || self.host.contains(&record.hostname))
            && (self.tag.is_empty() || self.tag.iter().any(has_tags))
            && self.path.iter().all(has_path)
    }

    /// Those that match.
    pub(crate) fn apply(&self, records: Vec<(Id, BackupRecord)>) -> Vec<(Id, BackupRecord)> {
        records.into_iter().filter(|(_, record)| self.matches(record)).collect()
    }
}

/// The empty tag stands for having none.
fn has_tag(record: &BackupRecord, tag: &str) -> bool {
    if tag.is_empty() { record.tags.is_empty() } else { record.tags.iter().any(|of_record| of_record == tag) }
}

fn absolute(path: &std::path::Path) -> PathBuf {
    match std::env::current_dir() {
        Ok(directory) => backup::archive::absolute(path, &directory),
        Err(_) => path.to_owned(),
    }
}

/// The backup that a text means. The filter only narrows `latest`; an id is an id.
pub(crate) fn find<'r>(
    records: &'r [(Id, BackupRecord)],
    text: &str,
    filter: &Filter,
) -> Result<&'r (Id, BackupRecord)> {
    if let Some(back) = latest(text)? {
        let mut newest_first = records.iter().rev().filter(|(_, record)| filter.matches(record));
        let count = newest_first.clone().count();
        return newest_first.nth(back).ok_or_else(|| {
            let error = match count {
                0 if records.is_empty() => {
                    CommandError::new("the repository has no backup yet").hint("`snapback backup PATH` makes one")
                }
                0 => CommandError::new("no backup matches --host, --tag and --path")
                    .hint("`snapback list` shows them all"),
                _ => CommandError::new(format!("{text}: there are only {count} backups to choose from"))
                    .hint(format!("`latest~{}` is the oldest of them", count - 1)),
            };
            error.into()
        });
    }
    let text = text.to_ascii_lowercase();
    let mut matching = records.iter().filter(|(id, _)| !text.is_empty() && id.to_string().starts_with(&text));
    match (matching.next(), matching.count()) {
        (Some(found), 0) => Ok(found),
        (Some(_), others) => Err(Error::AmbiguousBackup { prefix: text, count: others + 1 }.into()),
        (None, _) => Err(unknown(records, &text).into()),
    }
}

/// The backups that several texts mean, each once; without any, those that match the filter, which must then say
/// something.
pub(crate) fn several<'r>(
    records: &'r [(Id, BackupRecord)],
    texts: &[String],
    filter: &Filter,
) -> Result<Vec<&'r (Id, BackupRecord)>> {
    if texts.is_empty() {
        if filter.is_empty() {
            let hint = "name them, or narrow down with --host, --tag or --path";
            return Err(CommandError::usage("no backup is named").hint(hint).into());
        }
        return Ok(records.iter().filter(|(_, record)| filter.matches(record)).collect());
    }
    let mut chosen: Vec<&(Id, BackupRecord)> = Vec::new();
    for text in texts {
        let found = find(records, text, filter)?;
        if !chosen.iter().any(|(id, _)| *id == found.0) {
            chosen.push(found);
        }
    }
    Ok(chosen)
}

/// As [`several`]; where nothing is said, all.
pub(crate) fn several_or_all<'r>(
    records: &'r [(Id, BackupRecord)],
    texts: &[String],
    filter: &Filter,
) -> Result<Vec<&'r (Id, BackupRecord)>> {
    if texts.is_empty() && filter.is_empty() { Ok(records.iter().collect()) } else { several(records, texts, filter) }
}

/// How far back from the newest, if the text says `latest`.
fn latest(text: &str) -> Result<Option<usize>> {
    let Some(rest) = text.strip_prefix("latest") else { return Ok(None) };
    if rest.is_empty() {
        return Ok(Some(0));
    }
    let back = rest.strip_prefix('~').and_then(|number| number.parse().ok());
    let wrong = || {
        CommandError::usage(format!("{text:?} is no backup")).hint("`latest`, or `latest~2` for the second before it")
    };
    Ok(Some(back.ok_or_else(wrong)?))
}

fn unknown(records: &[(Id, BackupRecord)], text: &str) -> CommandError {
    let error = CommandError::new(format!("there is no backup {text:?}"));
    if nearest(text, std::iter::once("latest")).is_some() {
        return error.hint("did you mean latest?");
    }
    let common = |id: &Id| id.to_string().bytes().zip(text.bytes()).filter(|(a, b)| a == b).count();
    match records.iter().map(|(id, _)| (common(id), id)).max() {
        // Half of what was typed is more than chance.
        Some((same, id)) if same * 2 > text.len() => {
            error.hint(format!("did you mean {}? `snapback list` shows them all", id.short()))
        }
        _ => error.hint("`snapback list` shows the backups"),
    }
}

/// `BACKUP` or `BACKUP:PATH`.
#[derive(Clone, Debug)]
pub(crate) struct BackupPath {
    pub(crate) backup: String,
    pub(crate) path: Option<PathBuf>,
}

impl BackupPath {
    /// Paths are bytes, not text.
    pub(crate) fn parser() -> impl TypedValueParser<Value = BackupPath> {
        OsStringValueParser::new().try_map(|text| BackupPath::parse(&text))
    }

    fn parse(text: &OsStr) -> Result<Self, String> {
        let bytes = text.as_bytes();
        let colon = bytes.iter().position(|byte| *byte == b':').unwrap_or(bytes.len());
        let backup = std::str::from_utf8(&bytes[..colon]).map_err(|error| error.to_string())?;
        if backup.is_empty() {
            return Err("write BACKUP:PATH, such as latest:/srv/shop".to_owned());
        }
        let path = bytes.get(colon + 1..).filter(|path| !path.is_empty());
        let path = path.map(|path| Path::new("/").join(OsStr::from_bytes(path)));
        Ok(BackupPath { backup: backup.to_owned(), path })
    }

    /// What the backup has at the path; its root if there is none.
    pub(crate) fn find(&self, reader: &mut BlobReader<'_>, record: &BackupRecord) -> Result<Found> {
        lookup(reader, record, self.path.as_deref().unwrap_or(Path::new("/")))
    }
}

/// What a backup has at a path, with a suggestion if there is nothing.
pub(crate) fn lookup(reader: &mut BlobReader<'_>, record: &BackupRecord, path: &Path) -> Result<Found> {
    find_path(reader, record.tree, path).map_err(|error| match error {
        PathError::Repository(error) => error.into(),
        PathError::NoDirectory { .. } => CommandError::new(error.to_string()).into(),
        PathError::NotFound { ref path, ref siblings } => {
            let names: Vec<_> = siblings.iter().map(|name| String::from_utf8_lossy(name)).collect();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let hint = match (nearest(&name, names.iter().map(AsRef::as_ref)), path.parent()) {
                (Some(near), Some(above)) => format!("did you mean {}?", above.join(near).display()),
                _ => format!("the backup is of {}; `snapback ls` shows what it has", human::few(&record.paths)),
            };
            CommandError::new(error.to_string()).hint(hint).into()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(seed: u8) -> (Id, BackupRecord) {
        let json = format!(
            r#"{{"time":"2026-01-{:02}T00:00:00Z","tree":"{}","paths":["/srv"],"hostname":"h{}"}}"#,
            seed % 28 + 1,
            Id([0; 32]),
            seed % 2
        );
        (Id([seed; 32]), serde_json::from_str(&json).unwrap())
    }

    #[test]
    fn latest_counts_back_among_those_that_match() {
        let records: Vec<_> = (1..=5).map(record).collect();
        let find = |text: &str, host: &[&str]| {
            let filter = Filter { host: host.iter().map(|host| (*host).to_owned()).collect(), ..Filter::default() };
            super::find(&records, text, &filter).map(|(id, _)| id.0[0]).ok()
        };
        assert_eq!(find("latest", &[]), Some(5));
        assert_eq!(find("latest~0", &[]), Some(5));
        assert_eq!(find("latest~4", &[]), Some(1));
        assert_eq!(find("latest~5", &[]), None);
        assert_eq!(find("latest~1", &["h1"]), Some(3));
        assert_eq!(find("latest", &["h2"]), None);
        for text in ["latest~", "latest~x", "latest~-1", "latest2"] {
            assert_eq!(find(text, &[]), None, "{text}");
        }
    }

    #[test]
    fn an_id_needs_only_its_beginning_but_must_mean_one() {
        let records = vec![record(0x11), record(0x12), record(0x22)];
        let find = |text: &str| super::find(&records, text, &Filter::default()).map(|(id, _)| id.0[0]);
        assert_eq!(find("11").unwrap(), 0x11);
        assert_eq!(find("2").unwrap(), 0x22);
        assert_eq!(find(&Id([0x12; 32]).to_string().to_uppercase()).unwrap(), 0x12);
        assert!(find("1").unwrap_err().to_string().contains("2 backups"));
        assert!(find("").is_err());
        assert!(find("33").is_err());
    }

    #[test]
    fn a_path_follows_the_first_colon() {
        let parse = |text: &str| BackupPath::parse(OsStr::new(text)).map(|found| (found.backup, found.path));
        assert_eq!(parse("latest"), Ok(("latest".to_owned(), None)));
        assert_eq!(parse("latest:"), Ok(("latest".to_owned(), None)));
        assert_eq!(parse("12:/a:b"), Ok(("12".to_owned(), Some("/a:b".into()))));
        assert_eq!(parse("12:a"), Ok(("12".to_owned(), Some("/a".into()))));
        assert!(parse(":/a").is_err());
    }
}
