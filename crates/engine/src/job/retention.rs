//! Which of a project's backups in a repository go, by the rules of its plans.
//!
//! A backup stays if any plan that sends the project there keeps it, if it is the newest, or the newest that is complete,
//! or if it is younger than the least depth of those plans. That the last of these kept what the rules would not is told:
//! whoever wrote the rules may have thought that they free more. Only the backups of this machine with the project's tag
//! are looked at.
//!
//! One that lacks a database's dump does not count for those that lack none: these stay as if it was not there, so that
//! no row of bad nights takes the last good backup away.
//!
//! Their data stays until a prune.

use std::collections::HashSet;

use jiff::Zoned;
use policy::{Keep, RestorePoint, Span};
use repository::id::Id;
use repository::record::BackupRecord;
use repository::tree::Timestamp;

use super::archive::{Target, is_of};
use super::{Context, Error};
use crate::catalog::INCOMPLETE_TAG;
use crate::config::{Config, Plan, Project};

/// What retention did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    /// Backups of the project that stay.
    pub kept: usize,
    /// Backups that were removed.
    pub removed: Vec<Id>,
    /// Of those that stay, how many do so for the least depth alone.
    pub kept_by_depth: usize,
    /// What the removed ones had added to the repository, in bytes: about what may be freed at most.
    pub added_by_removed: u64,
}

/// The plans of a project that send it to a repository.
pub(super) fn plans<'c>(config: &'c Config, project: &Project, repository: &str) -> Vec<&'c Plan> {
    let plans = project.plans.iter().filter_map(|name| config.plans.get(name));
    let goes_there =
        |plan: &&Plan| plan.backup.as_ref().is_some_and(|backup| backup.to.iter().any(|to| to == repository));
    plans.filter(goes_there).collect()
}

/// Removes what no plan keeps.
pub(super) fn apply(
    context: &Context<'_>,
    target: &Target<'_>,
    project: &str,
    plans: &[&Plan],
) -> Result<Retained, Error> {
    let failed = |error| Error::repository(target.name)(error);
    // Those whose record cannot be read are not touched.
    let (records, _) = target.repository.backups().map_err(failed)?;
    let of_project: Vec<&(Id, BackupRecord)> =
        records.iter().filter(|(_, record)| is_of(record, &context.holder.hostname, project)).collect();
    let points: Vec<RestorePoint> = of_project
        .iter()
        .map(|(_, record)| RestorePoint { time: zoned(record.time), tags: record.tags.clone() })
        .collect();
    let verdicts = decide(&points, plans, context.clock.wall());
    let mut retained = Retained::default();
    for ((id, record), verdict) in of_project.into_iter().zip(verdicts) {
        match verdict {
            Verdict::Goes => {
                retained.removed.push(*id);
                retained.added_by_removed += record.summary().map_or(0, |summary| summary.data_added_packed);
            }
            Verdict::Stays => retained.kept += 1,
            Verdict::StaysForDepth => {
                retained.kept += 1;
                retained.kept_by_depth += 1;
            }
        }
    }
    if !retained.removed.is_empty() {
        let meter = context.watch.meter(&format!("removing old backups of {project}"));
        repository::forget(target.repository, &target.lock, &retained.removed, &*meter).map_err(failed)?;
    }
    Ok(retained)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Goes,
    Stays,
    StaysForDepth,
}

/// One for each point. Without a plan, and with one that has no rule, all stay.
fn decide(points: &[RestorePoint], plans: &[&Plan], now: jiff::Timestamp) -> Vec<Verdict> {
    let complete: Vec<usize> = (0..points.len()).filter(|nr| is_complete(&points[*nr])).collect();
    let all: Vec<usize> = (0..points.len()).collect();
    // Among all of them, so that of those that are incomplete only as many stay as the rules say.
    let among = |those: &[usize], keep: &Keep| -> Vec<usize> {
        let points: Vec<RestorePoint> = those.iter().map(|nr| points[*nr].clone()).collect();
        let decisions = policy::decide(&points, keep, now);
        those.iter().zip(decisions).filter(|(_, decision)| decision.keep).map(|(nr, _)| *nr).collect()
    };
    let kept = |keep: &Keep| -> HashSet<usize> {
        let mut kept = HashSet::from_iter(among(&all, keep));
        if complete.len() < all.len() {
            kept.extend(among(&complete, keep));
        }
        kept
    };
    if plans.is_empty() || plans.iter().any(|plan| plan.keep.is_empty()) {
        return vec![Verdict::Stays; points.len()];
    }
    let by_rules: HashSet<usize> = plans.iter().flat_map(|plan| kept(&plan.keep)).collect();
    let depth = |span: Span| kept(&Keep { within: Some(span), ..Keep::default() });
    let by_depth: HashSet<usize> =
        plans.iter().filter(|plan| !plan.min_depth.is_zero()).flat_map(|plan| depth(plan.min_depth)).collect();
    let newest = |those: &[usize]| those.iter().copied().max_by_key(|nr| points[*nr].time.timestamp());
    let newest = [newest(&all), newest(&complete)];
    let verdict = |nr: usize| match (by_rules.contains(&nr) || newest.contains(&Some(nr)), by_depth.contains(&nr)) {
        (true, _) => Verdict::Stays,
        (false, true) => Verdict::StaysForDepth,
        (false, false) => Verdict::Goes,
    };
    (0..points.len()).map(verdict).collect()
}

