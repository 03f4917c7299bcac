//! `snapback forget`

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use policy::{Count, Decision, GroupBy, GroupKey, Keep, RestorePoint, Span};
use repository::id::Id;
use repository::record::BackupRecord;
use repository::storage::FileKind;

use crate::commands::repo::prune;
use crate::error::CommandError;
use crate::global::Global;
use crate::human;
use crate::open::{self, Session};
use crate::output::{Output, printable, words};
use crate::progress_bar::Quiet;
use crate::select::{self, Filter};

/// Remove backups: those that are named, or those that no rule keeps.
#[derive(Args, Debug)]
#[command(after_help = "\
Rules count within each group, and a backup stays if any rule keeps it.
The data itself is removed by --prune, or later by `snapback repo prune`.

  snapback forget --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --prune")]
pub(crate) struct Command {
    /// Remove these backups, without any rule
    #[arg(value_name = "BACKUP", conflicts_with_all = ["Rules", "group_by"])]
    backups: Vec<String>,

    /// What makes backups one group: host, paths, tags, separated by commas; empty for one group of all
    #[arg(long, value_name = "WHAT", default_value = "host,paths")]
    group_by: GroupBy,

    /// Remove nothing, only show what would go
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Remove the data that no backup needs any more, too
    #[arg(long)]
    prune: bool,

    #[command(flatten)]
    rules: Rules,

    #[command(flatten)]
    how: prune::How,

    #[command(flatten)]
    filter: Filter,
}

/// What to keep.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Rules")]
struct Rules {
    /// Keep the newest N
    #[arg(long, value_name = "N")]
    keep_last: Option<Count>,
    /// Keep the newest of each of the last N hours that have one
    #[arg(long, value_name = "N")]
    keep_hourly: Option<Count>,
    /// ... of each day
    #[arg(long, value_name = "N")]
    keep_daily: Option<Count>,
    /// ... of each week
    #[arg(long, value_name = "N")]
    keep_weekly: Option<Count>,
    /// ... of each month
    #[arg(long, value_name = "N")]
    keep_monthly: Option<Count>,
    /// ... of each year
    #[arg(long, value_name = "N")]
    keep_yearly: Option<Count>,
    /// Keep all made within a time before the newest, such as 1y5m7d2h
    #[arg(long, value_name = "SPAN")]
    keep_within: Option<Span>,
    /// Keep the newest of each hour within a time
    #[arg(long, value_name = "SPAN")]
    keep_within_hourly: Option<Span>,
    /// ... of each day
    #[arg(long, value_name = "SPAN")]
    keep_within_daily: Option<Span>,
    /// ... of each week
    #[arg(long, value_name = "SPAN")]
    keep_within_weekly: Option<Span>,
    /// ... of each month
    #[arg(long, value_name = "SPAN")]
    keep_within_monthly: Option<Span>,
    /// ... of each year
    #[arg(long, value_name = "SPAN")]
    keep_within_yearly: Option<Span>,
    /// Keep all that have all of these tags, separated by commas (may be repeated)
    #[arg(long, value_name = "TAG[,TAG]")]
    keep_tag: Vec<String>,
}

impl Rules {
    fn keep(&self) -> Keep {
        Keep {
            last: self.keep_last,
            hourly: self.keep_hourly,
            daily: self.keep_daily,
            weekly: self.keep_weekly,
            monthly: self.keep_monthly,
            yearly: self.keep_yearly,
            within: self.keep_within,
            within_hourly: self.keep_within_hourly,
            within_daily: self.keep_within_daily,
            within_weekly: self.keep_within_weekly,
            within_monthly: self.keep_within_monthly,
            within_yearly: self.keep_within_yearly,
            tags: self.keep_tag.iter().map(|tags| tags.split(',').map(str::to_owned).collect()).collect(),
        }
    }
}

type Backup = (Id, BackupRecord);

/// A group, and what becomes of each of its backups.
struct Group {
    key: GroupKey,
    backups: Vec<(Backup, Decision)>,
}

impl Group {
    fn removed(&self) -> impl Iterator<Item = Id> {
        self.backups.iter().filter(|(_, decision)| !decision.keep).map(|((id, _), _)| *id)
    }
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    let keep = command.rules.keep();
    if command.backups.is_empty() && keep.is_empty() {
        let error = CommandError::usage("no rule says what to keep, and no backup is named");
        return Err(error
            .hint("--keep-daily 7 --keep-weekly 5 --keep-monthly 12; --dry-run shows what would go")
            .into());
    }
    let session = Session::open(global, output)?;
    let held = session.lock_to_remove(command.dry_run)?;
    let records = select::all(&session.repository, output)?;
    let to_remove: Vec<Id> = if command.backups.is_empty() {
        let groups = groups(command.filter.apply(records), command.group_by, &keep);
        show(&groups, output)?;
        refuse_to_empty(&groups)?;
        groups.iter().flat_map(Group::removed).collect()
    } else {
        named(&session, &records, command)?
    };
    let count = human::counted(to_remove.len() as u64, "backup");
    let Some(lock) = held.lock() else {
        output.message(format_args!("{count} would be removed"));
        return Ok(ExitCode::SUCCESS);
    };
    repository::forget(&session.repository, lock, &to_remove, &Quiet::new(output))?;
    output.message(format_args!("{count} removed"));
    if command.prune {
        prune::prune(&session, lock, &command.how)?;
    } else if !to_remove.is_empty() {
        output.message("their data stays until `snapback repo prune`");
    }
    Ok(ExitCode::SUCCESS)
}

