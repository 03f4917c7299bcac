//! `snapback repo key`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use repository::id::Id;
use repository::list_keys;
use repository::storage::{FileKind, StoredFile};

use crate::error::CommandError;
use crate::global::Global;
use crate::human;
use crate::open::{self, Session};
use crate::output::{Output, words};
use crate::password::Sources;

/// Passwords that open the repository.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the keys, one for each password
    List,
    /// Add a password
    Add(NewPassword),
    /// Remove a key, so that its password opens nothing any more
    Remove {
        /// Beginning of the key's id
        #[arg(value_name = "KEY")]
        key: String,
    },
    /// Replace the password in use by another
    Passwd(NewPassword),
}

/// Where the new password comes from; asked on the terminal otherwise.
#[derive(Args, Debug)]
pub(crate) struct NewPassword {
    /// Read the new password from a file
    #[arg(long, value_name = "FILE", conflicts_with = "new_password_command")]
    new_password_file: Option<PathBuf>,

    /// Run a command that prints the new password
    #[arg(long, value_name = "COMMAND")]
    new_password_command: Option<String>,
}

impl NewPassword {
    fn add_to(&self, session: &Session<'_>) -> Result<Id> {
        let sources = Sources {
            file: self.new_password_file.as_deref(),
            command: self.new_password_command.as_deref(),
            variable: None,
        };
        let password = sources.choose(&session.repository.storage().location())?;
        Ok(session.repository.add_key(&password, &session.holder)?)
    }
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    let session = Session::open(global, output)?;
    match command {
        Command::List => list(&session)?,
        Command::Add(new) => {
            let _lock = session.lock_shared()?;
            let id = new.add_to(&session)?;
            told(output, "added", id)?;
        }
        Command::Remove { key } => remove(&session, key)?,
        Command::Passwd(new) => {
            let _lock = session.lock_exclusive()?;
            // The new one first: a crash leaves both, never none.
            let id = new.add_to(&session)?;
            session.repository.storage().remove(&StoredFile::new(FileKind::Key, session.repository.key_id()))?;
            told(output, "replaced by", id)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn told(output: &Output, what: &str, id: Id) -> Result<()> {
    if output.json {
        output.json(&serde_json::json!({ "id": id }))?;
    } else if !output.quiet {
        output.line(format_args!("key {what} {}", id.short()))?;
    }
    Ok(())
}

fn remove(session: &Session<'_>, text: &str) -> Result<()> {
    let _lock = session.lock_exclusive()?;
    let keys = list_keys(session.repository.storage())?;
    let text = text.to_ascii_lowercase();
    let matching: Vec<Id> =
        keys.iter().map(|(id, _)| *id).filter(|id| !text.is_empty() && id.to_string().starts_with(&text)).collect();
    let id = match matching.as_slice() {
        [id] => *id,
        [] => {
            return Err(CommandError::new(format!("there is no key {text:?}"))
                .hint("`snapback repo key list` shows them")
                .into());
        }
        _ => {
            return Err(CommandError::new(format!("{text:?} is the beginning of {} keys", matching.len()))
                .hint("type more of it")
                .into());
        }
    };
    if id == session.repository.key_id() {
        let error = CommandError::new(format!("key {} is the one in use", id.short()));
        return Err(error
            .hint("open the repository with another password first, or use `snapback repo key passwd`")
            .into());
    }
    session.repository.storage().remove(&StoredFile::new(FileKind::Key, id))?;
    told(session.output, "removed:", id)
}

fn list(session: &Session<'_>) -> Result<()> {
    let output = session.output;
    let _lock = session.lock_for_reading()?;
    let current = session.repository.key_id();
    let keys = list_keys(session.repository.storage())?;
    if output.json {
        let documents: Vec<_> = keys
            .iter()
            .map(|(id, key)| match key {
                Ok(key) => serde_json::json!({
                    "id": id, "current": *id == current,
                    "user": key.username, "host": key.hostname, "created": key.created,
                }),
                Err(error) => serde_json::json!({ "id": id, "error": error.to_string() }),
            })
            .collect();
        output.json(&documents)?;
        return Ok(());
    }
    let now = open::now().secs;
    let mut rows = Vec::new();
    for (id, key) in keys {
        let shown = if output.verbose { id.to_string() } else { id.short() };
        let in_use = if id == current { "in use" } else { "" }.to_owned();
        match key {
            Ok(key) => {
                let created = key.created.parse::<repository::tree::Timestamp>();
                let time = created.as_ref().map_or(key.created.clone(), |time| human::local_time(*time));
                let age = created.map_or(String::new(), |time| human::age(now, time.secs));
                rows.push(vec![shown, key.username, key.hostname, time, age, in_use]);
            }
            Err(error) => output.warning(error),
        }
    }
    output.table(&[words("ID"), words("User"), words("Host"), words("Created"), words("Age"), words("")], rows)?;
    Ok(())
}
