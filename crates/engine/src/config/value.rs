//! How durations, rates, percentages and times of day are written.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::civil::{Time, Weekday};

use super::At;

/// Bytes a second; never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate {
    /// Bytes a second.
    pub bytes_per_sec: u64,
}

/// A part of a whole, above 0 and at most 100.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Percentage(f64);

impl Percentage {
    /// As a number above 0 and at most 100.
    pub fn percent(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Percentage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// What is wrong with a value, and how it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) message: String,
    pub(crate) fix: String,
}

impl Wrong {
    pub(crate) fn new(message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { message: message.into(), fix: fix.into() }
    }
}

const DURATION_FIX: &str = "write a number and s, m, h, d or w, such as 30s, 15m, 4h, 7d";

/// Reads `30s`, `15m`, `4h`, `7d`, `2w`, `1h30m`: each unit once, in any order.
pub(crate) fn duration(text: &str) -> Result<Duration, Wrong> {
    let mut rest = text.trim();
    let mut secs: u64 = 0;
    let mut seen: Vec<u64> = Vec::new();
    if rest.is_empty() {
        return Err(Wrong::new("an empty duration", DURATION_FIX));
    }
    while !rest.is_empty() {
        let (number, unit, tail) = number_and_unit(rest);
        let number: u64 = number.parse().map_err(|_| Wrong::new(format!("{text:?} is no duration"), DURATION_FIX))?;
        let factor: u64 = match unit {
            "s" | "sec" => 1,
            "m" | "min" => 60,
            "h" => 3600,
            "d" => 86_400,
            "w" => 604_800,
            "" => return Err(Wrong::new(format!("{text:?} has no unit"), DURATION_FIX)),
            unit => return Err(Wrong::new(format!("{unit:?} is no unit of a duration"), DURATION_FIX)),
        };
        if seen.contains(&factor) {
            return Err(Wrong::new(format!("{text:?} has the unit {unit} twice"), DURATION_FIX));
        }
        seen.push(factor);
        let too_long = || Wrong::new(format!("{text:?} is too long"), DURATION_FIX);
        secs = number.checked_mul(factor).and_then(|more| secs.checked_add(more)).ok_or_else(too_long)?;
        rest = tail;
    }
    Ok(Duration::from_secs(secs))
}

/// The digits a text begins with, the letters after them, and what follows.
fn number_and_unit(text: &str) -> (&str, &str, &str) {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    let rest = rest.trim_start();
    let letters = rest.find(|letter: char| !letter.is_alphabetic()).unwrap_or(rest.len());
    let (unit, tail) = rest.split_at(letters);
    (number, unit, tail.trim_start())
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        rate(text).map_err(|wrong| format!("{}; {}", wrong.message, wrong.fix))
    }
}

const RATE_FIX: &str = "write bytes a second, such as 500kB/s, 10MB/s or 8MiB/s, or bits, such as 100Mbit/s";

/// Reads `10MB/s`, `8MiB/s`, `100Mbit/s`. The letters' case does not matter, as nobody means millibytes.
pub(crate) fn rate(text: &str) -> Result<Rate, Wrong> {
    let digits = text.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == '.');
    let number = &text[..text.len() - digits.len()];
    let number: f64 = number.parse().map_err(|_| Wrong::new(format!("{text:?} is no rate"), RATE_FIX))?;
    let unit = digits.trim().to_ascii_lowercase();
    let Some(unit) = unit.strip_suffix("/s") else {
        return Err(Wrong::new(format!("{text:?} does not say that it is a rate"), format!("write {text}/s")));
    };
    let (unit, bits) = match unit.strip_suffix("bit") {
        Some(unit) => (unit, 8.0),
        None => (unit.strip_suffix('b').unwrap_or(unit), 1.0),
    };
    let factor: f64 = match unit {
        "" => 1.0,
        "k" => 1e3,
        "m" => 1e6,
        "g" => 1e9,
        "ki" => 1024.0,
        "mi" => 1_048_576.0,
        "gi" => 1_073_741_824.0,
        _ => return Err(Wrong::new(format!("{text:?} has an unknown unit"), RATE_FIX)),
    };
    let bytes = (number * factor / bits).round();
    if bytes < 1.0 {
        return Err(Wrong::new(format!("at {text:?} nothing would ever be done"), "leave it out for no limit"));
    }
    if bytes > 1e15 {
        return Err(Wrong::new(format!("{text:?} is beyond any line"), "leave it out for no limit"));
    }
    Ok(Rate { bytes_per_sec: bytes as u64 })
}

const PERCENTAGE_FIX: &str = "write above 0% and at most 100%, such as 10%";

/// Reads `10%`, `2.5%`.
pub(crate) fn percentage(text: &str) -> Result<Percentage, Wrong> {
    let Some(number) = text.trim().strip_suffix('%') else {
        return Err(Wrong::new(format!("{text:?} is no percentage"), PERCENTAGE_FIX));
    };
    match number.trim().parse::<f64>() {
        Ok(number) if number > 0.0 && number <= 100.0 => Ok(Percentage(number)),
        _ => Err(Wrong::new(format!("{text:?} is no percentage"), PERCENTAGE_FIX)),
    }
}

