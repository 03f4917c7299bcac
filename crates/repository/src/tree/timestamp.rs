//! A point in time as Go writes it: RFC 3339 with up to nine decimals, no trailing zeros (`time.RFC3339Nano`).

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time with the zone offset it was written with, so that re-encoding gives the same bytes.
///
/// Two are equal when they are the same instant, whatever their offsets: a file has not changed because the clocks have.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub secs: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
    /// East of UTC, in minutes.
    pub offset_minutes: i16,
}

/// A text that is not a time of RFC 3339.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a time like 2006-01-02T15:04:05.999999999+07:00")]
pub struct ParseTimestampError(pub String);

const DAY: i64 = 86_400;
/// The longest text: `2006-01-02T15:04:05.999999999+07:00`.
pub(super) const MAX_LEN: usize = 35;

impl Timestamp {
    /// Go's zero time, 0001-01-01T00:00:00Z: what a field that is not there means.
    pub(super) const ZERO: Timestamp = Timestamp { secs: -62_135_596_800, nanos: 0, offset_minutes: 0 };

    /// A time as the kernel gives it. As in restic, years before 0 become 0 and years after 9999 become 9999, the rest of the
    /// date stays: file systems hold such times, RFC 3339 cannot.
    pub fn from_unix(secs: i64, nanos: u32, offset_minutes: i16) -> Timestamp {
        Timestamp { secs, nanos, offset_minutes }.in_range()
    }

    fn in_range(self) -> Timestamp {
        let offset = i64::from(self.offset_minutes) * 60;
        let local = self.secs.saturating_add(offset);
        let (year, month, day) = date_from_days(local.div_euclid(DAY));
        let nearest = year.clamp(0, 9999);
        if nearest == year {
            return self;
        }
        let days = days_from_date(nearest, month, 1) + i64::from(day) - 1;
        Timestamp { secs: days * DAY + local.rem_euclid(DAY) - offset, ..self }
    }

    /// Writes the text and returns its length.
    pub(super) fn format_into(self, text: &mut [u8; MAX_LEN]) -> usize {
        const IN_RANGE: std::ops::Range<i64> = -62_167_219_200..253_402_300_800;
        let offset_minutes = i64::from(self.offset_minutes);
        let mut local = self.secs.saturating_add(offset_minutes * 60);
        if !IN_RANGE.contains(&local) {
            local = self.in_range().secs + offset_minutes * 60;
        }
        let (year, month, day) = date_from_days(local.div_euclid(DAY));
        let second = local.rem_euclid(DAY) as u32;
        text[..20].copy_from_slice(b"0000-00-00T00:00:00.");
        two_digits(&mut text[0..2], year as u32 / 100);
        two_digits(&mut text[2..4], year as u32 % 100);
        two_digits(&mut text[5..7], month);
        two_digits(&mut text[8..10], day);
        two_digits(&mut text[11..13], second / 3600);
        two_digits(&mut text[14..16], second / 60 % 60);
        two_digits(&mut text[17..19], second % 60);
        let mut len = 19;
        if self.nanos != 0 {
            let mut rest = self.nanos;
            for digit in text[20..29].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
            len = 29;
            while text[len - 1] == b'0' {
                len -= 1;
            }
        }
        if self.offset_minutes == 0 {
            text[len] = b'Z';
            return len + 1;
        }
        let offset = u32::from(self.offset_minutes.unsigned_abs());
        text[len] = if self.offset_minutes < 0 { b'-' } else { b'+' };
        two_digits(&mut text[len + 1..len + 3], offset / 60);
        text[len + 3] = b':';
        two_digits(&mut text[len + 4..len + 6], offset % 60);
        len + 6
    }

    /// Reads a whole text.
    pub(super) fn parse(text: &[u8]) -> Option<Timestamp> {
        let (date, rest) = text.split_at_checked(19)?;
        if [date[4], date[7], date[10], date[13], date[16]] != *b"--T::" {
            return None;
        }
        let year = number(&date[0..2], 99)? * 100 + number(&date[2..4], 99)?;
        let (month, day) = (number(&date[5..7], 12)?, number(&date[8..10], 31)?);
        let (hour, minute, second) =
            (number(&date[11..13], 23)?, number(&date[14..16], 59)?, number(&date[17..19], 59)?);
        let (nanos, zone) = match rest.split_first()? {
            (b'.', fraction) => {
                let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
                // Go reads any number of decimals and forgets those after the ninth.
                let nanos = fraction[..digits].iter().take(9).fold(0, |sum, byte| sum * 10 + u32::from(byte - b'0'));
                (nanos * 10_u32.pow(9 - digits.clamp(1, 9) as u32), (digits > 0).then_some(&fraction[digits..])?)
            }
            _ => (0, rest),
        };
        let offset_minutes = match *zone {
            [b'Z'] => 0,
            [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
                let minutes = (number(&[h1, h2], 23)? * 60 + number(&[m1, m2], 59)?) as i16;
                if sign == b'-' { -minutes } else { minutes }
            }
            _ => return None,
        };
        let days = days_from_date(i64::from(year), month, day);
        if day == 0 || month == 0 || (day > 28 && date_from_days(days) != (i64::from(year), month, day)) {
            return None;
        }
        let local = days * DAY + i64::from(hour * 3600 + minute * 60 + second);
        Some(Timestamp { secs: local - i64::from(offset_minutes) * 60, nanos, offset_minutes })
    }
}

