//! `snapback status`

mod flow;
#[cfg(test)]
mod tests;
mod text;

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use engine::catalog::{Catalog, FILE_NAME};
use engine::config::Config;
use engine::guard::Guards;
use engine::moment::Moment;
use engine::place::System as Machine;
use engine::status::Sources;
use engine::status::gather::gather;
use engine::status::{Status, assess};
use jiff::tz::TimeZone;
use snapshot::runner::System;

use crate::clock::SystemClock;
use crate::configuration;
use crate::error::Code;
use crate::global::Global;
use crate::output::{Output, terminal_width};
use crate::snapshots::Session;

/// Show how well each project is protected, what comes next, and what needs attention.
#[derive(Args, Debug)]
#[command(after_help = "\
A snapshot lies on the disk of the files themselves, and is never counted as a backup; nor is RAID.
What cannot be found out, such as which disk lies behind a virtual one, is marked with ? and not
counted upon. `-v` says why.

Exit codes: 0 all is well; 1 something needs attention.")]
pub(crate) struct Command {
    /// Only this project
    #[arg(value_name = "PROJECT")]
    project: Option<String>,
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    let config = configuration::load(global)?;
    if let Some(name) = &command.project {
        configuration::project(&config, name)?;
    }
    let status = look(command, &config, global, output)?;
    if output.json {
        output.json(&status)?;
    } else {
        show(&status, output)?;
    }
    Ok(if status.is_well { ExitCode::SUCCESS } else { Code::Failed.into() })
}

fn look(command: &Command, config: &Config, global: &Global, output: &Output) -> Result<Status> {
    let session = Session::open(global, output)?;
    let machine = Machine::open(Path::new("/"), Arc::new(System))?;
    let catalog = match Catalog::open(session.state.root().join(FILE_NAME), session.now) {
        Ok(catalog) => Some(catalog),
        Err(error) => {
            output.warning(&error);
            None
        }
    };
    for moved in catalog.iter().flat_map(Catalog::take_moved) {
        let (to, reason) = (moved.to.display(), moved.reason);
        output.warning(format_args!("the catalog was damaged ({reason}); it is now {to}, and a new one is begun"));
    }
    let back = session.roll_back();
    let guards = Guards::open(&session.state, &SystemClock, &back)?.all()?;
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let now = Moment::now(&SystemClock)?;
    let at = now.wall;
    let sources = Sources {
        config,
        state: &session.state,
        catalog: catalog.as_ref(),
        system: &machine,
        guards: &guards,
        open: &session.opener(),
        runner: Arc::new(System),
        host: &host,
        zone: TimeZone::system(),
        now,
    };
    Ok(assess(&gather(&sources, command.project.as_deref()), at))
}

fn show(status: &Status, output: &Output) -> Result<()> {
    let stdout = std::io::stdout();
    let reader = text::Reader {
        width: terminal_width(&stdout).filter(|_| stdout.is_terminal()).map(usize::from),
        has_colors: anstream::AutoStream::choice(&stdout) != anstream::ColorChoice::Never,
        wants_all: output.verbose,
        zone: TimeZone::system(),
    };
    for line in text::lines(status, &reader) {
        output.line(line)?;
    }
    Ok(())
}
