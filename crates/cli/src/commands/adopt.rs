//! `snapback adopt`: where there can be no snapshots, making them possible.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Args;
use engine::config::Project;
use engine::convert;
use snapshot::adopt::{self, Plan, Request, Volume};
use snapshot::holders::Holder;
use snapshot::provider::Kind;
use snapshot::runner::System;

use crate::ask::{self, Answer};
use crate::configuration::Target;
use crate::error::{Code, CommandError};
use crate::global::Global;
use crate::human;
use crate::output::{Output, printable};
use crate::snapshots::{Session, provider_of};

/// Make snapshots of a directory possible where its file system has none.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
On btrfs the directory is made a subvolume of its own, in place, within seconds. Elsewhere (ext4, say) it
is moved onto a btrfs volume in a file, which is mounted in its place, now and at each start: copied and
compared before anything is changed. What it held stays below the volume, closed, unless --remove-old.

  snapback adopt /srv/shop --size 20G")]
pub(crate) struct Command {
    /// The directory, or a project: each of its directories, with its units stopped meanwhile
    #[arg(value_name = "PROJECT|DIR", required_unless_present = "keep_up")]
    directory: Option<PathBuf>,

    /// How large the volume shall be (of a project of several directories, each), such as 20G; the room is taken from the disk at once
    #[arg(long, value_name = "SIZE", value_parser = human::parse_size)]
    size: Option<u64>,

    /// Make the volume larger, to this size
    #[arg(long, value_name = "SIZE", value_parser = human::parse_size, conflicts_with_all = ["size", "undo"])]
    grow: Option<u64>,

    /// Move the directory back from its volume, and remove the volume
    #[arg(long, conflicts_with = "size")]
    undo: bool,

    /// Change nothing, only show what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Do not ask
    #[arg(short, long)]
    yes: bool,

    /// Where the image files of the volumes lie, instead of `volumes` in the state directory
    #[arg(long, value_name = "DIR")]
    volumes: Option<PathBuf>,

    /// Stop this unit of systemd meanwhile (may be repeated)
    #[arg(long, value_name = "UNIT")]
    stop: Vec<String>,

    /// Remove what the directory held from below the volume
    #[arg(long, conflicts_with_all = ["undo", "grow"])]
    remove_old: bool,

    /// After a start of the system, do for all volumes what their mounting leaves undone
    #[arg(long, hide = true)]
    keep_up: bool,
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    let session = Session::open(global, output)?;
    let volumes = match &command.volumes {
        Some(given) => given.canonicalize().with_context(|| format!("cannot use {}", given.display()))?,
        None => session.state.root().join("volumes"),
    };
    let Some(named) = command.directory.as_deref().filter(|_| !command.keep_up) else {
        return keep_up(&volumes, output);
    };
    let target = Target::find(named, global)?;
    let command = &command.of(target.project());
    let mut code = ExitCode::SUCCESS;
    for directory in target.directories() {
        // One after the other: what went wrong with one is looked at before the next is touched.
        code = adopt_one(directory, command, &volumes, target.directories().len() > 1, &session)?;
        if code != ExitCode::SUCCESS {
            break;
        }
    }
    Ok(code)
}

