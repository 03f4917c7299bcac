//! What retention keeps: worked examples, and what must hold of any points and any rules.

use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, Zoned};
use policy::{Count, Decision, Keep, Period, Reason, RestorePoint, Span, decide};
use proptest::prelude::*;

fn now() -> Timestamp {
    "2030-01-01T00:00:00Z".parse().unwrap()
}

fn point(time: &str) -> RestorePoint {
    let (time, offset) = time.split_at(time.len() - 6);
    let time: Zoned = format!("{time}{offset}[{offset}]").parse().unwrap();
    RestorePoint { time, tags: Vec::new() }
}

fn points(times: &[&str]) -> Vec<RestorePoint> {
    times.iter().map(|time| point(time)).collect()
}

fn at_most(n: u32) -> Option<Count> {
    Some(Count::AtMost(n))
}

fn span(text: &str) -> Option<Span> {
    Some(text.parse().unwrap())
}

/// One letter a point, in the points' order: K kept, - removed.
fn letters(points: &[RestorePoint], keep: &Keep) -> String {
    decide(points, keep, now()).iter().map(|d| if d.keep { 'K' } else { '-' }).collect()
}

#[test]
fn no_rule_keeps_everything() {
    let points = points(&["2020-01-01T00:00:00+00:00", "2021-01-01T00:00:00+00:00"]);
    let zero = Keep { last: at_most(0), within: span("0d"), within_daily: span("0h"), ..Keep::default() };
    for keep in [Keep::default(), zero] {
        let expected = Decision { keep: true, reasons: vec![Reason::NoRule] };
        assert_eq!(decide(&points, &keep, now()), [expected.clone(), expected]);
    }
    assert_eq!(decide(&[], &Keep { last: at_most(1), ..Keep::default() }, now()), []);
}

#[test]
fn the_newest_of_each_day_stays_and_the_oldest_of_all_while_the_count_lasts() {
    let points = points(&[
        "2024-05-01T08:00:00+00:00",
        "2024-05-01T20:00:00+00:00",
        "2024-05-02T08:00:00+00:00",
        "2024-05-02T20:00:00+00:00",
    ]);
    let daily = |n| Keep { daily: at_most(n), ..Keep::default() };
    assert_eq!(letters(&points, &daily(1)), "---K");
    assert_eq!(letters(&points, &daily(2)), "-K-K");
    assert_eq!(letters(&points, &daily(3)), "KK-K");
    assert_eq!(letters(&points, &Keep { daily: Some(Count::All), ..Keep::default() }), "KK-K");
    let oldest = &decide(&points, &daily(3), now())[0].reasons;
    assert_eq!(oldest, &[Reason::Counted { period: Period::Day, oldest: true }]);
    assert_eq!(oldest[0].to_string(), "oldest daily");
}

#[test]
fn the_order_in_which_points_are_given_does_not_matter() {
    let times = ["2024-05-02T20:00:00+00:00", "2024-05-01T08:00:00+00:00", "2024-05-02T08:00:00+00:00"];
    assert_eq!(letters(&points(&times), &Keep { last: at_most(2), ..Keep::default() }), "K-K");
}

#[test]
fn days_are_those_of_each_points_own_zone() {
    // One instant apart by an hour: the same day in New York, two days in Berlin.
    let new_york = points(&["2024-05-01T17:30:00-04:00", "2024-05-01T18:30:00-04:00", "2024-04-01T00:00:00-04:00"]);
    let berlin = points(&["2024-05-01T23:30:00+02:00", "2024-05-02T00:30:00+02:00", "2024-04-01T06:00:00+02:00"]);
    let keep = Keep { daily: at_most(2), ..Keep::default() };
    assert_eq!(letters(&new_york, &keep), "-KK");
    assert_eq!(letters(&berlin, &keep), "KK-");
}

#[test]
fn the_hour_that_comes_twice_when_clocks_go_back_is_one_hour() {
    let points = points(&[
        "2024-10-27T01:30:00+02:00",
        "2024-10-27T02:30:00+02:00",
        "2024-10-27T02:30:00+01:00",
        "2024-10-27T03:30:00+01:00",
    ]);
    assert_eq!(letters(&points, &Keep { hourly: at_most(3), ..Keep::default() }), "K-KK");
}

#[test]
fn a_day_of_23_or_25_hours_is_one_day() {
    for [first, last, next] in [
        ["2024-03-31T00:10:00+01:00", "2024-03-31T23:50:00+02:00", "2024-04-01T00:10:00+02:00"],
        ["2024-10-27T00:10:00+02:00", "2024-10-27T23:50:00+01:00", "2024-10-28T00:10:00+01:00"],
    ] {
        let points = points(&["2024-01-01T00:00:00+01:00", first, last, next]);
        assert_eq!(letters(&points, &Keep { daily: at_most(2), ..Keep::default() }), "--KK");
    }
}

