//! `snapback guard`: a snapshot around a risky command.

mod attended;
mod status;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use engine::config::Project;
use engine::guard::{Guards, watchdog};
use snapshot::id::Id;

use crate::clock::SystemClock;
use crate::configuration::{self, Target};
use crate::error::CommandError;
use crate::global::Global;
use crate::human::parse_duration;
use crate::output::Output;
use crate::snapshots::Session;

/// By this variable whatever the command calls knows that it is guarded, and by which snapshot.
pub(crate) const GUARD_VARIABLE: &str = "SNAPBACK_GUARD";

/// Take a snapshot, run a command, and go back if it fails.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
The command has the terminal and gets all signals, and its exit code is the guard's; 1 if it succeeded,
but the check failed or nobody confirmed. If it failed, you are asked whether to go back; with --yes, not.

With --confirm all goes back unless `snapback confirm` is run in time, even if the terminal, the guard
or the machine dies meanwhile: for changes of firewalls, routes and sshd that may lock you out.

  snapback guard /srv/shop --check 'curl -fsS localhost/health' -- apt-get install -y php8.4
  snapback guard shop -- apt-get install -y php8.4
  snapback guard /etc --confirm 5m -- nft -f /etc/nftables.conf")]
pub(crate) struct Command {
    /// What may have to go back: a directory, or a project, of which the units and the probe are taken then
    #[arg(value_name = "PROJECT|DIR", required_unless_present_any = ["status", "resume", "watch"])]
    directory: Option<PathBuf>,

    /// The command and its arguments
    #[arg(value_name = "COMMAND", last = true, required_unless_present_any = ["status", "resume", "watch"])]
    command: Vec<OsString>,

    /// A command for the shell that must succeed afterwards
    #[arg(long, value_name = "COMMAND")]
    check: Option<String>,

    /// How long the check is tried again, as a service may need a while until it answers
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    check_limit: Duration,

    /// How long the snapshot is kept if all goes well
    #[arg(long, value_name = "DURATION", default_value = "2h", value_parser = parse_duration)]
    grace: Duration,

    /// Go back unless `snapback confirm` is run within this time after the command
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    confirm: Option<Duration>,

    /// With --confirm, how long the command itself may take
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_duration)]
    limit: Duration,

    /// Go back without asking
    #[arg(short, long)]
    yes: bool,

    /// If it goes back, stop this unit of systemd before, and start it after (may be repeated)
    #[arg(long, value_name = "UNIT")]
    stop: Vec<String>,

    /// If it goes back, restart this unit after (may be repeated)
    #[arg(long, value_name = "UNIT")]
    restart: Vec<String>,

    /// Show the guards that are open, and how long there is to confirm
    #[arg(long, conflicts_with_all = ["directory", "command"])]
    status: bool,

    /// Go on with what a reboot cut short, as the system does at its start
    #[arg(long, conflicts_with_all = ["directory", "command"])]
    resume: bool,

    /// Be the watchdog of a guard
    #[arg(long, hide = true, conflicts_with_all = ["directory", "command"], value_name = "SNAPSHOT")]
    watch: Option<Id>,
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    let session = Session::open(global, output)?;
    let back = session.roll_back();
    let guards = Guards::open(&session.state, &SystemClock, &back)?;
    if let Some(id) = command.watch {
        watchdog::become_watchdog();
        guards.watch(id)?;
        return Ok(ExitCode::SUCCESS);
    }
    if command.resume {
        return status::resume(&guards, output);
    }
    match &command.directory {
        Some(_) if command.confirm.is_some_and(|time| time.is_zero()) => {
            let error = CommandError::usage("within no time nobody can confirm");
            Err(error.hint("--confirm 5m; without it, nobody has to").into())
        }
        Some(named) => {
            let target = Target::find(named, global)?;
            let [first, ..] = target.directories() else {
                return Err(CommandError::usage("the project has no directory").into());
            };
            let whole = first.canonicalize();
            let of = || configuration::project_of(whole.as_deref().unwrap_or(first), global, output);
            let project = target.project().cloned().or_else(of);
            attended::run(&command.of(target.project()), &target, project.as_ref(), &session, &guards)
        }
        None if command.status => status::show(&guards, &session),
        None => Err(CommandError::usage("no directory is named").into()),
    }
}

impl Command {
    /// With what the project says where the arguments say nothing.
    fn of(&self, project: Option<&Project>) -> Command {
        let mut command = self.clone();
        let Some(project) = project else { return command };
        if command.stop.is_empty() {
            command.stop.clone_from(&project.units);
        }
        if command.check.is_none() {
            command.check.clone_from(&project.probe);
            command.check_limit = project.probe_limit;
        }
        command
    }
}

/// Starts a watchdog of its own; the process, if it is a child of this one.
pub(crate) fn start_watchdog(id: Id, state: &Path) -> Result<Option<Child>> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let name = id.to_string();
    let mut arguments: Vec<OsString> = ["guard", "--watch", &name, "--state-dir"].map(OsString::from).to_vec();
    arguments.push(state.into());
    let has_systemd = Path::new("/run/systemd/system").exists() && rustix::process::geteuid().is_root();
    Ok(watchdog::start(id, &program, &arguments, has_systemd)?)
}
