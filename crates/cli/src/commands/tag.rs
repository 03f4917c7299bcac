//! `snapback tag`

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use repository::id::Id;
use repository::record::BackupRecord;
use repository::storage::{FileKind, StoredFile};

use crate::error::CommandError;
use crate::global::Global;
use crate::human;
use crate::open::Session;
use crate::output::Output;
use crate::select::{self, Filter};
use crate::signals;

/// Change the tags of backups. Their ids change with them.
#[derive(Args, Debug)]
pub(crate) struct Command {
    /// Which backups; or those that --host, --tag and --path leave
    #[arg(value_name = "BACKUP")]
    backups: Vec<String>,

    /// Add a tag (may be repeated, or a list with commas)
    #[arg(long, value_name = "TAG", value_delimiter = ',')]
    add: Vec<String>,

    /// Remove a tag
    #[arg(long, value_name = "TAG", value_delimiter = ',')]
    remove: Vec<String>,

    /// Replace all tags by these; an empty one removes all
    #[arg(long, value_name = "TAG", value_delimiter = ',', conflicts_with_all = ["add", "remove"])]
    set: Option<Vec<String>>,

    #[command(flatten)]
    filter: Filter,
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    if command.add.is_empty() && command.remove.is_empty() && command.set.is_none() {
        return Err(CommandError::usage("nothing to change").hint("--add TAG, --remove TAG or --set TAG").into());
    }
    let session = Session::open(global, output)?;
    let _lock = session.lock_exclusive()?;
    let records = select::all(&session.repository, output)?;
    let chosen = select::several(&records, &command.backups, &command.filter)?;
    let mut changes = Vec::new();
    for (id, record) in chosen {
        signals::check()?;
        let tags = command.change(&record.tags);
        if tags == record.tags {
            continue;
        }
        // The new record first: a crash leaves both, never none.
        let changed = BackupRecord { tags, original: Some(record.original.unwrap_or(*id)), ..record.clone() };
        let new = session.repository.save_record(&changed)?;
        session.repository.storage().remove(&StoredFile::new(FileKind::Backup, *id))?;
        changes.push((*id, new, changed.tags));
    }
    show(&changes, output)?;
    Ok(ExitCode::SUCCESS)
}

impl Command {
    fn change(&self, tags: &[String]) -> Vec<String> {
        let mut changed = Vec::new();
        let wanted = match &self.set {
            Some(tags) => tags.iter().collect::<Vec<_>>(),
            None => tags.iter().filter(|tag| !self.remove.contains(tag)).chain(&self.add).collect(),
        };
        for tag in wanted {
            if !tag.is_empty() && !changed.contains(tag) {
                changed.push(tag.clone());
            }
        }
        changed
    }
}

fn show(changes: &[(Id, Id, Vec<String>)], output: &Output) -> Result<()> {
    if output.json {
        let documents: Vec<_> = changes
            .iter()
            .map(|(old, new, tags)| serde_json::json!({ "old_id": old, "id": new, "tags": tags }))
            .collect();
        output.json(&documents)?;
        return Ok(());
    }
    for (old, new, tags) in changes {
        output.line(format_args!("{} is now {}: {}", old.short(), new.short(), tags.join(", ")))?;
    }
    output.message(format_args!("{} changed", human::counted(changes.len() as u64, "backup")));
    Ok(())
}
