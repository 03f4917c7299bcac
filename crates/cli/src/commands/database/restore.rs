//! `snapback database restore`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use engine::config::Config;
use engine::database::dumps::Dumps;
use engine::database::restore::{self, Done, Plan, Request};
use repository::record::BackupRecord;
use workload::address::{Address, Login};

use crate::ask::{self, Answer};
use crate::configuration;
use crate::error::{Code, CommandError};
use crate::global::Global;
use crate::human;
use crate::jobs;
use crate::output::Output;

/// Bring a database back from a backup, beside the present one until it is whole.
#[derive(Args, Debug)]
#[command(after_help = "\
Shows first what will be done, and asks. The dump is restored into a new database, which takes the name
of the present one only when it is complete; that one is kept under another name, and stays until you
drop it. With --as, nothing that is there is changed.

  snapback database restore latest orders --as orders_yesterday
  snapback database restore latest orders --as look --table customers")]
pub(crate) struct Command {
    /// From which
    #[arg(value_name = "BACKUP")]
    backup: String,

    /// Which database, as the configuration called it
    #[arg(value_name = "NAME")]
    name: String,

    /// Under this name, and leave the present database as it is
    #[arg(long = "as", value_name = "NEWNAME")]
    new_name: Option<String>,

    /// Onto this server, or into this file of SQLite, instead of where the configuration says
    #[arg(long, value_name = "URL")]
    to: Option<String>,

    /// The file whose first line is the password for --to
    #[arg(long, value_name = "FILE", requires = "to")]
    to_password_file: Option<PathBuf>,

    /// Only this table, into a database of its own (needs --as; may be repeated)
    #[arg(long, value_name = "TABLE")]
    table: Vec<String>,

    /// Only this file of the dump, where there are several
    #[arg(long, value_name = "FILE")]
    file: Option<String>,

    /// Replace a file of SQLite although programs have it open; they go on with the old one until they are restarted
    #[arg(long)]
    even_if_open: bool,

    /// Change nothing, only show what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    let (chosen, dumps) = super::dumps(&command.backup, global, output)?;
    let config = configuration::load_if_any(global)?.unwrap_or_default();
    jobs::with_context(global, output, false, |context| {
        let request = Request {
            name: command.name.clone(),
            target: command.target(&config, &dumps)?,
            new_name: command.new_name.clone(),
            tables: command.table.clone(),
            file: command.file.clone(),
            even_if_open: command.even_if_open,
        };
        let plan = restore::plan(&dumps, request, context.clock.wall())?;
        show(&plan, &chosen.id.short(), &chosen.record, output)?;
        if command.dry_run {
            return Ok(ExitCode::SUCCESS);
        }
        if !command.yes {
            match ask::yes_or_no("Go on?", output) {
                Answer::Yes => {}
                Answer::No => {
                    output.message("nothing was changed");
                    return Ok(Code::Failed.into());
                }
                Answer::Nobody => {
                    let error = CommandError::usage("there is no terminal to ask on, and nothing was changed");
                    return Err(error.hint("--dry-run shows what would be done, --yes does it").into());
                }
            }
        }
        let begun = Instant::now();
        let done = plan.perform(context)?;
        tell(done, begun, output)
    })
}

impl Command {
    /// What was asked for, what the configuration says now, or where it came from.
    fn target(&self, config: &Config, dumps: &Dumps) -> Result<Login> {
        if let Some(url) = &self.to {
            let password_file = self.to_password_file.as_deref().map(std::path::absolute).transpose()?;
            return Ok(Login { password_file, ..Login::new(Address::parse(url)?) });
        }
        let project = dumps.project().and_then(|name| config.projects.get(name));
        if let Some(database) = project.and_then(|project| project.databases.get(&self.name)) {
            return Ok(database.login.clone());
        }
        Ok(Login::new(Address::parse(&dumps.database(&self.name)?.url)?))
    }
}

fn show(plan: &Plan<'_>, backup: &str, record: &BackupRecord, output: &Output) -> Result<()> {
    if output.json {
        output.json(&serde_json::json!({
            "type": "plan", "backup": backup, "target": plan.target().address.to_string(), "steps": plan.steps,
        }))?;
        return Ok(());
    }
    let at = human::local_time(record.time);
    output.message(format_args!(
        "This brings {} back from backup {backup} of {at}{}, to {}:",
        plan.database.name,
        plan.database.server.as_ref().map(|server| format!(" ({server})")).unwrap_or_default(),
        plan.target().address,
    ));
    let line = |title: &str, text: &str| output.message(format_args!("  {title:<9} {text}"));
    for step in &plan.steps {
        let size = human::size(step.bytes);
        match &step.into {
            None => line("server", &format!("{}, {size}: what is missing is added, such as roles", step.part.file)),
            Some(into) if step.replaces => {
                line("restored", &format!("{}, {size}, beside the database {into}", step.part.file));
                line("renamed", &format!("once it is complete it becomes {into}, and the present one is kept"));
            }
            Some(into) => line("restored", &format!("{}, {size}, as {into}", step.part.file)),
        }
    }
    Ok(())
}

fn tell(done: Done, begun: Instant, output: &Output) -> Result<ExitCode> {
    for (step, restored) in &done.restored {
        if output.json {
            output.json(&serde_json::json!({
                "type": "restored", "file": step.part.file, "database": restored.database, "kept": restored.kept,
                "warnings": restored.warnings,
            }))?;
        } else if let Some(database) = &restored.database {
            output.line(format_args!("{} is restored as {database}", step.part.file))?;
        } else {
            output.line(format_args!("{} is restored", step.part.file))?;
        }
        if let Some(kept) = &restored.kept {
            output.message(format_args!("what was there before is kept as {kept}; drop it when nobody needs it"));
        }
        for warning in &restored.warnings {
            output.warning(warning);
        }
    }
    match done.failed {
        None => {
            output.message(format_args!("done in {}", human::duration(begun.elapsed())));
            Ok(ExitCode::SUCCESS)
        }
        Some((step, error)) => {
            let file = Path::new(&step.part.file).display();
            output.message(format_args!("{file} was not restored, and what it would have replaced is as before"));
            Err(error.into())
        }
    }
}