/// The backups that are named; those too whose record is damaged, which is the way to get rid of them.
fn named(session: &Session<'_>, records: &[Backup], command: &Command) -> Result<Vec<Id>> {
    let mut chosen = Vec::new();
    let stored = session.repository.storage().list(FileKind::Backup)?;
    for text in &command.backups {
        let unreadable = stored.iter().map(|(id, _)| *id).filter(|id| records.iter().all(|(known, _)| known != id));
        let unreadable: Vec<Id> = unreadable.filter(|id| text.len() >= 8 && id.to_string().starts_with(text)).collect();
        match (select::find(records, text, &command.filter), unreadable.as_slice()) {
            (Ok((id, _)), _) => chosen.push(*id),
            (Err(_), [id]) => chosen.push(*id),
            (Err(error), _) => return Err(error),
        }
    }
    chosen.sort();
    chosen.dedup();
    Ok(chosen)
}

fn groups(records: Vec<Backup>, by: GroupBy, keep: &Keep) -> Vec<Group> {
    let mut grouped: BTreeMap<GroupKey, Vec<Backup>> = BTreeMap::new();
    for backup in records {
        let key = by.key(&backup.1.hostname, &backup.1.paths, &backup.1.tags);
        grouped.entry(key).or_default().push(backup);
    }
    let now = human::to_zoned(open::now()).timestamp();
    let decide = |(key, backups): (GroupKey, Vec<Backup>)| {
        let point =
            |(_, record): &Backup| RestorePoint { time: human::to_zoned(record.time), tags: record.tags.clone() };
        let points: Vec<_> = backups.iter().map(point).collect();
        let decisions = policy::decide(&points, keep, now);
        Group { key, backups: backups.into_iter().zip(decisions).collect() }
    };
    grouped.into_iter().map(decide).collect()
}

/// Rules that leave nothing of a group are most likely a mistake.
fn refuse_to_empty(groups: &[Group]) -> Result<()> {
    let Some(emptied) = groups.iter().find(|group| group.removed().count() == group.backups.len()) else {
        return Ok(());
    };
    let error = CommandError::new(format!("the rules would remove all backups of {}", title(&emptied.key)));
    Err(error.hint("nothing was removed; if that is meant, name the backups: `snapback forget ID...`").into())
}

fn title(key: &GroupKey) -> String {
    let mut parts = Vec::new();
    if !key.host.is_empty() {
        parts.push(key.host.clone());
    }
    if !key.paths.is_empty() {
        parts.push(printable(human::few(&key.paths).as_ref()));
    }
    if !key.tags.is_empty() {
        parts.push(format!("tags {}", key.tags.join(", ")));
    }
    if parts.is_empty() { "all".to_owned() } else { parts.join("  ") }
}

fn show(groups: &[Group], output: &Output) -> Result<()> {
    if output.json {
        let document = |group: &Group| {
            let backups = group.backups.iter().map(|((id, record), decision)| {
                let reasons: Vec<String> = decision.reasons.iter().map(ToString::to_string).collect();
                serde_json::json!({ "id": id, "time": record.time, "keep": decision.keep, "reasons": reasons })
            });
            let key = &group.key;
            serde_json::json!({ "host": key.host, "paths": key.paths, "tags": key.tags, "backups": backups.collect::<Vec<_>>() })
        };
        output.json(&groups.iter().map(document).collect::<Vec<_>>())?;
        return Ok(());
    }
    let now = open::now().secs;
    for group in groups {
        let removed = group.removed().count();
        let kept = group.backups.len() - removed;
        if output.quiet {
            continue;
        }
        output.line(format_args!("{}: {kept} stay, {removed} go", title(&group.key)))?;
        let rows = group.backups.iter().map(|((id, record), decision)| {
            let reasons: Vec<String> = decision.reasons.iter().map(ToString::to_string).collect();
            vec![
                if decision.keep { "keep" } else { "remove" }.to_owned(),
                if output.verbose { id.to_string() } else { id.short() },
                if output.verbose { human::exact_time(record.time) } else { human::local_time(record.time) },
                human::age(now, record.time.secs),
                record.tags.join(", "),
                reasons.join(", "),
            ]
        });
        let columns = [
            words(""),
            words("ID"),
            words("Time"),
            words("Age").less_important(),
            words("Tags").less_important(),
            words("Kept as"),
        ];
        output.table(&columns, rows.collect())?;
        output.line("")?;
    }
    Ok(())
}
