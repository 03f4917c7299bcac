//! The status as people read it.

use std::path::Path;

use engine::place::{Nearness, Relation};
use engine::status::Status;
use engine::status::assess::{Attention, Filesystem, Next, Project};
use engine::status::facts::{GuardPhase, Repository, Snapshots, TaskKind};
use engine::status::survival::{Answer, Verdict};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use snapshot::provider::Kind;

use super::flow::{Cell, Page, Style};
use crate::commands::database::list::proven;
use crate::human;
use crate::output::printable;

/// Where what is said of a project begins.
const INDENT: usize = 14;

/// For whom.
pub(super) struct Reader {
    /// How wide the terminal is; `None` for a pipe.
    pub(super) width: Option<usize>,
    pub(super) has_colors: bool,
    /// Reasons, too.
    pub(super) wants_all: bool,
    pub(super) zone: TimeZone,
}

/// All of it, line by line.
pub(super) fn lines(status: &Status, reader: &Reader) -> Vec<String> {
    let mut page = Page::new(reader.width, reader.has_colors);
    for project in &status.projects {
        page.blank();
        of_project(&mut page, project, status.now, reader);
    }
    if !status.filesystems.is_empty() {
        page.blank();
        let rows: Vec<Vec<Cell>> = status.filesystems.iter().map(|one| of_filesystem(one, status.now)).collect();
        page.table(&Cell::styled("disks", Style::Bold), INDENT, &rows);
    }
    if !status.attention.is_empty() {
        page.blank();
        needs(&mut page, "attention", &status.attention);
    }
    page.lines()
}

fn of_project(page: &mut Page, project: &Project, now: Timestamp, reader: &Reader) {
    let survives = &project.survives;
    let verdicts = [
        ("bad update", &survives.bad_update),
        ("deleted files", &survives.deleted_files),
        ("dead disk", &survives.dead_disk),
        ("lost server", &survives.lost_server),
        ("malware", &survives.malware),
    ];
    let mut cells = vec![Cell::new("would survive:")];
    cells.extend(verdicts.iter().map(|(what, verdict)| Cell::new(format!("{what} {}", mark(verdict)))));
    page.row(&Cell::styled(&project.name, Style::Bold), INDENT, &cells);
    if reader.wants_all {
        for (what, verdict) in verdicts {
            let back =
                verdict.as_of.map(|as_of| format!(" (back to {})", human::age_of(now, as_of))).unwrap_or_default();
            let text = format!("{what} {}: {}{back}", mark(verdict), verdict.why);
            page.sentence(&Cell::new(""), INDENT, &text, Style::Dim);
        }
    }
    page.row(&Cell::styled("  snapshots", Style::Amber), INDENT, &of_snapshots(project, now));
    let rows: Vec<Vec<Cell>> =
        project.backups.iter().map(|repository| of_repository(repository, now, reader)).collect();
    let label = Cell::styled("  backups", Style::Blue);
    match rows.as_slice() {
        [] => page.row(&label, INDENT, &[Cell::new("none")]),
        rows => page.table(&label, INDENT, rows),
    }
    for (number, database) in project.databases.iter().enumerate() {
        let proven = match &database.proof {
            None => "never proven".to_owned(),
            Some(proof) if proof.outcome.is_good() => format!("proven {}", proven(proof, now)),
            Some(proof) => format!("the proof {}", proven(proof, now)),
        };
        let label = Cell::new(if number == 0 { "  databases" } else { "" });
        page.sentence(&label, INDENT, &format!("{}: {proven}", database.name), Style::Plain);
    }
    for guard in &project.guards {
        let text = match guard.phase {
            GuardPhase::Running => format!("{} runs ({})", guard.command, guard.id),
            GuardPhase::Waiting => format!("{} waits to be confirmed ({})", guard.command, guard.id),
            GuardPhase::RollingBack => format!("{} is rolled back ({})", guard.command, guard.id),
        };
        page.sentence(&Cell::styled("  guard", Style::Amber), INDENT, &text, Style::Plain);
    }
    let next: Vec<String> = project.next.iter().filter_map(|next| of_task(next, now, &reader.zone)).collect();
    if !next.is_empty() {
        page.sentence(&Cell::new("  next"), INDENT, &next.join(" · "), Style::Plain);
    }
    needs(page, "  attention", &project.attention);
}

fn mark(verdict: &Verdict) -> char {
    match verdict.answer {
        Answer::Yes => '✓',
        Answer::No => '✗',
        Answer::Unknown => '?',
    }
}

