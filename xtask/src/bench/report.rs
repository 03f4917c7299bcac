//! The benchmark's table: medians, ratios to restic, and whether they keep within the limits.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::data::Set;
use super::measure::Cost;
use super::tools::Tool;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operation {
    First,
    Unchanged,
    Changed,
    Restore,
    Check,
}

impl Operation {
    pub(crate) const ALL: [Operation; 5] =
        [Operation::First, Operation::Unchanged, Operation::Changed, Operation::Restore, Operation::Check];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Operation::First => "first backup",
            Operation::Unchanged => "unchanged",
            Operation::Changed => "1 % changed",
            Operation::Restore => "restore",
            Operation::Check => "check, reading all data",
        }
    }

    /// The operations that make sense for a data set, in their order.
    pub(crate) fn of(set: Set) -> &'static [Operation] {
        use Operation::{Changed, Check, First, Restore, Unchanged};
        match set {
            Set::Small => &[First, Unchanged, Changed, Restore, Check],
            Set::Dump => &[First, Changed, Restore, Check],
            Set::Big => &[First, Restore, Check],
        }
    }
}

/// What ours may take at most, as a part of restic's wall time.
fn wall_limit(set: Set, operation: Operation) -> f64 {
    match (set, operation) {
        (Set::Small, Operation::First) => 0.45,
        (_, Operation::First) => 0.35,
        (_, Operation::Unchanged) => 0.25,
        (Set::Dump, Operation::Changed) => 0.3,
        (_, Operation::Changed) => 0.35,
        (_, Operation::Restore) => 0.5,
        (_, Operation::Check) => 0.6,
    }
}

/// The largest resident set that ours may have, whatever it does.
const MEMORY_LIMIT_MB: f64 = 160.0;
/// How large a repository of ours may be, as a part of restic's.
const REPOSITORY_LIMIT: f64 = 1.02;

/// One run of one tool.
pub(crate) struct Measurement {
    pub(crate) tool: &'static str,
    pub(crate) set: Set,
    pub(crate) operation: Operation,
    pub(crate) cost: Cost,
}

/// All that was measured.
#[derive(Default)]
pub(crate) struct Results {
    pub(crate) runs: Vec<Measurement>,
    /// Repositories after the first backup: tool, data, bytes.
    pub(crate) repositories: Vec<(&'static str, Set, u64)>,
}

impl Results {
    fn median(&self, tool: &str, set: Set, operation: Operation, what: impl Fn(&Cost) -> f64) -> Option<f64> {
        let wanted = |run: &&Measurement| run.tool == tool && run.set == set && run.operation == operation;
        median(self.runs.iter().filter(wanted).map(|run| what(&run.cost)).collect())
    }

    fn repository_mb(&self, tool: &str, set: Set) -> Option<f64> {
        let wanted = |(name, of, _): &&(&str, Set, u64)| *name == tool && *of == set;
        median(self.repositories.iter().filter(wanted).map(|(_, _, bytes)| *bytes as f64 / 1e6).collect())
    }

    fn peak_mb(&self, tool: &str) -> Option<f64> {
        let runs = self.runs.iter().filter(|run| run.tool == tool);
        runs.map(|run| run.cost.peak_bytes).max().map(|bytes| bytes as f64 / 1e6)
    }

    /// The tables in markdown.
    pub(crate) fn markdown(&self, tools: &[Tool], machine: &str) -> String {
        let names: Vec<_> = tools.iter().map(Tool::name).collect();
        let versions: Vec<_> = tools.iter().map(|tool| tool.version.as_str()).collect();
        let mut text = format!("{machine}\n\nVersions: {}.\n", versions.join("; "));

        text += "\nWall time in seconds, medians:\n\n";
        text += &header(&names, &["ours / restic", "at most", ""]);
        let wall = |cost: &Cost| cost.wall.as_secs_f64();
        for (set, operation) in rows() {
            let cells: Vec<_> = names.iter().map(|name| self.median(name, set, operation, wall)).collect();
            let title = format!("{}: {}", set.title(), operation.title());
            text += &judged_row(&title, &names, &cells, 2, wall_limit(set, operation));
        }
        for set in Set::ALL {
            let cells: Vec<_> = names.iter().map(|name| self.repository_mb(name, set)).collect();
            text += &judged_row(
                &format!("{}: repository, MB", set.title()),
                &names,
                &cells,
                if cells.iter().flatten().any(|megabytes| *megabytes < 100.0) { 1 } else { 0 },
                REPOSITORY_LIMIT,
            );
        }
        let peaks: Vec<_> = names.iter().map(|name| self.peak_mb(name)).collect();
        if peaks.iter().any(Option::is_some) {
            let ours = value_of("snapback", &names, &peaks);
            let mark = ours.map_or("", |peak| mark(peak <= MEMORY_LIMIT_MB));
            let _ = writeln!(
                text,
                "| peak memory, MB, largest of all | {} | | {MEMORY_LIMIT_MB} MB | {mark} |",
                cells(&peaks, 0)
            );
        }

        text += "\nProcessor time in seconds (user and system, all cores) / peak memory in MB, medians:\n\n";
        text += &header(&names, &[]);
        for (set, operation) in rows() {
            let cell = |name: &&str| {
                let processor = self.median(name, set, operation, |cost| cost.processor.as_secs_f64())?;
                let memory = self.median(name, set, operation, |cost| cost.peak_bytes as f64 / 1e6)?;
                Some(format!("{processor:.2} / {memory:.0}"))
            };
            let cells: Vec<_> = names.iter().map(|name| cell(name).unwrap_or_else(|| "-".to_owned())).collect();
            if cells.iter().any(|cell| cell != "-") {
                let _ = writeln!(text, "| {}: {} | {} |", set.title(), operation.title(), cells.join(" | "));
            }
        }
        text
    }

