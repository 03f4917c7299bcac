//! `snapback repo init`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use repository::storage::StoredFile;
use repository::{Error, InitOptions, Repository};

use crate::global::Global;
use crate::open;
use crate::output::Output;
use crate::password::Sources;

/// Create a repository.
#[derive(Args, Debug)]
pub(crate) struct Command {
    /// Cut files into the same pieces as this repository does, so that copies between the two share their data
    #[arg(long, value_name = "URL")]
    like: Option<String>,

    /// Read that repository's password from a file; without, it is taken to be the same
    #[arg(long, value_name = "FILE", conflicts_with = "like_password_command")]
    like_password_file: Option<PathBuf>,

    /// Run a command that prints that repository's password
    #[arg(long, value_name = "COMMAND")]
    like_password_command: Option<String>,
}

impl Command {
    fn options(&self, global: &Global) -> Result<InitOptions> {
        let Some(like) = &self.like else { return Ok(InitOptions::default()) };
        let password = Sources {
            file: self.like_password_file.as_deref(),
            command: self.like_password_command.as_deref(),
            variable: None,
        };
        let other = open::open(open::storage(like)?, &password.or(Sources::of(global)))?;
        Ok(InitOptions { polynomial: Some(other.polynomial()), ..InitOptions::default() })
    }
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    let storage = open::storage(open::location(global)?)?;
    let location = storage.location();
    // Before a password is asked for that would be of no use.
    if storage.size(&StoredFile::CONFIG).is_ok() {
        return Err(Error::AlreadyARepository(location).into());
    }
    let options = command.options(global)?;
    let password = Sources::of(global).choose(&location)?;
    let repository = Repository::init(storage, &password, &options, &open::holder())?;
    let id = repository.config().id;
    if output.json {
        output.json(&serde_json::json!({ "type": "initialized", "repository": location, "id": id }))?;
    } else if !output.quiet {
        output.line(format_args!("repository {} created at {location}", id.short()))?;
        output.message("Keep the password safe: without it, nobody can read the backups.");
    }
    Ok(ExitCode::SUCCESS)
}
