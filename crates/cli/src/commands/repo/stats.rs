//! `snapback repo stats`

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use repository::id::Id;
use repository::statistics::{self, Files, RawData, Stored};

use crate::global::Global;
use crate::human;
use crate::open::Session;
use crate::output::Output;
use crate::progress_bar::Meter;
use crate::select::{self, Filter};

/// Show how much lies in the repository, and what would come out of it.
#[derive(Args, Debug)]
pub(crate) struct Command {
    /// Only what these backups use
    #[arg(value_name = "BACKUP")]
    backups: Vec<String>,

    #[command(flatten)]
    filter: Filter,
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    let session = Session::open(global, output)?;
    let _lock = session.lock_for_reading()?;
    let repository = &session.repository;
    let records = select::all(repository, output)?;
    let chosen = select::several_or_all(&records, &command.backups, &command.filter)?;
    let roots: Vec<(Id, Id)> = chosen.iter().map(|(id, record)| (*id, record.tree)).collect();
    let trees: Vec<Id> = roots.iter().map(|(_, tree)| *tree).collect();
    let index = repository.load_index()?;
    let meter = Meter::start(output, "counting");
    let stored = statistics::stored(repository)?;
    let used = statistics::raw_data(repository, &index, &roots, &meter)?;
    let restored = statistics::restore_size(repository, &index, &trees, &meter)?;
    // It keeps every content in mind: only where it is asked for.
    let distinct = match output.verbose {
        true => Some(statistics::files_by_contents(repository, &index, &roots, &meter)?),
        false => None,
    };
    drop(meter);
    let version = repository.config().version;
    let all = Statistics { version, backups: chosen.len() as u64, stored, used, restored, distinct };
    all.show(&repository.storage().location(), output)?;
    Ok(ExitCode::SUCCESS)
}

struct Statistics {
    version: u32,
    backups: u64,
    stored: Stored,
    used: RawData,
    restored: Files,
    distinct: Option<Files>,
}

impl Statistics {
    fn show(&self, location: &str, output: &Output) -> Result<()> {
        let Statistics { version, backups, stored, used, restored, distinct } = self;
        if output.json {
            output.json(&serde_json::json!({
                "type": "statistics",
                "repository": location,
                "version": version,
                "backups": stored.backups,
                "packs": stored.packs,
                "pack_bytes": stored.pack_bytes,
                "index_files": stored.index_files,
                "index_bytes": stored.index_bytes,
                "chosen_backups": backups,
                "used_blobs": used.blobs,
                "used_stored_bytes": used.stored_bytes,
                "used_plain_bytes": used.plain_bytes,
                "restored_entries": restored.entries,
                "restored_bytes": restored.bytes,
                "distinct_files": distinct.map(|files| files.entries),
                "distinct_bytes": distinct.map(|files| files.bytes),
            }))?;
            return Ok(());
        }
        let (size, count) = (human::size, human::counted);
        output.line(format_args!("repository  {location}, version {version}, {}", count(stored.backups, "backup")))?;
        output.line(format_args!("stored      {} in {}", size(stored.pack_bytes), count(stored.packs, "pack")))?;
        let index_files = count(stored.index_files, "file");
        output.line(format_args!("index       {} in {index_files}", size(stored.index_bytes)))?;
        output.line(format_args!(
            "in use      {} by {} of {}, compressed from {}",
            size(used.stored_bytes),
            count(used.blobs, "blob"),
            count(*backups, "backup"),
            size(used.plain_bytes),
        ))?;
        output.line(format_args!(
            "restorable  {} in {} of all backups together, {} what is stored",
            size(restored.bytes),
            count(restored.entries, "entry"),
            times(restored.bytes, stored.pack_bytes),
        ))?;
        if let Some(distinct) = distinct {
            let files = count(distinct.entries, "file");
            output.line(format_args!("distinct    {} in {files} of different contents", size(distinct.bytes)))?;
        }
        Ok(())
    }
}

/// `12.3 times`.
fn times(bytes: u64, of: u64) -> String {
    if of == 0 { "none".to_owned() } else { format!("{:.1} times", bytes as f64 / of as f64) }
}