    /// Every run on a line: for other programs, and for whoever doubts a median.
    pub(crate) fn tab_separated(&self) -> String {
        let mut text = "data\toperation\ttool\twall_s\tprocessor_s\tpeak_bytes\n".to_owned();
        for Measurement { tool, set, operation, cost } in &self.runs {
            let (wall, processor) = (cost.wall.as_secs_f64(), cost.processor.as_secs_f64());
            let (set, operation, peak) = (set.name(), operation.title(), cost.peak_bytes);
            let _ = writeln!(text, "{set}\t{operation}\t{tool}\t{wall:.3}\t{processor:.3}\t{peak}");
        }
        text
    }
}

fn rows() -> impl Iterator<Item = (Set, Operation)> {
    let timed = Operation::ALL.into_iter().filter(|operation| *operation != Operation::Check);
    let timed: Vec<_> = timed.collect();
    let by_set = Set::ALL.into_iter().flat_map(move |set| timed.clone().into_iter().map(move |o| (set, o)));
    by_set.chain(Set::ALL.into_iter().map(|set| (set, Operation::Check)))
}

fn header(names: &[&str], more: &[&str]) -> String {
    let columns: Vec<_> = std::iter::once("").chain(names.iter().copied()).chain(more.iter().copied()).collect();
    format!("| {} |\n|{}\n", columns.join(" | "), "---|".repeat(columns.len()))
}

/// A row with ours judged as a part of restic's; nothing if nobody was measured.
fn judged_row(title: &str, names: &[&str], values: &[Option<f64>], digits: usize, limit: f64) -> String {
    if values.iter().all(Option::is_none) {
        return String::new();
    }
    let ratio =
        value_of("snapback", names, values).zip(value_of("restic", names, values)).map(|(ours, restic)| ours / restic);
    let (ratio, mark) = match ratio {
        Some(ratio) => (format!("{ratio:.2}"), mark(ratio <= limit)),
        None => ("-".to_owned(), ""),
    };
    format!("| {title} | {} | {ratio} | {limit} | {mark} |\n", cells(values, digits))
}

fn mark(within: bool) -> &'static str {
    if within { "PASS" } else { "over" }
}

fn value_of(tool: &str, names: &[&str], values: &[Option<f64>]) -> Option<f64> {
    names.iter().position(|name| *name == tool).and_then(|place| values[place])
}

fn cells(values: &[Option<f64>], digits: usize) -> String {
    let cell = |value: &Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
    values.iter().map(cell).collect::<Vec<_>>().join(" | ")
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// The machine in a line: processor, cores, memory, kernel, and the file system that `directory` is on.
pub(crate) fn machine(directory: &Path) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map_or("?".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory_kb: f64 = field(&read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0.0);
    let mounts = read("/proc/self/mounts");
    let file_system = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?, words.next()?))
        })
        .filter(|(mount, _)| directory.starts_with(mount))
        .max_by_key(|(mount, _)| mount.len())
        .map_or("?", |(_, kind)| kind);
    format!(
        "Measured on: {}, {cores} cores, {:.0} GB of memory, Linux {}, {file_system}.",
        field(&read("/proc/cpuinfo"), "model name"),
        memory_kb * 1024.0 / 1e9,
        read("/proc/sys/kernel/osrelease").trim_end(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 2.0]), Some(3.0));
    }

    #[test]
    fn a_row_is_judged_against_restic() {
        let names = ["snapback", "restic", "borg"];
        let row = judged_row("x", &names, &[Some(1.0), Some(4.0), None], 1, 0.25);
        assert_eq!(row, "| x | 1.0 | 4.0 | - | 0.25 | 0.25 | PASS |\n");
        assert!(judged_row("x", &names, &[Some(1.1), Some(4.0), None], 1, 0.25).contains("over"));
    }
}
