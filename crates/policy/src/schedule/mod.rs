//! When a task is due: at times of day on the local clock, or every so long.
//!
//! A schedule is an endless row of points in time, its *occurrences*, which follow from the schedule, the zone and the
//! seed alone. What is due is the first occurrence after the last run, however long ago: what was missed meanwhile,
//! once or a hundred times, is made up for by one run. So nothing has to be remembered but the last run, and asking
//! twice changes nothing.
//!
//! - A time of day that a clock change leaves out is met at the first moment after the gap; one that comes twice is met
//!   the first time. Several times within one gap are one occurrence.
//! - `every` counts hours that pass, whatever the clocks show.
//! - Where many machines would begin at the same minute, each begins up to `spread` later: by an amount that follows
//!   from its seed and the day, so that it is the same whenever it is asked for, and another one tomorrow.
//!
//! Does not know of clocks that are set: that is [`Past`]'s subject.

mod past;
mod spread;

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, ToSpan as _};

pub use past::Past;

/// Days that are looked at ahead: a weekday comes again within seven, and some zones left out whole days.
const DAYS_AHEAD: usize = 16;

/// When a task is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// At times of day.
    At(TimesOfDay),
    /// So long after the last run.
    Every(SignedDuration),
}

/// Times of day on the local clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimesOfDay {
    /// In any order. Without any, there is no occurrence.
    pub times: Vec<TimeOfDay>,
    /// Begins up to so much later. Nothing and less: always on time.
    pub spread: SignedDuration,
}

/// A time of day on some days of the week.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeOfDay {
    /// On these days; none means each.
    pub days: Vec<Weekday>,
    /// On the local clock.
    pub time: Time,
}

impl TimeOfDay {
    fn is_on(&self, day: Date) -> bool {
        self.days.is_empty() || self.days.contains(&day.weekday())
    }
}

impl Schedule {
    /// The first occurrence after a point in time. `None` only at the calendar's end, or where there is none at all.
    ///
    /// `seed` tells apart what shall not begin at once: the machine's name with the project's, for example.
    pub fn next(&self, after: Timestamp, zone: &TimeZone, seed: &str) -> Option<Timestamp> {
        match self {
            Self::At(times) => times.next(after, zone, seed),
            Self::Every(interval) => after.checked_add((*interval).max(SignedDuration::ZERO)).ok(),
        }
    }

    /// How much later than now what was missed is made up for: spread as well, but within so long.
    pub fn late(&self, now: Timestamp, zone: &TimeZone, seed: &str, within: SignedDuration) -> SignedDuration {
        match self {
            Self::At(times) => spread::offset(seed, zone.to_datetime(now).date(), times.spread.min(within)),
            Self::Every(_) => SignedDuration::ZERO,
        }
    }
}

impl TimesOfDay {
    fn next(&self, after: Timestamp, zone: &TimeZone, seed: &str) -> Option<Timestamp> {
        let spread = self.spread.max(SignedDuration::ZERO);
        let earliest = after.checked_sub(spread).unwrap_or(Timestamp::MIN);
        // A day earlier: what a gap leaves out is met on the next day, if the gap ends there.
        let first = zone.to_datetime(earliest).date();
        let first = first.checked_sub(1.day()).unwrap_or(first);
        let reach = DAYS_AHEAD.saturating_add(usize::try_from(spread.as_hours() / 24).unwrap_or(0));
        let mut best: Option<Timestamp> = None;
        for day in first.series(1.day()).take(reach) {
            let late = spread::offset(seed, day, spread);
            for time in self.times.iter().filter(|time| time.is_on(day)) {
                let Some(on_time) = instant(day, time.time, zone) else { continue };
                let Ok(occurrence) = on_time.checked_add(late) else { continue };
                if occurrence > after && best.is_none_or(|best| occurrence < best) {
                    best = Some(occurrence);
                }
            }
            let is_past_all = |best: Timestamp| instant(day, Time::midnight(), zone).is_some_and(|begin| begin > best);
            if best.is_some_and(is_past_all) {
                break;
            }
        }
        best
    }
}

/// The one point in time that a local time stands for.
fn instant(day: Date, time: Time, zone: &TimeZone) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(day.to_datetime(time));
    match ambiguous.offset() {
        AmbiguousOffset::Gap { .. } => {
            // Read with the offset of after the gap, it is a point before the change, less than the gap's length away.
            let before = ambiguous.earlier().ok()?;
            zone.following(before).next().map(|change| change.timestamp())
        }
        _ => ambiguous.earlier().ok(),
    }
}
