//! Numbers, sizes and times as people read and type them.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};

/// `0 B`, `812 B`, `1.2 MB`, `38 GB`: powers of ten, two digits that count.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    // 999.6 kB would be shown as 1000 kB.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ if value < 9.95 => format!("{value:.1} {}", UNITS[unit]),
        _ => format!("{value:.0} {}", UNITS[unit]),
    }
}

/// `18,204`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 file`, `2 files`.
pub(crate) fn counted(number: u64, one: &str) -> String {
    match (number, one.strip_suffix('y')) {
        (1, _) => format!("1 {one}"),
        (_, Some(stem)) => format!("{} {stem}ies", count(number)),
        _ => format!("{} {one}s", count(number)),
    }
}

/// The first of many, and how many more.
pub(crate) fn few(words: &[String]) -> String {
    const SHOWN: usize = 3;
    match words {
        [first, second, third, _, _, ..] => {
            format!("{first}, {second}, {third} and {} more", count((words.len() - SHOWN) as u64))
        }
        words => words.join(", "),
    }
}

/// `0.31 s`, `12 s`, `3:05 min`, `2:00:05 h`.
pub(crate) fn duration(time: Duration) -> String {
    let secs = time.as_secs();
    match secs {
        0..=9 => format!("{:.2} s", time.as_secs_f64()),
        10..=59 => format!("{secs} s"),
        60..=3599 => format!("{}:{:02} min", secs / 60, secs % 60),
        _ => format!("{}:{:02}:{:02} h", secs / 3600, secs / 60 % 60, secs % 60),
    }
}

/// How long it will take, which nobody knows exactly: `2 s`, `3 min`, `1 h 20 min`.
pub(crate) fn rough_duration(secs: u64) -> String {
    match secs {
        0..=89 => format!("{secs} s"),
        90..=5399 => format!("{} min", secs.div_ceil(60)),
        5400..=172_799 => format!("{} h {} min", secs / 3600, secs / 60 % 60),
        _ => format!("{} days", secs / 86_400),
    }
}

/// How long ago: `just now`, `12 min ago`, `7 h ago`, `2 days ago`.
pub(crate) fn age(now_secs: i64, then_secs: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    let secs = now_secs - then_secs;
    let (number, unit) = match secs {
        // A minute's difference between two machines' clocks is nothing.
        ..-60 => return "in the future".to_owned(),
        -60..MINUTE => return "just now".to_owned(),
        MINUTE..HOUR => (secs / MINUTE, "min"),
        HOUR..172_800 => (secs / HOUR, "h"),
        172_800..5_184_000 => (secs / DAY, "days"),
        5_184_000..63_072_000 => (secs / (30 * DAY), "months"),
        _ => (secs / (365 * DAY), "years"),
    };
    format!("{number} {unit} ago")
}

/// As [`age`], of points in time.
pub(crate) fn age_of(now: Timestamp, then: Timestamp) -> String {
    age(now.as_second(), then.as_second())
}

/// How long until: `in 25 s`, `in 1 h 48 min`, `in 2 days`; `now` if it has passed.
pub(crate) fn until(now: Timestamp, then: Timestamp) -> String {
    match (then.duration_since(now).as_millis().max(0) as u64).div_ceil(1000) {
        0 => "now".to_owned(),
        secs => format!("in {}", span(secs)),
    }
}

/// A time to come: `25 s`, `1 h 48 min`, `2 h`, `2 days`; begun minutes count whole.
pub(crate) fn span(secs: u64) -> String {
    let minutes = secs.div_ceil(60);
    match (secs, minutes / 60, minutes % 60) {
        (0..=89, ..) => format!("{secs} s"),
        (_, 0, minutes) => format!("{minutes} min"),
        (_, hours @ 1..48, 0) => format!("{hours} h"),
        (_, hours @ 1..48, minutes) => format!("{hours} h {minutes} min"),
        (_, hours, _) => format!("{} days", hours / 24),
    }
}

/// A time far ahead: as [`span`], then `8 months`, `2 years`, `more than 10 years`.
pub(crate) fn long_span(secs: u64) -> String {
    const DAY: u64 = 86_400;
    match secs / DAY {
        0..60 => span(secs),
        days @ 60..730 => format!("{} months", days / 30),
        days @ 730..3650 => format!("{} years", days / 365),
        _ => "more than 10 years".to_owned(),
    }
}