fn two_digits(text: &mut [u8], value: u32) {
    // An offset of 100 hours and more cannot be written; it only comes from a caller's mistake and must not panic.
    text[0] = b'0' + (value / 10 % 10) as u8;
    text[1] = b'0' + (value % 10) as u8;
}

fn number(digits: &[u8], max: u32) -> Option<u32> {
    let (tens, ones) = (digits[0].wrapping_sub(b'0'), digits[1].wrapping_sub(b'0'));
    let value = u32::from(tens) * 10 + u32::from(ones);
    (tens < 10 && ones < 10 && value <= max).then_some(value)
}

/// Days since 1970-01-01 of a date in the proleptic Gregorian calendar. Years are counted from March, so that the leap day
/// is the last one.
fn days_from_date(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((i64::from(month) + 9) % 12) + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_from_date`].
fn date_from_days(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097) as u32;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    (i64::from(year_of_era) + era * 400 + i64::from(month <= 2), month, day)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; MAX_LEN];
        let len = self.format_into(&mut text);
        f.pad(std::str::from_utf8(&text[..len]).expect("a time is ASCII"))
    }
}

impl FromStr for Timestamp {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Timestamp::parse(text.as_bytes()).ok_or_else(|| ParseTimestampError(text.to_owned()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl PartialEq for Timestamp {
    fn eq(&self, other: &Self) -> bool {
        (self.secs, self.nanos) == (other.secs, other.nanos)
    }
}

impl Eq for Timestamp {}

impl PartialOrd for Timestamp {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timestamp {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.secs, self.nanos).cmp(&(other.secs, other.nanos))
    }
}

impl Hash for Timestamp {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.secs, self.nanos).hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_go_s() {
        for (secs, nanos, offset, text) in [
            (0, 0, 0, "1970-01-01T00:00:00Z"),
            (1_700_000_000, 123_456_789, 60, "2023-11-14T23:13:20.123456789+01:00"),
            (1_700_000_000, 120_000_000, -210, "2023-11-14T18:43:20.12-03:30"),
            (1_700_000_000, 1, -30, "2023-11-14T21:43:20.000000001-00:30"),
            (951_782_400, 0, 0, "2000-02-29T00:00:00Z"),
            (-1, 999_999_999, 0, "1969-12-31T23:59:59.999999999Z"),
            (-62_135_596_800, 0, 0, "0001-01-01T00:00:00Z"),
            (-62_167_219_200, 0, 0, "0000-01-01T00:00:00Z"),
            (253_402_300_799, 999_999_999, 0, "9999-12-31T23:59:59.999999999Z"),
        ] {
            let time = Timestamp::from_unix(secs, nanos, offset);
            assert_eq!(time.to_string(), text);
            let read: Timestamp = text.parse().unwrap();
            assert_eq!((read.secs, read.nanos, read.offset_minutes), (secs, nanos, offset), "{text}");
        }
    }

    #[test]
    fn years_that_cannot_be_written_become_the_nearest_that_can() {
        for (secs, offset, text) in [
            (253_402_300_800, 0, "9999-01-01T00:00:00Z"),
            (253_402_300_799, 1, "9999-01-01T00:00:59+00:01"),
            (253_407_398_400, 0, "9999-03-01T00:00:00Z"), // 10000-02-29
            (-62_167_219_201, 0, "0000-12-31T23:59:59Z"),
            (-62_167_219_200, -1, "0000-12-31T23:59:00-00:01"),
            (i64::MAX, 0, "9999-12-04T15:30:07Z"),
            (i64::MIN, 0, "0000-01-27T08:29:52Z"),
        ] {
            assert_eq!(Timestamp::from_unix(secs, 0, offset).to_string(), text);
            assert_eq!(Timestamp { secs, nanos: 0, offset_minutes: offset }.to_string(), text);
        }
    }

    #[test]
    fn what_go_does_not_read_is_refused() {
        for text in [
            "",
            "2023-11-14",
            "2023-11-14T22:13:20",
            "2023-11-14 22:13:20Z",
            "2023-11-14T22:13:20.Z",
            "2023-11-14T22:13:20z",
            "2023-11-14T24:13:20Z",
            "2023-11-14T22:13:60Z",
            "2023-13-14T22:13:20Z",
            "2023-00-14T22:13:20Z",
            "2023-11-00T22:13:20Z",
            "2023-02-29T22:13:20Z",
            "1900-02-29T22:13:20Z",
            "2023-11-31T22:13:20Z",
            "2023-11-14T22:13:20+24:00",
            "2023-11-14T22:13:20+1:00",
            "2023-11-14T22:13:20ZZ",
            "+023-11-14T22:13:20Z",
        ] {
            assert_eq!(text.parse::<Timestamp>(), Err(ParseTimestampError(text.to_owned())));
        }
    }

    #[test]
    fn decimals_after_the_ninth_are_forgotten() {
        assert_eq!("2023-11-14T22:13:20.1234567899Z".parse::<Timestamp>().unwrap().nanos, 123_456_789);
    }

    #[test]
    fn documents_hold_times_as_text() {
        let text = "\"2023-11-14T23:13:20.5+01:00\"";
        let time: Timestamp = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&time).unwrap(), text);
    }

    #[test]
    fn the_same_instant_in_another_zone_is_equal() {
        let here: Timestamp = "2023-11-14T23:13:20+01:00".parse().unwrap();
        let there: Timestamp = "2023-11-14T22:13:20Z".parse().unwrap();
        assert_eq!(here, there);
        assert!(here < "2023-11-14T22:13:20.000000001Z".parse().unwrap());
    }
}
