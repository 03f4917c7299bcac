//! Which backup is meant: the beginning of an id, `latest`, or `latest~2`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use repository::id::Id;
use repository::record::BackupRecord;
use repository::{Error, Repository};

use crate::error::CommandError;
use crate::output::Output;

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
    let common = |id: &Id| id.to_string().bytes().zip(text.bytes()).filter(|(a, b)| a == b).count();
    match records.iter().map(|(id, _)| (common(id), id)).max() {
        // Half of what was typed is more than chance.
        Some((same, id)) if same * 2 > text.len() => {
            error.hint(format!("did you mean {}? `snapback list` shows them all", id.short()))
        }
        _ => error.hint("`snapback list` shows the backups"),
    }
}

/// Splits `BACKUP:PATH`.
pub(crate) fn split_path(text: &str) -> (&str, Option<&str>) {
    match text.split_once(':') {
        Some((backup, path)) if !path.is_empty() => (backup, Some(path)),
        Some((backup, _)) => (backup, None),
        None => (text, None),
    }
}