/// `2026-10-03 14:02:11`, in this machine's zone; with the zone's offset where it must be exact.
pub(crate) fn clock_time(time: Timestamp, is_exact: bool) -> String {
    let format = if is_exact { "%Y-%m-%d %H:%M:%S %:z" } else { "%Y-%m-%d %H:%M:%S" };
    time.to_zoned(TimeZone::system()).strftime(format).to_string()
}

/// `2026-10-03 14:02:11`, in this machine's zone.
pub(crate) fn local_time(time: repository::tree::Timestamp) -> String {
    zoned(time, TimeZone::system())
}

/// As [`local_time`], with the zone's offset.
pub(crate) fn exact_time(time: repository::tree::Timestamp) -> String {
    match Timestamp::new(time.secs, time.nanos as i32) {
        Ok(at) => at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %:z").to_string(),
        Err(_) => time.to_string(),
    }
}

fn zoned(time: repository::tree::Timestamp, zone: TimeZone) -> String {
    match Timestamp::new(time.secs, time.nanos as i32) {
        Ok(at) => at.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => time.to_string(),
    }
}

/// In the zone it was written with.
pub(crate) fn to_zoned(time: repository::tree::Timestamp) -> jiff::Zoned {
    let offset = Offset::from_seconds(i32::from(time.offset_minutes) * 60).unwrap_or(Offset::UTC);
    Timestamp::new(time.secs, time.nanos as i32).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(TimeZone::fixed(offset))
}

/// Reads `500`, `10k`, `1.5M`, `2G`, with or without `B`: powers of ten; `KiB`, `MiB`, ... are powers of two.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size; write 500, 10k, 1.5M, 2G or 2GiB");
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic() || letter == ' ');
    let unit = text[digits.len()..].trim().to_ascii_lowercase();
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    let factor: f64 = match unit.as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "kib" => 1024.0,
        "mib" => 1_048_576.0,
        "gib" => 1_073_741_824.0,
        "tib" => 1_099_511_627_776.0,
        _ => return Err(wrong()),
    };
    let bytes = number * factor;
    if bytes.is_finite() && (0.0..9e18).contains(&bytes) { Ok(bytes as u64) } else { Err(wrong()) }
}

/// Reads `30s`, `10m`, `2h`, `1d`. A bare number is refused: whoever types `--confirm 5` does not mean seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration; write 30s, 10m, 2h or 1d");
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 = digits.trim().parse().map_err(|_| wrong())?;
    let secs = match &text[digits.len()..] {
        "" if number == 0 => 1,
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    number.checked_mul(secs).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_decimal_and_never_show_four_digits() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (9_949, "9.9 kB"),
            (9_950, "10 kB"),
            (999_499, "999 kB"),
            (999_500, "1.0 MB"),
            (38_100_000_000, "38 GB"),
            (u64::MAX, "18 EB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn counts_have_groups_and_nouns_a_plural() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(counted(1, "file"), "1 file");
        assert_eq!(counted(0, "file"), "0 files");
        assert_eq!(counted(1000, "directory"), "1,000 directories");
    }

    #[test]
    fn ages_are_words() {
        let ages = [(0, "just now"), (59, "just now"), (60, "1 min ago"), (3600, "1 h ago"), (172_800, "2 days ago")];
        for (secs, text) in ages {
            assert_eq!(age(1_000_000_000, 1_000_000_000 - secs), text);
        }
        assert_eq!(age(0, 3600), "in the future");
    }

    #[test]
    fn what_is_to_come_is_words_and_a_begun_minute_is_whole() {
        let until = |millis: i64| until(Timestamp::UNIX_EPOCH, Timestamp::from_millisecond(millis).unwrap());
        let times = [
            (-5, "now"),
            (0, "now"),
            (1, "in 1 s"),
            (89_000, "in 89 s"),
            (90_000, "in 2 min"),
            (3_599_999, "in 1 h"),
            (14_399_990, "in 4 h"),
            (6_480_000, "in 1 h 48 min"),
            (172_800_000, "in 2 days"),
        ];
        for (millis, text) in times {
            assert_eq!(until(millis), text, "{millis}");
        }
    }

    #[test]
    fn sizes_and_durations_are_read_as_they_are_typed() {
        assert_eq!(parse_size("1.5M"), Ok(1_500_000));
        assert_eq!(parse_size("2 GiB"), Ok(2 << 30));
        assert_eq!(parse_size("0"), Ok(0));
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7200)));
        for text in ["", "M", "-1k", "1x", "nan", "inf", "1e400"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        for text in ["", "h", "5", "-1s", "1.5h", "18446744073709551615d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
