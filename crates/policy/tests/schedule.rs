//! When tasks are due: worked examples around clock changes, and what must hold in any zone at any time.

use std::collections::BTreeSet;

use jiff::civil::{Time, Weekday, time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _, Zoned};
use policy::schedule::{Past, Schedule, TimeOfDay, TimesOfDay};
use proptest::prelude::*;

/// Clock changes of an hour in spring and autumn, in the other half of the year, of half an hour, at midnight, none.
const ZONES: [&str; 7] = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Sydney",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Asia/Kolkata",
    "UTC",
];

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).expect("the tests need the system's time zones (tzdata)")
}

fn at(times: &[Time]) -> Schedule {
    on(&[], times, SignedDuration::ZERO)
}

fn on(days: &[Weekday], times: &[Time], spread: SignedDuration) -> Schedule {
    let times = times.iter().map(|time| TimeOfDay { days: days.to_vec(), time: *time }).collect();
    Schedule::At(TimesOfDay { times, spread })
}

/// The next occurrences after a local time, on the local clock.
fn rows(schedule: &Schedule, after: &str, count: usize) -> Vec<String> {
    let after: Zoned = after.parse().unwrap();
    let mut last = after.timestamp();
    let next = || {
        last = schedule.next(last, after.time_zone(), "seed")?;
        Some(last.to_zoned(after.time_zone().clone()).strftime("%a %d %H:%M %Z").to_string())
    };
    std::iter::from_fn(next).take(count).collect()
}

#[test]
fn a_time_of_day_comes_each_day_or_on_its_weekdays() {
    let nightly = at(&[time(2, 30, 0, 0)]);
    let after = "2026-05-01T02:30:00[Europe/Berlin]";
    assert_eq!(rows(&nightly, after, 2), ["Sat 02 02:30 CEST", "Sun 03 02:30 CEST"]);
    let twice = at(&[time(18, 0, 0, 0), time(6, 0, 0, 0), time(6, 0, 0, 0)]);
    assert_eq!(rows(&twice, after, 3), ["Fri 01 06:00 CEST", "Fri 01 18:00 CEST", "Sat 02 06:00 CEST"]);
    let weekend = on(&[Weekday::Saturday, Weekday::Sunday], &[time(2, 30, 0, 0)], SignedDuration::ZERO);
    assert_eq!(rows(&weekend, after, 3), ["Sat 02 02:30 CEST", "Sun 03 02:30 CEST", "Sat 09 02:30 CEST"]);
}

#[test]
fn a_time_that_the_clock_change_leaves_out_is_met_right_after_it_and_once() {
    let before = "2026-03-28T12:00:00[Europe/Berlin]";
    let nightly = at(&[time(2, 30, 0, 0)]);
    assert_eq!(rows(&nightly, before, 2), ["Sun 29 03:00 CEST", "Mon 30 02:30 CEST"]);
    let several = at(&[time(2, 0, 0, 0), time(2, 15, 0, 0), time(2, 59, 59, 0), time(3, 0, 0, 0)]);
    assert_eq!(rows(&several, before, 2), ["Sun 29 03:00 CEST", "Mon 30 02:00 CEST"]);
    // From 24:00 to 01:00: the day begins an hour late.
    let midnight = at(&[time(0, 0, 0, 0)]);
    let before = "2026-09-05T12:00:00[America/Santiago]";
    assert_eq!(rows(&midnight, before, 2), ["Sun 06 01:00 -03", "Mon 07 00:00 -03"]);
    // 30 December 2011 was left out whole.
    let before = "2011-12-29T12:00:00[Pacific/Apia]";
    assert_eq!(rows(&nightly, before, 2), ["Sat 31 00:00 +14", "Sat 31 02:30 +14"]);
}

#[test]
fn a_time_that_comes_twice_is_met_the_first_time() {
    let nightly = at(&[time(2, 30, 0, 0)]);
    let before = "2026-10-24T12:00:00[Europe/Berlin]";
    assert_eq!(rows(&nightly, before, 2), ["Sun 25 02:30 CEST", "Mon 26 02:30 CET"]);
    // Half an hour.
    let before = "2026-04-04T12:00:00[Australia/Lord_Howe]";
    let early = at(&[time(1, 45, 0, 0)]);
    assert_eq!(rows(&early, before, 2), ["Sun 05 01:45 +11", "Mon 06 01:45 +1030"]);
}

#[test]
fn every_counts_hours_that_pass() {
    let every = Schedule::Every(SignedDuration::from_hours(4));
    let night = rows(&every, "2026-03-28T20:00:00[Europe/Berlin]", 3);
    assert_eq!(night, ["Sun 29 00:00 CET", "Sun 29 05:00 CEST", "Sun 29 09:00 CEST"]);
    let night = rows(&every, "2026-10-24T20:00:00[Europe/Berlin]", 3);
    assert_eq!(night, ["Sun 25 00:00 CEST", "Sun 25 03:00 CET", "Sun 25 07:00 CET"]);
}

#[test]
fn without_a_time_of_day_nothing_is_due() {
    assert_eq!(rows(&at(&[]), "2026-03-28T20:00:00[UTC]", 1), Vec::<String>::new());
    let latest = Timestamp::MAX;
    assert_eq!(at(&[time(2, 30, 0, 0)]).next(latest, &zone("UTC"), ""), None);
    assert_eq!(Schedule::Every(SignedDuration::MAX).next(latest, &zone("UTC"), ""), None);
}