fn is_complete(point: &RestorePoint) -> bool {
    point.tags.iter().all(|tag| tag != INCOMPLETE_TAG)
}

/// In the zone it was made in.
fn zoned(time: Timestamp) -> Zoned {
    let offset = jiff::tz::Offset::from_seconds(i32::from(time.offset_minutes) * 60).unwrap_or(jiff::tz::Offset::UTC);
    let nanos = i32::try_from(time.nanos).unwrap_or(0);
    let instant = jiff::Timestamp::new(time.secs, nanos).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    instant.to_zoned(offset.to_time_zone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::Count;

    fn plan(last: u32, min_depth: &str) -> Plan {
        Plan {
            name: "nightly".to_owned(),
            backup: None,
            snapshot: None,
            keep: Keep { last: Some(Count::AtMost(last)), ..Keep::default() },
            check: None,
            min_depth: min_depth.parse().unwrap(),
        }
    }

    /// One a day, oldest first, the newest today.
    fn daily(count: i64) -> (Vec<RestorePoint>, jiff::Timestamp) {
        let newest: jiff::Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let point = |days: i64| RestorePoint {
            time: (newest - jiff::SignedDuration::from_hours(24 * days)).to_zoned(jiff::tz::TimeZone::UTC),
            tags: Vec::new(),
        };
        ((0..count).rev().map(point).collect(), newest + jiff::SignedDuration::from_mins(5))
    }

    fn count(verdicts: &[Verdict], wanted: Verdict) -> usize {
        verdicts.iter().filter(|verdict| **verdict == wanted).count()
    }

    #[test]
    fn the_least_depth_keeps_what_the_rules_do_not_and_it_shows() {
        let (points, now) = daily(30);
        let verdicts = decide(&points, &[&plan(3, "7d")], now);
        assert_eq!(count(&verdicts, Verdict::Stays), 3);
        assert_eq!(count(&verdicts, Verdict::StaysForDepth), 4, "those of 3 to 6 days ago: {verdicts:?}");
        assert_eq!(count(&verdicts, Verdict::Goes), 23);
        assert_eq!(count(&decide(&points, &[&plan(3, "0d")], now), Verdict::Goes), 27);
    }

    #[test]
    fn what_one_of_several_plans_keeps_stays_and_without_rules_everything_does() {
        let (points, now) = daily(10);
        assert_eq!(count(&decide(&points, &[&plan(2, "0d"), &plan(5, "0d")], now), Verdict::Stays), 5);
        let no_rule = Plan { keep: Keep::default(), ..plan(1, "0d") };
        for plans in [vec![], vec![&no_rule], vec![&no_rule, &plan(1, "0d")]] {
            assert_eq!(count(&decide(&points, &plans, now), Verdict::Stays), 10);
        }
    }

    #[test]
    fn what_lacks_a_dump_takes_no_place_of_what_lacks_none() {
        let (mut points, now) = daily(20);
        let lacks = |points: &mut [RestorePoint]| {
            points.iter_mut().for_each(|point| point.tags = vec![INCOMPLETE_TAG.to_owned()]);
        };
        lacks(&mut points[10..]);
        let verdicts = decide(&points, &[&plan(3, "0d")], now);
        let stays: Vec<usize> = (0..20).filter(|nr| verdicts[*nr] == Verdict::Stays).collect();
        assert_eq!(stays, [7, 8, 9, 17, 18, 19]);
        // No rule keeps a single one.
        let tagged = Plan { keep: Keep { tags: vec![vec!["gold".to_owned()]], ..Keep::default() }, ..plan(1, "0d") };
        let stays = decide(&points, &[&tagged], now);
        assert_eq!(count(&stays, Verdict::Stays), 2);
        assert_eq!((stays[9], stays[19]), (Verdict::Stays, Verdict::Stays));
        // Where there are no others, the rules go by them.
        lacks(&mut points);
        assert_eq!(count(&decide(&points, &[&plan(3, "0d")], now), Verdict::Stays), 3);
    }

    #[test]
    fn the_newest_stays_whatever_the_rules_say() {
        let (points, now) = daily(3);
        let tagged = Plan { keep: Keep { tags: vec![vec!["gold".to_owned()]], ..Keep::default() }, ..plan(1, "0d") };
        assert_eq!(decide(&points, &[&tagged], now), [Verdict::Goes, Verdict::Goes, Verdict::Stays]);
    }
}
