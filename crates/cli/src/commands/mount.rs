//! `snapback mount`

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use backup::mount::{self, MountError};
use clap::Args;

use crate::error::CommandError;
use crate::global::Global;
use crate::open::Session;
use crate::output::Output;
use crate::progress_bar::Quiet;
use crate::signals;

/// Show all backups as a read-only file system, until Ctrl-C or `umount`.
#[derive(Args, Debug)]
pub(crate) struct Command {
    /// An empty directory
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// Let other users look too, as modes and owners in the backups say
    #[arg(long)]
    allow_other: bool,
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    let session = Session::open(global, output)?;
    let _lock = session.lock_for_reading()?;
    let index = Arc::new(session.repository.load_index()?);
    let options = mount::Options { allow_other: command.allow_other, ..mount::Options::default() };
    let progress = Arc::new(Quiet::new(output));
    let mounted = mount::mount(Arc::clone(&session.repository), index, &command.directory, &options, progress)
        .map_err(explain)?;
    let unmounter = mounted.unmounter();
    // It waits for ever if somebody unmounts; the end of the process ends it.
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        signals::wait();
        unmounter.unmount();
    })?;
    let directory = command.directory.display();
    if output.json {
        output.json(&serde_json::json!({ "type": "mounted", "directory": directory.to_string() }))?;
    } else {
        output.message(format_args!("the backups are below {directory}, until Ctrl-C or `umount {directory}`"));
    }
    mounted.wait().map_err(explain)?;
    Ok(ExitCode::SUCCESS)
}

fn explain(error: MountError) -> anyhow::Error {
    match &error {
        MountError::Directory { path, source } if source.kind() == std::io::ErrorKind::NotFound => {
            let hint = format!("mkdir {}", path.display());
            CommandError::new(format!("cannot mount on {}: there is no such directory", path.display()))
                .hint(hint)
                .into()
        }
        _ => error.into(),
    }
}
