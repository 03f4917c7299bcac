//! Guards whose watchdog is gone get another one: a process of its own, which outlives this daemon.

use std::process::Child;
use std::time::Duration;

use anyhow::Result;
use engine::guard::Guards;

use crate::clock::SystemClock;
use crate::commands::guard::start_watchdog;
use crate::snapshots::Session;

const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Looks now, and, unless `once`, as long as this process lives.
pub(super) fn look_after(session: &Session<'_>, once: bool) -> Result<()> {
    let mut watchdogs = look(session)?;
    if once {
        return Ok(());
    }
    let (state, nets, output) = (session.state.clone(), session.nets.clone(), session.output.clone());
    let mut has_failed = false;
    std::thread::Builder::new().name("guards".to_owned()).spawn(move || {
        loop {
            std::thread::sleep(LOOK_EVERY);
            // One that has ended is waited for.
            watchdogs.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
            let now = jiff::Timestamp::now();
            match look(&Session { state: state.clone(), nets: nets.clone(), now, output: &output }) {
                Ok(started) => watchdogs.extend(started),
                Err(error) if !has_failed => {
                    has_failed = true;
                    output.warning(format_args!("guards cannot be looked after: {error}"));
                }
                Err(_) => {}
            }
        }
    })?;
    Ok(())
}

fn look(session: &Session<'_>) -> Result<Vec<Child>> {
    let back = session.roll_back();
    let guards = Guards::open(&session.state, &SystemClock, &back)?;
    let mut started = Vec::new();
    for id in guards.unwatched()? {
        session.output.message(format_args!("guard {id} has lost its watchdog, and gets another one"));
        started.extend(start_watchdog(id, session.state.root())?);
        guards.wait_for_watchdog(id)?;
    }
    Ok(started)
}
