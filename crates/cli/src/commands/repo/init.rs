//! `snapback repo init`

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use repository::storage::StoredFile;
use repository::{Error, InitOptions, Repository};

use crate::args::Global;
use crate::open;
use crate::output::Output;
use crate::password::Sources;

/// Create a repository.
#[derive(Args, Debug)]
pub(crate) struct Command {}

pub(crate) fn run(_command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    let storage = open::storage(open::location(global)?)?;
    let location = storage.location();
    // Before a password is asked for that would be of no use.
    if storage.size(&StoredFile::CONFIG).is_ok() {
        return Err(Error::AlreadyARepository(location).into());
    }
    let password = Sources::of(global).choose(&location)?;
    let repository = Repository::init(storage, &password, &InitOptions::default(), &open::holder())?;
    let id = repository.config().id;
    if output.json {
        output.json(&serde_json::json!({ "type": "initialized", "repository": location, "id": id }))?;
    } else if !output.quiet {
        output.line(format_args!("repository {} created at {location}", id.short()))?;
        output.message("Keep the password safe: without it, nobody can read the backups.");
    }
    Ok(ExitCode::SUCCESS)
}
