//! `snapback repo check`

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use repository::check::{self, Options, ReadData, Report};

use crate::error::Code;
use crate::global::Global;
use crate::human;
use crate::open::{self, Session};
use crate::output::Output;
use crate::progress_bar::Meter;

/// Look whether the repository is whole.
#[derive(Args, Debug)]
#[command(after_help = "\
Everything is read but the files' contents: whether these can be read too, only --read-data tells.
Ends with 1 if anything is wrong, and says what to do about it.")]
pub(crate) struct Command {
    /// Read all data too
    #[arg(long)]
    read_data: bool,

    /// Read some of the data: 5% of it, chosen anew each time, or 2/10, the second of ten parts
    #[arg(long, value_name = "N%|N/M", value_parser = subset, conflicts_with = "read_data")]
    read_data_subset: Option<ReadData>,
}

fn subset(text: &str) -> Result<ReadData, String> {
    let wrong = || format!("{text:?} is no part; write 5% or 2/10");
    if let Some(percent) = text.strip_suffix('%') {
        let percent: f64 = percent.trim().parse().map_err(|_| wrong())?;
        let now = open::now();
        let seed = now.secs.unsigned_abs() ^ u64::from(now.nanos) << 32;
        let is_part = percent > 0.0 && percent <= 100.0;
        return is_part.then_some(ReadData::Percent { percent, seed }).ok_or_else(wrong);
    }
    let (number, of) = text.split_once('/').ok_or_else(wrong)?;
    let (number, of): (u32, u32) = (number.parse().map_err(|_| wrong())?, of.parse().map_err(|_| wrong())?);
    if !(1..=256).contains(&of) || !(1..=of).contains(&number) {
        return Err(format!("there is no part {number} of {of}; there can be 256 parts"));
    }
    Ok(ReadData::Part { number, of })
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    let session = Session::open(global, output)?;
    let _lock = session.lock_for_reading()?;
    let whole = if command.read_data { ReadData::All } else { ReadData::None };
    let options = Options { read_data: command.read_data_subset.unwrap_or(whole) };
    let started = Instant::now();
    let report = {
        let meter = Meter::start(output, "checking");
        check::check(&session.repository, &options, &meter)?
    };
    show(&report, started.elapsed(), output)?;
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { Code::Failed.into() })
}

fn show(report: &Report, time: Duration, output: &Output) -> Result<()> {
    let figures = &report.figures;
    if output.json {
        let texts = |texts: &mut dyn Iterator<Item = String>| texts.collect::<Vec<_>>();
        output.json(&serde_json::json!({
            "type": "summary",
            "errors": texts(&mut report.errors.iter().map(ToString::to_string)),
            "more_errors": report.more_errors,
            "hints": texts(&mut report.hints.iter().map(ToString::to_string)),
            "ways_out": report.ways_out(),
            "backups": figures.backups,
            "packs": figures.packs,
            "pack_bytes": figures.pack_bytes,
            "blobs": figures.blobs,
            "used_blobs": figures.used_blobs,
            "packs_read": figures.packs_read,
            "bytes_read": figures.bytes_read,
            "seconds": time.as_secs_f64(),
        }))?;
        return Ok(());
    }
    for problem in &report.errors {
        output.line(format_args!("error: {problem}"))?;
    }
    for hint in &report.hints {
        output.message(format_args!("note: {hint}"));
    }
    if !output.quiet {
        output.line(format_args!(
            "checked {}: {} in {}, {} of data read, in {}",
            human::counted(figures.backups, "backup"),
            human::size(figures.pack_bytes),
            human::counted(figures.packs, "pack"),
            human::size(figures.bytes_read),
            human::duration(time),
        ))?;
    }
    if report.is_clean() {
        if !output.quiet {
            output.line("no errors")?;
        }
        return Ok(());
    }
    let count = report.errors.len() as u64 + report.more_errors;
    output.line(format_args!("{}; what to do, in this order:", human::counted(count, "error")))?;
    for way in report.ways_out() {
        output.line(format_args!("  {way}"))?;
    }
    Ok(())
}
