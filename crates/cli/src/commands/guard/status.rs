//! `snapback guard --status` and `--resume`

use std::process::ExitCode;

use anyhow::Result;
use engine::guard::Guards;
use engine::guard::document::{Guard, Outcome, Phase};
use engine::process::Process;

use crate::error::Code;
use crate::human;
use crate::output::{Output, words};
use crate::snapshots::{Session, listed};

/// What is open, and what ended within a day.
pub(crate) fn show(guards: &Guards<'_>, session: &Session<'_>) -> Result<ExitCode> {
    let output = session.output;
    let all = guards.all()?;
    if output.json {
        let document = |guard: &Guard| -> Result<serde_json::Value> {
            let remaining = guards.remaining(guard)?.filter(|_| guard.is_open());
            let mut document = serde_json::to_value(guard)?;
            document["remaining_secs"] = serde_json::json!(remaining.map(|time| time.as_secs()));
            document["watched"] = serde_json::json!(guard.watchdog.as_ref().is_some_and(Process::is_alive));
            Ok(document)
        };
        output.json(&all.iter().map(document).collect::<Result<Vec<_>>>()?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if all.is_empty() {
        output.message("no guards");
        return Ok(ExitCode::SUCCESS);
    }
    let columns = [words("Snapshot"), words("Directory"), words("Begun"), words("State"), words("Command")];
    let mut rows = Vec::new();
    for guard in &all {
        let begun = human::age(session.now.as_second(), guard.started.as_second());
        rows.push(vec![
            guard.id.to_string(),
            listed(&guard.directories()),
            begun,
            state(guard, guards)?,
            guard.command.clone(),
        ]);
    }
    output.table(&columns, rows)?;
    for guard in all.iter().filter(|guard| guard.is_unwatched()) {
        output
            .warning(format_args!("nobody watches over guard {}: `snapback guard --resume` goes on with it", guard.id));
    }
    Ok(ExitCode::SUCCESS)
}

fn state(guard: &Guard, guards: &Guards<'_>) -> Result<String> {
    Ok(match &guard.phase {
        Phase::Running if guard.process.is_alive() => "the command runs".to_owned(),
        Phase::Running => "the command was cut short".to_owned(),
        Phase::Waiting => {
            let left = guards.remaining(guard)?.unwrap_or_default().as_secs();
            format!("goes back in {}:{:02}, unless confirmed", left / 60, left % 60)
        }
        Phase::RollingBack => "is going back".to_owned(),
        Phase::Ended { outcome, .. } => match outcome {
            Outcome::Passed => "all went well".to_owned(),
            Outcome::Confirmed => "confirmed".to_owned(),
            Outcome::RolledBack { .. } => "rolled back".to_owned(),
            Outcome::Kept => "not rolled back".to_owned(),
            Outcome::Failed { message } => format!("could not go back: {message}"),
        },
    })
}

/// Watches over what nobody watches over, until all of it has ended.
pub(crate) fn resume(guards: &Guards<'_>, output: &Output) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for ended in guards.resume()? {
        match ended {
            Ok(guard) => {
                let directory = listed(&guard.directories());
                output.message(format_args!("guard {} of {directory}: {}", guard.id, state(&guard, guards)?));
                if matches!(guard.phase, Phase::Ended { outcome: Outcome::Failed { .. }, .. }) {
                    code = Code::Failed.into();
                }
            }
            Err(error) => {
                output.warning(error);
                code = Code::Failed.into();
            }
        }
    }
    Ok(code)
}
