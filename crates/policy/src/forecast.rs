//! When a disk will be full, from samples of how much of it was free.
//!
//! The fit is the median of the slopes between all pairs of samples (Theil and Sen): up to 29 of 100 samples may be
//! anything at all, such as an hour in which somebody had a copy lying around, without moving it. Where what was freed
//! and what was written cancel each other, there is no trend, and none is made up.

use jiff::{SignedDuration, Timestamp};

/// How much was free at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When.
    pub at: Timestamp,
    /// In bytes.
    pub free: u64,
}

/// What the samples say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Forecast {
    /// Too few of them, over too short a time.
    Unknown,
    /// It does not fill.
    Steady,
    /// It fills, and will be full then.
    Full {
        /// When; [`Timestamp::MAX`] if that is after the end of the calendar.
        at: Timestamp,
        /// In bytes; above 0.
        per_day: f64,
    },
}

/// From fewer nothing follows.
const FEWEST: usize = 4;

/// All pairs of these are half a million slopes.
const MOST: usize = 1000;

const SECS_PER_DAY: f64 = 86_400.0;

/// When there will be nothing free, if it goes on as it did. Of samples after `now`, when a clock was wrong, none counts,
/// and those of less than `least` altogether say nothing.
pub fn forecast(samples: &[Sample], now: Timestamp, least: SignedDuration) -> Forecast {
    let mut past: Vec<Sample> = samples.iter().copied().filter(|sample| sample.at <= now).collect();
    past.sort_by_key(|sample| sample.at);
    let past = thinned(&past);
    let (Some(first), Some(last)) = (past.first(), past.last()) else { return Forecast::Unknown };
    if past.len() < FEWEST || last.at.duration_since(first.at) < least {
        return Forecast::Unknown;
    }
    let Some(slope) = median_slope(&past) else { return Forecast::Unknown };
    let per_day = -slope * SECS_PER_DAY;
    // Below a thousandth of what is free a year it is noise.
    if per_day * 365.0 * 1000.0 <= last.free as f64 || per_day <= 0.0 {
        return Forecast::Steady;
    }
    let secs = last.free as f64 / -slope;
    let left = SignedDuration::try_from_secs_f64(secs).unwrap_or(SignedDuration::MAX);
    Forecast::Full { at: last.at.checked_add(left).unwrap_or(Timestamp::MAX), per_day }
}

/// Every n-th of them, and the newest.
fn thinned(samples: &[Sample]) -> Vec<Sample> {
    let step = samples.len().div_ceil(MOST).max(1);
    let mut kept: Vec<Sample> = samples.iter().rev().step_by(step).copied().collect();
    kept.reverse();
    kept
}

/// In bytes a second; `None` if all are of one moment.
fn median_slope(samples: &[Sample]) -> Option<f64> {
    let mut slopes = Vec::with_capacity(samples.len() * samples.len() / 2);
    for (number, one) in samples.iter().enumerate() {
        for other in &samples[number + 1..] {
            let secs = other.at.duration_since(one.at).as_secs_f64();
            if secs > 0.0 {
                slopes.push((other.free as f64 - one.free as f64) / secs);
            }
        }
    }
    let middle = slopes.len() / 2;
    if slopes.is_empty() {
        return None;
    }
    Some(*slopes.select_nth_unstable_by(middle, f64::total_cmp).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;
    const GB: u64 = 1_000_000_000;

    fn samples(free: impl Fn(i64) -> u64, hours: std::ops::Range<i64>) -> Vec<Sample> {
        hours.map(|hour| Sample { at: at(hour * 3600), free: free(hour) }).collect()
    }

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_second(secs).unwrap()
    }

    fn in_a_week(samples: &[Sample]) -> Forecast {
        forecast(samples, at(7 * DAY), SignedDuration::from_hours(24))
    }

    #[track_caller]
    fn fills_at(forecast: Forecast, hour: i64) {
        let Forecast::Full { at: full, .. } = forecast else { panic!("{forecast:?}") };
        assert!(full.duration_since(at(hour * 3600)).as_hours().abs() <= 4, "at {full}: {forecast:?}");
    }

    #[test]
    fn a_disk_that_fills_evenly_is_full_when_the_line_ends() {
        let even = samples(|hour| 100 * GB - hour as u64 * GB / 2, 0..168);
        fills_at(in_a_week(&even), 200);
        let Forecast::Full { per_day, .. } = in_a_week(&even) else { unreachable!() };
        assert!((per_day - 12e9).abs() < 1e6);
    }

    #[test]
    fn a_copy_that_lay_around_for_a_day_changes_nothing() {
        let line = |hour: i64| 1000 * GB - hour as u64 * GB;
        let copy = samples(|hour| line(hour) - if (60..90).contains(&hour) { 400 * GB } else { 0 }, 0..168);
        fills_at(in_a_week(&copy), 1000);
    }

    #[test]
    fn what_comes_and_goes_is_no_trend() {
        let daily = samples(|hour| 100 * GB - (hour % 24) as u64 * GB, 0..168);
        match in_a_week(&daily) {
            Forecast::Steady => {}
            Forecast::Full { per_day, .. } => assert!(per_day < 1e9, "24 GB come and go each day: {per_day}"),
            Forecast::Unknown => panic!("there are samples of a week"),
        }
        assert_eq!(in_a_week(&samples(|_| 100 * GB, 0..168)), Forecast::Steady);
        assert_eq!(in_a_week(&samples(|hour| GB + hour as u64 * GB, 0..168)), Forecast::Steady);
    }

    #[test]
    fn little_is_no_ground_for_a_forecast() {
        let line = |hour: i64| 100 * GB - hour as u64 * GB;
        assert_eq!(in_a_week(&[]), Forecast::Unknown);
        assert_eq!(in_a_week(&samples(line, 0..3)), Forecast::Unknown);
        assert_eq!(in_a_week(&samples(line, 0..20)), Forecast::Unknown);
        let at_once = vec![Sample { at: at(0), free: 1 }; 10];
        assert_eq!(forecast(&at_once, at(DAY), SignedDuration::ZERO), Forecast::Unknown);
    }

    #[test]
    fn samples_of_the_future_and_the_order_do_not_count() {
        let mut line = samples(|hour| 100 * GB - hour as u64 * GB / 2, 0..168);
        line.reverse();
        line.insert(0, Sample { at: at(900 * DAY), free: 0 });
        fills_at(in_a_week(&line), 200);
    }

    #[test]
    fn many_samples_are_thinned_and_the_newest_is_kept() {
        let line = samples(|hour| 10_000 * GB - hour as u64 * GB / 100, 0..8760);
        let thinned = thinned(&line);
        assert!(thinned.len() <= MOST && thinned.last() == line.last());
    }
}
