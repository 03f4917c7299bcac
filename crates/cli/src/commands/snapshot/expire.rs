//! `snapback snapshot expire`

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use snapshot::expire;
use snapshot::id::Id;
use snapshot::manage;

use crate::global::Global;
use crate::output::{Output, printable};
use crate::snapshots::Session;

/// Delete the snapshots that have had their time.
#[derive(Args, Debug)]
#[command(after_help = "\
Held snapshots stay. The timer snapback-expire.timer of systemd runs this every ten minutes.")]
pub(crate) struct Command {
    /// Delete nothing, only show what would go
    #[arg(short = 'n', long)]
    dry_run: bool,
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    let session = Session::open(global, output)?;
    let Expired { ids, failed } = expire(&session, command.dry_run)?;
    if output.json {
        output.json(&serde_json::json!({ "deleted": ids, "failed": failed, "dry_run": command.dry_run }))?;
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What has had its time.
pub(crate) struct Expired {
    /// What was deleted, or would be.
    pub(crate) ids: Vec<Id>,
    /// How many could not be.
    pub(crate) failed: usize,
}

/// Deletes, and says what.
pub(crate) fn expire(session: &Session<'_>, dry_run: bool) -> Result<Expired> {
    let output = session.output;
    let lock = session.lock()?;
    let listed = manage::list(&session.state, session.now)?;
    let records: Vec<_> = listed.into_iter().map(|listed| listed.record).collect();
    let decided = expire::decide(&records, session.now);
    let about = |id: Id| {
        let record = records.iter().find(|record| record.id == id).expect("decided from these");
        let of = |record: &&snapshot::record::Record| !decided.contains(&record.id);
        let is_last = !records.iter().filter(of).any(|other| other.directory == record.directory);
        (record, is_last)
    };
    if dry_run {
        for id in &decided {
            output.message(format_args!("snapshot {id} of {} would go", printable(&about(*id).0.directory)));
        }
        return Ok(Expired { ids: decided, failed: 0 });
    }
    let mut expired = Expired { ids: Vec::new(), failed: 0 };
    for (id, result) in expire::perform(&lock, &decided, session.now, &session.opener()) {
        let (record, is_last) = about(id);
        let directory = printable(&record.directory);
        match result {
            Ok(_) => {
                expired.ids.push(id);
                output.message(format_args!("snapshot {id} of {directory} has had its time, and is deleted"));
                if is_last {
                    // Also to the timer, which is quiet: it may have held what no backup has yet.
                    output.warning(format_args!("no snapshot of {directory} is left"));
                }
            }
            Err(error) => {
                expired.failed += 1;
                output.warning(format_args!("snapshot {id} of {directory} stays: {error}"));
            }
        }
    }
    Ok(expired)
}