#[test]
fn weeks_are_iso_weeks_and_may_span_two_years() {
    let points = points(&[
        "2020-12-27T12:00:00+00:00",
        "2020-12-28T12:00:00+00:00",
        "2021-01-03T12:00:00+00:00",
        "2021-01-04T12:00:00+00:00",
    ]);
    assert_eq!(letters(&points, &Keep { weekly: at_most(3), ..Keep::default() }), "K-KK");
    assert_eq!(letters(&points, &Keep { yearly: at_most(2), ..Keep::default() }), "-K-K");
}

#[test]
fn within_counts_from_the_newest_point_and_excludes_its_own_beginning() {
    let points = points(&[
        "2020-01-01T00:00:00+00:00",
        "2024-05-01T12:00:00+00:00",
        "2024-05-01T12:00:01+00:00",
        "2024-05-08T12:00:00+00:00",
    ]);
    let keep = Keep { within: span("7d"), ..Keep::default() };
    assert_eq!(letters(&points, &keep), "--KK");
    assert_eq!(decide(&points, &keep, now())[3].reasons, [Reason::Within(span("7d").unwrap())]);
}

#[test]
fn one_of_each_day_within_a_span() {
    let points = points(&[
        "2024-05-01T12:00:00+00:00",
        "2024-05-06T08:00:00+00:00",
        "2024-05-06T12:00:00+00:00",
        "2024-05-08T08:00:00+00:00",
        "2024-05-08T12:00:00+00:00",
    ]);
    let keep = Keep { within_daily: span("4d"), ..Keep::default() };
    assert_eq!(letters(&points, &keep), "--K-K");
    // The oldest of all is kept as well if it is within.
    assert_eq!(letters(&points[1..], &keep), "KK-K");
}

#[test]
fn a_point_from_the_future_does_not_make_the_others_too_old() {
    let points = points(&["2024-05-01T12:00:00+00:00", "2024-05-02T12:00:00+00:00", "2099-01-01T00:00:00+00:00"]);
    let keep = Keep { within: span("1d"), ..Keep::default() };
    assert_eq!(letters(&points, &keep), "-KK");
    assert_eq!(letters(&points[2..], &keep), "K");
}

#[test]
fn a_tag_list_needs_all_of_its_tags_and_the_empty_tag_means_none() {
    let tagged = |tags: &[&str]| RestorePoint {
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        ..point("2024-05-01T12:00:00+00:00")
    };
    let points = [tagged(&["a"]), tagged(&["b", "a"]), tagged(&["c"]), tagged(&[])];
    let keep = |lists: &[&[&str]]| Keep {
        tags: lists.iter().map(|list| list.iter().map(|tag| (*tag).to_owned()).collect()).collect(),
        ..Keep::default()
    };
    assert_eq!(letters(&points, &keep(&[&["a"]])), "KK--");
    assert_eq!(letters(&points, &keep(&[&["a", "b"]])), "-K--");
    assert_eq!(letters(&points, &keep(&[&["a", "b"], &["c"]])), "-KK-");
    assert_eq!(letters(&points, &keep(&[&[""]])), "---K");
    assert_eq!(letters(&points, &keep(&[&["never"]])), "----");
}

#[test]
fn rules_add_up() {
    let days: Vec<String> = (1..=31).map(|day| format!("2024-05-{day:02}T12:00:00+00:00")).collect();
    let days: Vec<&str> = days.iter().map(String::as_str).collect();
    let keep = Keep { last: at_most(2), weekly: at_most(3), monthly: at_most(1), ..Keep::default() };
    assert_eq!(letters(&points(&days), &keep), format!("{}K{}K{}KK", "-".repeat(18), "-".repeat(6), "-".repeat(3)));
}

#[test]
fn counts_are_read_from_words() {
    assert_eq!("7".parse(), Ok(Count::AtMost(7)));
    assert_eq!("unlimited".parse(), Ok(Count::All));
    assert_eq!("all".parse(), Ok(Count::All));
    for text in ["-1", "", "seven", "4294967296"] {
        assert!(text.parse::<Count>().is_err(), "{text:?}");
    }
}

fn any_points() -> impl Strategy<Value = Vec<RestorePoint>> {
    // Minutes over six years, so that hours, days, weeks and months are shared often enough.
    let minutes = prop_oneof![0..200_000_i64, 0..3_000_000_i64];
    let one = (minutes, -48..=56_i32, prop::collection::vec("[ab]", 0..3)).prop_map(|(minutes, quarters, tags)| {
        let zone = TimeZone::fixed(Offset::from_seconds(quarters * 900).unwrap());
        let time = Timestamp::from_second(1_700_000_000 + minutes * 60).unwrap();
        RestorePoint { time: time.to_zoned(zone), tags }
    });
    prop::collection::vec(one, 0..60)
}

fn any_count() -> impl Strategy<Value = Option<Count>> {
    prop_oneof![Just(None), (0..12_u32).prop_map(at_most), Just(Some(Count::All))]
}

