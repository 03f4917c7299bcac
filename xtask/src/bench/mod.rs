//! `cargo xtask bench`: ours and its peers over the same data, in turn, on this machine.
//!
//! A machine drifts by a fifth between one minute and the next, so nothing is said of absolute times: each tool runs
//! in each round, in an order that rotates, and ours is judged as a part of restic's median. Creating many files
//! soon after many were deleted costs several times as much on some file systems; so what a round made stays where it
//! is until the round has ended, is deleted then, and the disk is left to settle.

mod data;
mod database;
mod measure;
mod report;
mod tools;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use data::{Data, Set};
use report::{Measurement, Operation, Results};
use tools::{Room, Tool};

use crate::shell;

pub(crate) const USAGE: &str = "\
usage: cargo xtask bench [--database] [--quick] [--only DATA] [--tools NAMES] [--rounds N] [--settle SECONDS] [--dir DIR]

  --database         instead, the backup of a PostgreSQL database against pg_dump alone (as root)
  --quick            a fiftieth of the data, one round, no waiting: shows that it works, and no more
  --only DATA        small, dump or big
  --tools NAMES      of snapback,restic,rustic,borg,borg2,bupstash,conserve; without it, all on PATH
  --rounds N         medians of so many (3)
  --settle SECONDS   how long to wait after deleting many files (60)
  --dir DIR          a directory snapback-bench is made in it for data, repositories and results; some 40 GB
                     (target/bench)
";

/// What was asked for.
struct Plan {
    scale: usize,
    sets: Vec<Set>,
    tools: String,
    rounds: usize,
    settle: Duration,
    directory: PathBuf,
    /// A database, and nothing else.
    of_database: bool,
}

impl Plan {
    fn parse(arguments: &[String]) -> Result<Plan> {
        let quick = arguments.iter().any(|argument| argument == "--quick");
        let mut plan = Plan {
            scale: if quick { 50 } else { 1 },
            sets: Set::ALL.to_vec(),
            tools: String::new(),
            rounds: if quick { 1 } else { 3 },
            settle: Duration::from_secs(if quick { 0 } else { 60 }),
            directory: shell::target_dir()?.join("bench"),
            of_database: false,
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{argument} wants a value\n{USAGE}"));
            match argument.as_str() {
                "--quick" => {}
                "--database" => plan.of_database = true,
                "--only" => {
                    let name = value()?;
                    plan.sets.retain(|set| set.name() == name);
                    if plan.sets.is_empty() {
                        bail!("no data set is called {name}\n{USAGE}");
                    }
                }
                "--tools" => plan.tools.clone_from(value()?),
                "--rounds" => plan.rounds = value()?.parse().context("--rounds")?,
                "--settle" => plan.settle = Duration::from_secs(value()?.parse().context("--settle")?),
                // One of our own: what lies in it is removed, and `--dir /var` must not cost /var/log.
                "--dir" => plan.directory = std::path::absolute(value()?)?.join("snapback-bench"),
                _ => bail!("unknown: {argument}\n{USAGE}"),
            }
        }
        // Another scale is other data; both are kept.
        if quick {
            plan.directory.push("quick");
        }
        Ok(plan)
    }
}

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let plan = Plan::parse(arguments)?;
    let wanted: Vec<_> = plan.tools.split(',').filter(|name| !name.is_empty()).collect();
    if wanted.is_empty() || wanted.contains(&"snapback") {
        shell::run(shell::cargo().args(["build", "--release", "--package", "cli"]))?;
    }
    if plan.of_database {
        return database::run(&plan.directory, plan.rounds, plan.scale);
    }
    let tools = tools::find(&wanted)?;
    let logs = plan.directory.join("log");
    if logs.exists() {
        fs::remove_dir_all(&logs).with_context(|| format!("removing {}", logs.display()))?;
    }
    fs::create_dir_all(&logs).with_context(|| format!("creating {}", logs.display()))?;

    let mut results = Results::default();
    let mut failures = Vec::new();
    for set in &plan.sets {
        let data = Data::prepare(&plan.directory.join("data"), *set, plan.scale)?;
        for round in 0..plan.rounds {
            let rooms = plan.directory.join("round");
            discard(&rooms, &data, Duration::ZERO)?;
            for place in 0..tools.len() {
                let tool = &tools[(place + round) % tools.len()];
                let mut turn = Turn { tool, data: &data, logs: &logs, verify: round == 0, results: &mut results };
                if let Err(error) = turn.run(&rooms.join(tool.name())) {
                    eprintln!("xtask: {} on {}: {error:#}", tool.name(), set.title());
                    failures.push(tool.name());
                }
            }
            discard(&rooms, &data, plan.settle)?;
        }
    }

    let table = results.markdown(&tools, &report::machine(&plan.directory));
    for (name, text) in [("table.md", &table), ("runs.tsv", &results.tab_separated())] {
        let path = plan.directory.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    println!("\n{table}");
    if failures.contains(&"snapback") {
        bail!("snapback failed; what it said is in {}", logs.display());
    }
    Ok(())
}

/// One tool's turn in a round.
struct Turn<'a> {
    tool: &'a Tool,
    data: &'a Data,
    logs: &'a Path,
    /// Whether to compare what was restored with its source.
    verify: bool,
    results: &'a mut Results,
}

impl Turn<'_> {
    fn run(&mut self, directory: &Path) -> Result<()> {
        self.data.write_generation(0)?;
        tree::warm(&self.data.source)?;
        let mut room = Room::create(self.tool, &self.data.source, directory.to_owned(), self.logs)?;
        for operation in Operation::of(self.data.set) {
            // Some tools leave what they wrote in the kernel's cache, and others do not: all are judged with a warm one.
            if matches!(operation, Operation::Restore | Operation::Check) {
                tree::warm(&room.repository())?;
            }
            match operation {
                Operation::First | Operation::Unchanged => self.measure(*operation, room.backup()?)?,
                Operation::Changed => {
                    self.data.write_generation(1)?;
                    self.measure(*operation, room.backup()?)?;
                }
                Operation::Restore => self.measure(*operation, room.restore()?)?,
                Operation::Check => self.measure(*operation, room.check()?)?,
            }
            match operation {
                Operation::First => {
                    let size_bytes = tree::size_bytes(&room.repository())?;
                    self.results.repositories.push((self.tool.name(), self.data.set, size_bytes));
                }
                Operation::Restore => {
                    if self.verify {
                        tree::must_be_equal(&self.data.source, &room.restored_source())?;
                    }
                    // Few files: deleting them costs nobody, and the disk needs not hold them all.
                    if self.data.set != Set::Small {
                        fs::remove_dir_all(room.target()).context("removing what was restored")?;
                        fs::create_dir(room.target()).context("a new target")?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn measure(&mut self, operation: Operation, mut command: Command) -> Result<()> {
        measure::sync();
        let cost = measure::measure(&mut command)?;
        let (tool, set) = (self.tool.name(), self.data.set);
        println!("xtask: {}, {}: {tool} {:.2} s", set.title(), operation.title(), cost.wall.as_secs_f64());
        self.results.runs.push(Measurement { tool, set, operation, cost });
        Ok(())
    }
}

/// Deletes what a round made, and lets the disk settle if that was many files.
fn discard(rooms: &Path, data: &Data, settle: Duration) -> Result<()> {
    if rooms.exists() {
        fs::remove_dir_all(rooms).with_context(|| format!("removing {}", rooms.display()))?;
    }
    measure::sync();
    if data.set == Set::Small {
        std::thread::sleep(settle);
    }
    Ok(())
}
