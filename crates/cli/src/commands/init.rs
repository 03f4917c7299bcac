//! `snapback init`

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use engine::discover;
use engine::protect::{self, ConfigLock};

use super::protect as protecting;
use crate::configuration;
use crate::error::CommandError;
use crate::global::Global;
use crate::human;
use crate::output::{Output, printable};

/// Look around on this machine, and write a first configuration with comments.
#[derive(Args, Debug)]
#[command(after_help = "\
Looks at file systems, at directories below /srv and /var/www, at databases and containers, and
makes a repository. Nothing is backed up before you run `snapback serve`, or `snapback backup
PROJECT`. A configuration that is there is never touched.")]
pub(crate) struct Command {
    /// Write nothing, only print what would be written
    #[arg(short = 'n', long)]
    dry_run: bool,
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    let path = configuration::path(global)?;
    let found = discover::look(Path::new("/"));
    let repository = protecting::repository(&path, global)?;
    let text = discover::configuration(&found, &repository);
    if command.dry_run {
        match output.json {
            true => output.json(&serde_json::json!({ "path": path, "configuration": text }))?,
            false => output.line(text.trim_end())?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let _lock = ConfigLock::take(&path)?;
    // A link that leads nowhere is somebody's, too.
    if path.symlink_metadata().is_ok() {
        let error = CommandError::usage(format!("there is a configuration already: {}", printable(&path)));
        return Err(error.hint("snapback protect DIR adds to it; snapback init --dry-run prints a new one").into());
    }
    protecting::make(&repository, output)?;
    protect::write_new(&path, text.as_bytes(), 0o644)?;
    if output.json {
        let paths: Vec<&Path> = found.directories.iter().map(|directory| &*directory.path).collect();
        output.json(&serde_json::json!({ "path": path, "directories": paths }))?;
    } else {
        let count = human::counted(found.directories.len() as u64, "project");
        output.message(format_args!("{} written, with {count}: read it, and change what you like", printable(&path)));
        output.message("then `snapback config check`, and `snapback serve`");
    }
    Ok(ExitCode::SUCCESS)
}