#[test]
fn a_year_has_one_nightly_run_a_day_in_every_zone() {
    for name in ZONES {
        let zone = zone(name);
        for clock in [time(0, 0, 0, 0), time(1, 45, 0, 0), time(2, 30, 0, 0), time(23, 59, 0, 0)] {
            let start: Zoned = format!("2026-01-01T00:00:00[{name}]").parse().unwrap();
            let end = start.checked_add(1.year()).unwrap().timestamp();
            let mut last = start.timestamp().checked_sub(1.nanosecond()).unwrap();
            let mut days = BTreeSet::new();
            let mut count = 0;
            while let Some(next) = at(&[clock]).next(last, &zone, "").filter(|next| *next < end) {
                let local = next.to_zoned(zone.clone());
                assert!(local.time() == clock || is_right_after_a_change(next, &zone), "{name}: {local} for {clock}");
                days.insert(local.date());
                count += 1;
                last = next;
            }
            assert_eq!((count, days.len()), (365, 365), "{name} at {clock}");
        }
    }
}

fn is_right_after_a_change(at: Timestamp, zone: &TimeZone) -> bool {
    zone.following(at.checked_sub(1.nanosecond()).unwrap()).next().is_some_and(|change| change.timestamp() == at)
}

fn any_zone() -> impl Strategy<Value = TimeZone> {
    prop::sample::select(&ZONES[..]).prop_map(zone)
}

fn any_instant() -> impl Strategy<Value = Timestamp> {
    // 2020 to 2035.
    (1_577_836_800_i64..2_051_222_400, 0..1_000_000_000_i32).prop_map(|(s, n)| Timestamp::new(s, n).unwrap())
}

fn any_times() -> impl Strategy<Value = Vec<Time>> {
    prop::collection::vec((0..24_i8, 0..60_i8).prop_map(|(hour, minute)| time(hour, minute, 0, 0)), 1..5)
}

fn any_spread() -> impl Strategy<Value = SignedDuration> {
    prop_oneof![Just(0), 1..7200_i64, 0..200_000_i64].prop_map(SignedDuration::from_secs)
}

proptest! {
    #[test]
    fn the_next_occurrence_is_later_and_no_other_lies_between(
        zone in any_zone(), times in any_times(), spread in any_spread(), after in any_instant(), part in 0.0..1.0_f64,
    ) {
        let schedule = on(&[], &times, spread);
        let next = schedule.next(after, &zone, "seed").unwrap();
        prop_assert!(next > after);
        // A day may have 25 hours, and begin late by a gap.
        prop_assert!(next.duration_since(after) <= SignedDuration::from_hours(26) + spread, "{after} -> {next}");
        let between = after + next.duration_since(after).mul_f64(part);
        if between < next {
            prop_assert_eq!(schedule.next(between, &zone, "seed"), Some(next));
        }
    }

    #[test]
    fn spread_only_makes_later_and_by_less_than_it_says(
        zone in any_zone(), clock in any_times(), spread in 1..7200_i64, after in any_instant(),
    ) {
        let spread = SignedDuration::from_secs(spread);
        let next = on(&[], &clock, spread).next(after, &zone, "seed").unwrap();
        let on_time = at(&clock).next(next - spread, &zone, "").unwrap();
        prop_assert!(on_time <= next, "{on_time} is later than {next}");
    }

    #[test]
    fn on_weekdays_are_exactly_the_daily_occurrences_of_these_days(
        zone in any_zone(), clock in 3..22_i8, after in any_instant(),
    ) {
        let clock = [time(clock, 0, 0, 0)];
        let (mut last, mut expected) = (after, Vec::new());
        for _ in 0..14 {
            last = at(&clock).next(last, &zone, "").unwrap();
            let day = last.to_zoned(zone.clone()).weekday();
            if matches!(day.to_monday_one_offset(), 2 | 5 | 7) {
                expected.push(last);
            }
        }
        let (schedule, mut last) = (on(&[Weekday::Tuesday, Weekday::Friday, Weekday::Sunday], &clock, SignedDuration::ZERO), after);
        for expected in expected {
            last = schedule.next(last, &zone, "").unwrap();
            prop_assert_eq!(last, expected);
        }
    }
}

fn moment(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn a_clock_that_is_set_back_a_little_runs_nothing_twice() {
    let ran = Past::new(moment("2026-05-02T02:30:05Z"));
    let seen = ran.seen(moment("2026-05-02T01:00:00Z"));
    assert_eq!(seen, ran);
    let next = at(&[time(2, 30, 0, 0)]).next(seen.covered_until(), &zone("UTC"), "");
    assert_eq!(next, Some(moment("2026-05-03T02:30:00Z")));
}

#[test]
fn a_clock_that_once_showed_a_far_future_stops_nothing() {
    let ran = Past::new(moment("2040-01-01T02:30:05Z"));
    let first = ran.seen(moment("2026-05-02T01:00:00Z"));
    assert_eq!(first.covered_until(), moment("2026-05-02T01:00:00Z"));
    let later = first.seen(moment("2026-05-03T01:00:00Z"));
    assert_eq!(later, first, "what is missed from then on is made up for, also after a restart");
    // And once more.
    let again = later.seen(moment("2026-01-01T00:00:00Z"));
    assert_eq!(again.covered_until(), moment("2026-01-01T00:00:00Z"));
}

#[test]
fn a_machine_that_starts_in_1970_and_learns_the_time_has_missed_nothing() {
    let ran = Past::new(moment("2026-05-02T02:30:05Z"));
    let woken = ran.seen(moment("1970-01-01T00:00:10Z"));
    assert_eq!(woken.covered_until(), moment("1970-01-01T00:00:10Z"));
    assert_eq!(woken.seen(moment("2026-05-02T08:00:00Z")), ran);
}
