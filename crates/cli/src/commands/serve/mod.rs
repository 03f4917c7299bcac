//! `snapback serve`

mod guards;
mod log;
mod worker;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use engine::catalog::{self, Recorder};
use engine::daemon::{self, Event, Host, Loaded, Message, Options, State};
use jiff::tz::TimeZone;

use self::log::Log;
use self::worker::ByJobs;
use crate::clock::SystemClock;
use crate::configuration;
use crate::error::in_one_line;
use crate::global::Global;
use crate::human;
use crate::output::Output;
use crate::signals;
use crate::snapshots::Session;

/// How often to look at the clock, which may be set, and whose machine may have slept.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Make snapshots and backups by the clock, as the plans of the configuration say.
#[derive(Args, Debug)]
#[command(after_help = "\
It stays in the foreground, and tells what it does on stderr, one line each; snapback.service of
systemd runs it. SIGHUP reads the configuration again; one that is broken changes nothing.
SIGTERM ends what runs at its next step, and then the daemon; a second one ends all at once.
Whatever ends it, the next one goes on from there.")]
pub(crate) struct Command {
    /// Do what is due now, and end: for cron, or where no daemon shall run
    #[arg(long)]
    once: bool,
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    // Whoever starts it by hand is told as by any command.
    configuration::load(global)?;
    let output = &output.of_a_service();
    let log = Log::new(output);
    let session = Session::open(global, output)?;
    // What was cut short is finished or taken back before anything else is done.
    drop(session.lock()?);
    tell_cut_short(&session);
    let (sender, receiver) = channel();
    listen(&sender).context("cannot listen to signals")?;
    let manager = std::env::var_os("NOTIFY_SOCKET").filter(|_| !command.once);
    let host = Program { global: global.clone(), output: output.clone(), log: log.with_manager(manager) };
    guards::look_after(&session, command.once)?;
    let look_every = host.log.watchdog_interval().map_or(LOOK_EVERY, |interval| LOOK_EVERY.min(interval / 3));
    let options = Options { once: command.once, look_every };
    let served = daemon::serve(session.state.root(), &SystemClock, &host, (&sender, &receiver), options)?;
    let is_all_done = !command.once || served.0 == 0;
    host.log.ended();
    Ok(if is_all_done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Jobs whose process died are written down as such.
fn tell_cut_short(session: &Session<'_>) {
    let output = session.output;
    let path = session.state.root().join(catalog::FILE_NAME);
    let recorder = Recorder::open(&path, session.now, |text| output.warning(text));
    for job in recorder.note(|catalog| catalog.end_dead_jobs(session.now)).unwrap_or_default() {
        let of = job.project.as_deref().or(job.repository.as_deref()).unwrap_or_default();
        let started = human::clock_time(job.started, false);
        output.message(format_args!("{of}: a {} that was begun {started} was cut short", job.kind.as_str()));
    }
}

/// From signals to messages.
fn listen(sender: &Sender<Message>) -> std::io::Result<()> {
    let (end, hangup) = signals::of_a_service()?;
    for (mut signals, message) in [(end, (|| Message::Stop) as fn() -> Message), (hangup, || Message::Reload)] {
        let sender = sender.clone();
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            use std::io::Read as _;
            let mut byte = [0];
            while signals.read(&mut byte).is_ok_and(|read| read == 1) && sender.send(message()).is_ok() {}
        })?;
    }
    Ok(())
}

/// What the loop knows of this program.
struct Program {
    global: Global,
    output: Output,
    log: Log,
}

impl Host for Program {
    fn load(&self) -> Result<Loaded, String> {
        let config = configuration::load(&self.global).map_err(|error| in_one_line(&error))?;
        for warning in &config.warnings {
            self.log.warning(&warning.to_string());
        }
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let plan = daemon::tasks(&config, &host);
        let worker = ByJobs::new(config, self.global.clone(), self.output.clone());
        Ok(Loaded { plan, zone: TimeZone::system(), worker: Arc::new(worker) })
    }

    fn tell(&self, event: &Event<'_>) {
        self.log.event(event);
    }

    fn alive(&self, state: &State<'_>) {
        self.log.alive(state);
    }
}
