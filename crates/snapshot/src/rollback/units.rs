//! Units of systemd, systemctl(1).

use std::ffi::OsString;

use crate::error::Error;
use crate::runner::{self, Runner};

/// Those that run or are about to.
pub(super) fn running(runner: &dyn Runner, units: &[String]) -> Result<Vec<String>, Error> {
    let mut running = Vec::new();
    for unit in units {
        let arguments = ["show", "--property=LoadState,ActiveState", "--", unit];
        let answer = runner::run(runner, "systemctl", &arguments)?;
        if answer.lines().any(|line| line == "LoadState=not-found") {
            return Err(Error::refused(format!("there is no unit {unit}")).or("see its name: systemctl list-units"));
        }
        let is_active =
            |line| matches!(line, "ActiveState=active" | "ActiveState=activating" | "ActiveState=reloading");
        if answer.lines().any(is_active) {
            running.push(unit.clone());
        }
    }
    Ok(running)
}

/// Stops units, and waits until they have.
pub(super) fn stop(runner: &dyn Runner, units: &[String]) -> Result<(), Error> {
    all(runner, "stop", units)
}

/// Starts units, and waits until they say that they have.
pub(super) fn start(runner: &dyn Runner, units: &[String]) -> Result<(), Error> {
    all(runner, "start", units)
}

/// Restarts units.
pub(super) fn restart(runner: &dyn Runner, units: &[String]) -> Result<(), Error> {
    all(runner, "restart", units)
}

/// In one call, so that systemd brings them into their order.
fn all(runner: &dyn Runner, verb: &str, units: &[String]) -> Result<(), Error> {
    if units.is_empty() {
        return Ok(());
    }
    let arguments: Vec<OsString> =
        [verb, "--"].into_iter().map(OsString::from).chain(units.iter().map(OsString::from)).collect();
    runner::run(runner, "systemctl", &arguments).map(|_| ())
}