fn of_snapshots(project: &Project, now: Timestamp) -> Vec<Cell> {
    let Snapshots { mechanism, kept, newest, next_expires, growth } = &project.snapshots;
    let paths: Vec<String> = project.paths.iter().map(|path| printable(path)).collect();
    let mechanism = match mechanism {
        Some(Kind::Btrfs) => "btrfs",
        Some(Kind::Reflink) => "reflink",
        Some(Kind::LvmThin) => "LVM thin",
        Some(Kind::Zfs) => "ZFS",
        Some(Kind::Backup) => "backups as nets",
        None => "none possible",
    };
    let mut cells = vec![Cell::new(format!("{mechanism}, {}", human::few(&paths)))];
    let Some(newest) = newest else {
        cells.push(Cell::new("none kept"));
        return cells;
    };
    cells.push(Cell::new(format!("newest {}", human::age_of(now, *newest))));
    cells.push(Cell::new(format!("{} kept", human::count(*kept as u64))));
    if let Some(growth) = growth {
        let rate = project.growth_per_day.map(|bytes| format!(", {} a day", human::size(bytes))).unwrap_or_default();
        cells.push(Cell::new(format!("grown {}{rate}", human::size(growth.bytes))));
    }
    if let Some(expires) = next_expires {
        cells.push(Cell::new(format!("next expires {}", human::until(now, *expires))));
    }
    cells
}

fn of_repository(repository: &Repository, now: Timestamp, reader: &Reader) -> Vec<Cell> {
    let place = if repository.is_in_memory { "in memory" } else { nearness(&repository.relation) };
    let mut cells = vec![Cell::new(&repository.name), Cell::new(format!("({place})"))];
    match repository.newest {
        None if repository.is_unlisted => cells.push(Cell::new("not listed")),
        None => cells.push(Cell::new("no backup")),
        Some(newest) => {
            cells.push(Cell::new(format!("newest {}", human::age_of(now, newest))));
            cells.push(Cell::new(format!("{} kept", human::count(repository.backups))));
        }
    }
    cells.push(Cell::new(repository.size_bytes.map(human::size).unwrap_or_default()));
    let checked = repository.checked.map(|at| format!("checked {}", human::age_of(now, at)));
    cells.push(Cell::new(checked.unwrap_or_default()));
    if repository.unreachable.is_some() {
        cells.push(Cell::styled("unreachable", Style::Red));
    }
    if reader.wants_all {
        cells.push(Cell::styled(printable(Path::new(&repository.url)), Style::Dim));
    }
    cells
}

fn nearness(relation: &Relation) -> &'static str {
    match (relation.nearness, &relation.doubt) {
        (_, Some(_)) => "same disk?",
        (Nearness::SameFilesystem, None) => "same file system",
        (Nearness::SameDisk, None) => "same disk",
        (Nearness::SameMachine, None) => "other disk",
        (Nearness::Elsewhere, None) => "other machine",
    }
}

fn of_task(next: &Next, now: Timestamp, zone: &TimeZone) -> Option<String> {
    let task = &next.task;
    let to = match (task.kind, &task.repository) {
        (TaskKind::Backup, Some(repository)) => format!(" to {repository}"),
        (TaskKind::Check, Some(repository)) => format!(" of {repository}"),
        _ => String::new(),
    };
    let kind = match task.kind {
        TaskKind::Snapshot => "snapshot",
        TaskKind::Backup => "backup",
        TaskKind::Check => "check",
    };
    Some(match task.due {
        _ if task.is_running => format!("{kind}{to} runs now"),
        Some(due) if next.is_overdue => format!("{kind}{to} overdue since {}", clock(due, now, zone)),
        Some(due) if due <= now => format!("{kind}{to} now"),
        Some(due) => format!("{kind}{to} {}", clock(due, now, zone)),
        None => return None,
    })
}

/// `14:00` within a day, `Sat 14:00` within a week, else the date.
fn clock(at: Timestamp, now: Timestamp, zone: &TimeZone) -> String {
    let hours = at.duration_since(now).as_hours().abs();
    let format = match hours {
        0..20 => "%H:%M",
        20..144 => "%a %H:%M",
        _ => "%Y-%m-%d %H:%M",
    };
    at.to_zoned(zone.clone()).strftime(format).to_string()
}

fn of_filesystem(filesystem: &Filesystem, now: Timestamp) -> Vec<Cell> {
    let facts = &filesystem.facts;
    let fills = match (filesystem.full_at, filesystem.fills_per_day) {
        (Some(at), Some(per_day)) => {
            let left = u64::try_from(at.duration_since(now).as_secs()).unwrap_or(0);
            format!("fills by {} a day, full in {}", human::size(per_day), human::long_span(left))
        }
        _ => String::new(),
    };
    vec![
        Cell::new(printable(&facts.point)),
        Cell::new(format!("{} of {} free", human::size(facts.free), human::size(facts.total))),
        Cell::new(fills),
        Cell::styled(human::few(&facts.holds), Style::Dim),
    ]
}

fn needs(page: &mut Page, label: &str, attention: &[Attention]) {
    for (number, found) in attention.iter().enumerate() {
        let label = if number == 0 { label } else { "" };
        page.sentence(&Cell::styled(label, Style::Red), INDENT, &one_line(&found.problem), Style::Plain);
        page.command(INDENT, &Cell::styled("try:", Style::Blue), &found.command);
    }
}

/// What a program said may have anything in it.
fn one_line(text: &str) -> String {
    printable(Path::new(text))
}