const AT_FIX: &str = "write a time such as 02:30, or days before it, such as \"sun 04:00\" or \"mon-fri 22:15\"";
/// From Monday on.
const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

/// Reads `02:30`, `sun 04:00`, `mon-fri 22:15`, `sat,sun 04:00`.
pub(crate) fn at(text: &str) -> Result<At, Wrong> {
    let wrong = || Wrong::new(format!("{text:?} is no time of day"), AT_FIX);
    let (days, time) = match text.trim().rsplit_once(char::is_whitespace) {
        Some((days, time)) => (self::days(days)?, time),
        None => (DAYS.map(|(_, day)| day).to_vec(), text.trim()),
    };
    let (hour, minute) = time.split_once(':').ok_or_else(wrong)?;
    let number = |text: &str, length: std::ops::RangeInclusive<usize>| {
        let is_number = length.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse::<i8>().ok()).flatten().ok_or_else(wrong)
    };
    let time = Time::new(number(hour, 1..=2)?, number(minute, 2..=2)?, 0, 0).map_err(|_| wrong())?;
    Ok(At { days, time })
}

/// Days and stretches of days, separated by commas. A stretch may go over the week's end.
fn days(text: &str) -> Result<Vec<Weekday>, Wrong> {
    let number = |name: &str| {
        let name = name.trim().to_ascii_lowercase();
        let found = DAYS.iter().position(|(short, _)| name.len() >= 3 && is_day(&name, short));
        found.ok_or_else(|| Wrong::new(format!("{name:?} is no day of the week"), AT_FIX))
    };
    let mut chosen = [false; 7];
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        let mut day = first;
        chosen[day] = true;
        while day != last {
            day = (day + 1) % 7;
            chosen[day] = true;
        }
    }
    Ok(DAYS.iter().zip(chosen).filter(|(_, chosen)| *chosen).map(|((_, day), _)| *day).collect())
}

/// `mon`, or any longer beginning of `monday`.
fn is_day(name: &str, short: &str) -> bool {
    const LONG: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    LONG.iter().any(|long| long.starts_with(short) && long.starts_with(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit() {
        let secs = |text| duration(text).map(|time| time.as_secs());
        assert_eq!(secs("30s"), Ok(30));
        assert_eq!(secs("15m"), Ok(900));
        assert_eq!(secs("1h30m"), Ok(5400));
        assert_eq!(secs(" 1d 12 h "), Ok(129_600));
        assert_eq!(secs("2w"), Ok(1_209_600));
        for text in ["", "30", "h", "-1h", "1.5h", "1y", "1h1h", "1h30", "18446744073709551615d", "1µ"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
        assert_eq!(duration("4").unwrap_err().message, "\"4\" has no unit");
    }

    #[test]
    fn a_rate_is_in_bytes_or_bits_a_second() {
        let bytes = |text| rate(text).map(|rate| rate.bytes_per_sec);
        assert_eq!(bytes("10MB/s"), Ok(10_000_000));
        assert_eq!(bytes("1.5 MiB/s"), Ok(1_572_864));
        assert_eq!(bytes("100Mbit/s"), Ok(12_500_000));
        assert_eq!(bytes("500k/s"), Ok(500_000));
        for text in ["", "10", "10M", "MB/s", "-1MB/s", "0MB/s", "10XB/s", "1.2.3k/s", "99999999GB/s"] {
            assert!(rate(text).is_err(), "{text:?}");
        }
        assert_eq!(rate("10MB").unwrap_err().fix, "write 10MB/s");
    }

    #[test]
    fn a_percentage_is_more_than_nothing_and_at_most_all() {
        assert_eq!(percentage("10%").map(Percentage::percent), Ok(10.0));
        assert_eq!(percentage(" 2.5 %").map(Percentage::percent), Ok(2.5));
        for text in ["", "10", "%", "0%", "101%", "-5%", "nan%", "inf%"] {
            assert!(percentage(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_time_of_day_may_name_days() {
        use Weekday::{Friday, Monday, Saturday, Sunday, Thursday, Tuesday, Wednesday};
        let read = |text: &str| at(text).map(|at| (at.days, at.time.to_string()));
        let every = vec![Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday];
        assert_eq!(read("02:30"), Ok((every, "02:30:00".into())));
        assert_eq!(read("sun 4:00"), Ok((vec![Sunday], "04:00:00".into())));
        assert_eq!(read("Mon-Wednesday 22:15"), Ok((vec![Monday, Tuesday, Wednesday], "22:15:00".into())));
        assert_eq!(read("sat-mon, thu 0:05"), Ok((vec![Monday, Thursday, Saturday, Sunday], "00:05:00".into())));
        for text in ["", "25:00", "2:60", "0230", "2:3", "+2:30", "mo 2:30", "someday 2:30", "mon-xyz 2:30", "2:30:00"]
        {
            assert!(at(text).is_err(), "{text:?}");
        }
    }
}
