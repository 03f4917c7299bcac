//! `cargo xtask test`: everything the tests need, then the tests.
//!
//! The tests take the parts they find and say nothing of those they do not; that nothing is quietly missing is
//! this command's matter. With `CI=true` a missing part is a failure, else it is named before and after the tests.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::untouched::System;
use crate::{debian, parts, shell};

/// The newest restic there is: the tests' second judge beside Debian stable's.
const NEW_RESTIC: &str = "SNAPBACK_TEST_RESTIC";
/// The restic of Debian stable.
const OLD_RESTIC: &str = "SNAPBACK_TEST_RESTIC_OLD";

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let mut notices = Vec::new();
    install_parts(&mut notices)?;
    let old = find_restic(OLD_RESTIC, || shell::which("restic").context("restic is not installed"), &mut notices);
    let new = find_restic(NEW_RESTIC, debian::newest_restic, &mut notices);
    for notice in &notices {
        eprintln!("xtask: missing: {notice}");
    }
    if shell::is_ci() && !notices.is_empty() {
        bail!("with CI=true a missing part is a failure");
    }

    let mut tests = shell::cargo();
    tests.args(["test", "--workspace", "--no-fail-fast"]).args(arguments);
    for (variable, restic) in [(OLD_RESTIC, old), (NEW_RESTIC, new)] {
        if let Some(restic) = restic {
            println!("xtask: {variable}={} ({})", restic.display(), restic_version(&restic)?);
            tests.env(variable, restic);
        }
    }
    let system = System::now();
    let tested = shell::run(&mut tests);
    system.assert_untouched()?;
    tested?;
    for notice in &notices {
        eprintln!("xtask: tested without: {notice}");
    }
    Ok(())
}

fn install_parts(notices: &mut Vec<String>) -> Result<()> {
    let missing = parts::missing();
    if missing.is_empty() {
        return Ok(());
    }
    if shell::is_root() && shell::which("apt-get").is_some() {
        for part in &missing {
            println!("xtask: installing {}: {}", part.package, part.why);
        }
        return parts::install(&missing);
    }
    for part in &missing {
        notices.push(format!("{} ({}): {}", part.program, part.package, part.why));
    }
    eprintln!("xtask: on Debian, what is missing is installed with: {}", parts::install_line(&missing));
    Ok(())
}

/// The restic that the variable names, if it is set; else what `find` finds.
fn find_restic(variable: &str, find: impl FnOnce() -> Result<PathBuf>, notices: &mut Vec<String>) -> Option<PathBuf> {
    if let Some(given) = std::env::var_os(variable) {
        return Some(given.into());
    }
    match find() {
        Ok(restic) => Some(restic),
        Err(error) => {
            notices.push(format!("a restic for {variable}: {error:#}"));
            None
        }
    }
}

fn restic_version(restic: &PathBuf) -> Result<String> {
    let said = shell::output(Command::new(restic).arg("version"))?;
    Ok(said.trim_end().to_owned())
}
