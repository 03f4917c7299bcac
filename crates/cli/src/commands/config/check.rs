//! `snapback config check`

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use engine::config::{Config, ConfigError, Issue, PasswordSource};
use engine::database::held;

use crate::configuration;
use crate::error::Code;
use crate::global::Global;
use crate::human;
use crate::output::{Output, printable};

/// Check the configuration file, and whether this machine has what it names.
#[derive(Args, Debug)]
#[command(after_help = "\
All errors are told at once, each with file, line and what would mend it. Warnings do not change the
exit code, which is 1 if there is an error.")]
pub(crate) struct Command {}

pub(crate) fn run(_: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    let path = configuration::path(global)?;
    let (config, issues) = match Config::load(&path, configuration::home().as_deref()) {
        Ok(config) => (config, Vec::new()),
        Err(ConfigError::Invalid { issues, .. }) => (Config::default(), issues),
        Err(error) => return Err(error.into()),
    };
    let mut warnings = config.warnings.clone();
    warnings.extend(on_this_machine(&path, &config));
    if output.json {
        output.json(&serde_json::json!({
            "path": path,
            "errors": issues.iter().map(document).collect::<Vec<_>>(),
            "warnings": warnings.iter().map(document).collect::<Vec<_>>(),
            "projects": config.projects.keys().collect::<Vec<_>>(),
            "plans": config.plans.keys().collect::<Vec<_>>(),
            "repositories": config.repositories.keys().collect::<Vec<_>>(),
        }))?;
    } else {
        for issue in &issues {
            output.error(&issue.to_string(), issue.fix.as_deref(), Code::Failed as u8);
        }
        for warning in &warnings {
            output.warning(with_fix(warning));
        }
    }
    if !issues.is_empty() {
        output.message(format_args!("{}: {}", printable(&path), human::counted(issues.len() as u64, "error")));
        return Ok(Code::Failed.into());
    }
    let count = |number: usize, what: &str| human::counted(number as u64, what);
    output.message(format_args!(
        "{} is well: {}, {}, {}",
        printable(&path),
        count(config.projects.len(), "project"),
        count(config.plans.len(), "plan"),
        count(config.repositories.len(), "repository"),
    ));
    Ok(ExitCode::SUCCESS)
}

fn with_fix(issue: &Issue) -> String {
    match &issue.fix {
        Some(fix) => format!("{issue}; {fix}"),
        None => issue.to_string(),
    }
}

fn document(issue: &Issue) -> serde_json::Value {
    serde_json::json!({
        "line": issue.place.map(|place| place.line),
        "column": issue.place.map(|place| place.column),
        "message": issue.message,
        "fix": issue.fix,
    })
}

/// What the file alone does not show.
fn on_this_machine(path: &Path, config: &Config) -> Vec<Issue> {
    let mut issues = Vec::new();
    let mut warn = |message: String, fix: &str| {
        issues.push(Issue { path: path.to_owned(), place: None, message, fix: Some(fix.to_owned()) });
    };
    if let Ok(metadata) = path.metadata() {
        let is_foreign = rustix::process::geteuid().is_root() && metadata.uid() != 0;
        if metadata.permissions().mode() & 0o022 != 0 || is_foreign {
            let fix = format!("chown root {0}; chmod 644 {0}", path.display());
            warn("others can write to it, and so decide which commands are run".to_owned(), &fix);
        }
    }
    for project in config.projects.values() {
        for path in project.paths.iter().filter(|path| !path.exists()) {
            let message = format!("project.{}: {} is not there", project.name, printable(path));
            warn(message, "create it, or correct the path");
        }
    }
    for project in config.projects.values() {
        for (name, why) in held::not_inside(project) {
            let what = format!("project.{}: snapshots of it do not hold the database {name}: {why}", project.name);
            warn(what, "its dump in backups does; or add the directory of its files to paths");
        }
    }
    for repository in config.repositories.values() {
        let PasswordSource::File(file) = &repository.password else { continue };
        let what = format!("repository.{}: the password file {}", repository.name, printable(file));
        match file.metadata() {
            Err(error) => warn(format!("{what}: {error}"), "write the password into it, and keep a copy elsewhere"),
            Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => {
                warn(format!("{what} is readable by others"), &format!("chmod 600 {}", file.display()));
            }
            Ok(_) => {}
        }
    }
    issues
}