fn any_span() -> impl Strategy<Value = Option<Span>> {
    let some = (0..3_u32, 0..14_u32, 0..40_u32, 0..50_u32)
        .prop_map(|(years, months, days, hours)| Some(Span { years, months, days, hours }));
    prop_oneof![Just(None), some]
}

fn any_keep() -> impl Strategy<Value = Keep> {
    let counts = prop::collection::vec(any_count(), 6);
    let spans = prop::collection::vec(any_span(), 6);
    let tags = prop::collection::vec(prop::collection::vec("[ab]?", 1..3), 0..2);
    (counts, spans, tags).prop_map(|(counts, spans, tags)| Keep {
        last: counts[0],
        hourly: counts[1],
        daily: counts[2],
        weekly: counts[3],
        monthly: counts[4],
        yearly: counts[5],
        within: spans[0],
        within_hourly: spans[1],
        within_daily: spans[2],
        within_weekly: spans[3],
        within_monthly: spans[4],
        within_yearly: spans[5],
        tags,
    })
}

fn kept(points: &[RestorePoint], keep: &Keep) -> Vec<bool> {
    decide(points, keep, now()).iter().map(|decision| decision.keep).collect()
}

/// `keep` with the other's rules where it has none of its own.
fn with_rules_of(keep: &Keep, other: &Keep) -> Keep {
    Keep {
        last: keep.last.or(other.last),
        hourly: keep.hourly.or(other.hourly),
        daily: keep.daily.or(other.daily),
        weekly: keep.weekly.or(other.weekly),
        monthly: keep.monthly.or(other.monthly),
        yearly: keep.yearly.or(other.yearly),
        within: keep.within.or(other.within),
        within_hourly: keep.within_hourly.or(other.within_hourly),
        within_daily: keep.within_daily.or(other.within_daily),
        within_weekly: keep.within_weekly.or(other.within_weekly),
        within_monthly: keep.within_monthly.or(other.within_monthly),
        within_yearly: keep.within_yearly.or(other.within_yearly),
        tags: keep.tags.iter().chain(&other.tags).cloned().collect(),
    }
}

proptest! {
    #[test]
    fn keep_last_keeps_exactly_the_newest(points in any_points(), n in 1..70_u32) {
        let kept = kept(&points, &Keep { last: at_most(n), ..Keep::default() });
        let expected = points.len().min(n as usize);
        prop_assert_eq!(kept.iter().filter(|kept| **kept).count(), expected);
        let time = |kept_wanted: bool| {
            points.iter().zip(&kept).filter(move |(_, k)| **k == kept_wanted).map(|(p, _)| p.time.timestamp())
        };
        if let (Some(oldest_kept), Some(newest_removed)) = (time(true).min(), time(false).max()) {
            prop_assert!(oldest_kept >= newest_removed);
        }
    }

    #[test]
    fn adding_rules_never_removes_what_was_kept(points in any_points(), keep in any_keep(), more in any_keep()) {
        prop_assume!(!keep.is_empty());
        let before = kept(&points, &keep);
        let after = kept(&points, &with_rules_of(&keep, &more));
        prop_assert!(before.iter().zip(&after).all(|(before, after)| *after || !*before));
    }

    #[test]
    fn a_count_bounds_what_it_keeps(points in any_points(), n in 1..12_u32) {
        for keep in [
            Keep { hourly: at_most(n), ..Keep::default() },
            Keep { daily: at_most(n), ..Keep::default() },
            Keep { weekly: at_most(n), ..Keep::default() },
            Keep { monthly: at_most(n), ..Keep::default() },
            Keep { yearly: at_most(n), ..Keep::default() },
        ] {
            let count = kept(&points, &keep).iter().filter(|kept| **kept).count();
            prop_assert!(count <= n as usize && count >= 1.min(points.len()));
        }
    }

    #[test]
    fn what_is_kept_has_a_reason_and_what_goes_has_none(points in any_points(), keep in any_keep()) {
        for decision in decide(&points, &keep, now()) {
            prop_assert_eq!(decision.keep, !decision.reasons.is_empty());
        }
    }

    #[test]
    fn any_rule_but_tags_keeps_the_newest(points in any_points(), keep in any_keep()) {
        let keep = Keep { tags: Vec::new(), ..keep };
        let newest = points.iter().map(|point| point.time.timestamp()).max();
        let decisions = kept(&points, &keep);
        prop_assert!(points.is_empty()
            || points.iter().zip(decisions).any(|(point, kept)| kept && Some(point.time.timestamp()) == newest));
    }

    #[test]
    fn a_span_reads_back_what_it_writes(years in 0..99_u32, months in 0..99_u32, days in 0..99_u32, hours in 0..99_u32) {
        let span = Span { years, months, days, hours };
        prop_assert_eq!(span.to_string().parse(), Ok(span));
    }
}