fn adopt_one(
    directory: &Path,
    command: &Command,
    volumes: &Path,
    is_one_of_several: bool,
    session: &Session<'_>,
) -> Result<ExitCode> {
    let directory = directory.canonicalize().with_context(|| format!("cannot adopt {}", directory.display()))?;
    if command.grow.is_some() || command.undo {
        let volume = find(volumes, &directory)?;
        if let Some(bytes) = command.grow {
            return grow(&volume, bytes, command.dry_run, session);
        }
        let plan = adopt::plan_back(&volume, command.stop.clone())?;
        return move_it(plan, command, session);
    }
    // Of a project, some may have what the others lack.
    if is_one_of_several && provider_of(&directory).is_ok_and(|provider| provider.kind() != Kind::Reflink) {
        session.output.message(format_args!("{} can have snapshots already", printable(&directory)));
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(plan) = convert::plan(&directory, command.stop.clone())? {
        return make_subvolume(plan, &directory, command, session);
    }
    let Some(bytes) = command.size else {
        let error = CommandError::usage("how large shall the volume be?");
        return Err(error.hint("--size 20G; it holds the directory, and what snapshots keep of it").into());
    };
    if command.volumes.is_none() {
        std::fs::create_dir_all(volumes).with_context(|| format!("cannot create {}", volumes.display()))?;
    }
    let name = adopt::unit_name(&directory);
    let image = volumes.join(format!("{}.btrfs", name.trim_end_matches(".mount")));
    let units = adopt::is_systemd().then(adopt::usual_units);
    let request =
        Request { directory, image, bytes, units, stop: command.stop.clone(), keeps_old: !command.remove_old };
    let plan = adopt::plan(&request, &System)?;
    move_it(plan, command, session)
}

impl Command {
    /// With what the project says where the arguments say nothing.
    fn of(&self, project: Option<&Project>) -> Command {
        let mut command = self.clone();
        if let Some(project) = project.filter(|_| self.stop.is_empty()) {
            command.stop.clone_from(&project.units);
        }
        command
    }
}

fn find(volumes: &Path, directory: &Path) -> Result<Volume> {
    let found = if volumes.is_dir() { Volume::find(volumes, directory)? } else { None };
    let none = || CommandError::new(format!("{} has no volume in {}", directory.display(), volumes.display()));
    Ok(found.ok_or_else(none)?)
}

/// Onto a volume, or back.
fn move_it(plan: Plan, command: &Command, session: &Session<'_>) -> Result<ExitCode> {
    let output = session.output;
    let (job, directory) = (&plan.job, printable(&plan.job.volume.directory));
    let image = printable(&job.volume.image);
    match job.is_back {
        false => output.message(format_args!(
            "This moves {directory} onto a btrfs volume of {} in {image}:",
            human::size(job.bytes)
        )),
        true => output.message(format_args!("This moves {directory} back from its volume, and removes {image}:")),
    }
    let line = |title: &str, text: &str| output.message(format_args!("  {title:<9} {text}"));
    let (files, bytes) = (human::counted(plan.amount.files, "file"), human::size(plan.amount.bytes));
    line("copied", &format!("{files}, {bytes}, and compared before the switch"));
    if !job.stopped.is_empty() {
        line("stopped", &format!("{}, and started again", job.stopped.join(", ")));
    }
    tell_holders(&plan.holders, output);
    for step in &job.steps {
        output.detail(format_args!("  step      {}", step.name()));
    }
    if !is_wanted(command, output)? {
        let steps = job.steps.iter().map(|step| step.name().to_owned()).collect();
        return not_done(command, &job.volume.directory, Some(&job.volume.image), steps, output);
    }
    let begun = Instant::now();
    let lock = session.lock()?;
    job.run(&lock, &System, &mut |what| output.detail(what))?;
    let took = human::duration(begun.elapsed());
    output.message(format_args!("done in {took}"));
    if !job.is_back && job.volume.units.is_none() {
        output.warning("without systemd the volume is mounted at the next start only by a line in /etc/fstab:");
        output.warning(adopt::fstab_line(&job.volume.directory, &job.volume.image));
    }
    if output.json {
        let image = (!job.is_back).then(|| job.volume.image.to_string_lossy());
        let directory = job.volume.directory.to_string_lossy();
        output.json(&serde_json::json!({ "directory": directory, "image": image }))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn make_subvolume(plan: convert::Plan, directory: &Path, command: &Command, session: &Session<'_>) -> Result<ExitCode> {
    let output = session.output;
    output.message(format_args!("This makes {} a subvolume of its own, in place", printable(directory)));
    tell_holders(&plan.holders, output);
    for step in plan.steps() {
        output.detail(format_args!("  step      {step}"));
    }
    if !is_wanted(command, output)? {
        return not_done(command, directory, None, plan.steps().map(str::to_owned).collect(), output);
    }
    let begun = Instant::now();
    plan.run(&session.lock()?, &System, &mut |what| output.detail(what))?;
    output.message(format_args!("done in {}", human::duration(begun.elapsed())));
    if output.json {
        output.json(&serde_json::json!({ "directory": directory.to_string_lossy(), "image": null }))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A dry run, or somebody who said no.
fn not_done(
    command: &Command,
    directory: &Path,
    image: Option<&Path>,
    steps: Vec<String>,
    output: &Output,
) -> Result<ExitCode> {
    if !command.dry_run {
        return Ok(Code::Failed.into());
    }
    if output.json {
        let image = image.map(Path::to_string_lossy);
        let directory = directory.to_string_lossy();
        output.json(&serde_json::json!({ "dry_run": true, "directory": directory, "image": image, "steps": steps }))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Who is in the way as long as they are there.
fn tell_holders(holders: &[Holder], output: &Output) {
    for (number, holder) in holders.iter().enumerate() {
        let title = if number == 0 { "in use by" } else { "" };
        output.message(format_args!("  {title:<9} {holder}"));
    }
}

fn is_wanted(command: &Command, output: &Output) -> Result<bool> {
    if command.dry_run || command.yes {
        return Ok(command.yes && !command.dry_run);
    }
    match ask::yes_or_no("Go on?", output) {
        Answer::Yes => Ok(true),
        Answer::No => {
            output.message("nothing was changed");
            Ok(false)
        }
        Answer::Nobody => {
            let error = CommandError::usage("there is no terminal to ask on, and nothing was changed");
            Err(error.hint("--dry-run shows what would be done, --yes does it").into())
        }
    }
}

fn grow(volume: &Volume, bytes: u64, dry_run: bool, session: &Session<'_>) -> Result<ExitCode> {
    let (directory, size) = (printable(&volume.directory), human::size(bytes));
    if dry_run {
        session.output.message(format_args!("the volume of {directory} would be made {size} large"));
        return Ok(ExitCode::SUCCESS);
    }
    let _lock = session.lock()?;
    volume.grow(bytes)?;
    session.output.message(format_args!("the volume of {directory} is {size} large now"));
    Ok(ExitCode::SUCCESS)
}

/// One volume that cannot be kept up does not concern the others.
fn keep_up(volumes: &Path, output: &Output) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    if !volumes.is_dir() {
        return Ok(code);
    }
    for volume in Volume::all(volumes)? {
        if let Err(error) = volume.keep_up() {
            output.warning(format_args!("the volume of {}: {error}", printable(&volume.directory)));
            code = Code::Failed.into();
        }
    }
    Ok(code)
}
