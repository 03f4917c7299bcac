//! How far back: years, months, days and hours on the calendar, such as `2y5m7d3h`.

use std::fmt;
use std::str::FromStr;

use jiff::Zoned;
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};

/// A distance on the calendar. A month is a month, not thirty days, and a day may have 23 hours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// Calendar years.
    pub years: u32,
    /// Calendar months.
    pub months: u32,
    /// Calendar days.
    pub days: u32,
    /// Hours of 3600 seconds.
    pub hours: u32,
}

/// Why a text is not a [`Span`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    /// There is nothing to read.
    #[error("an empty duration; write for example 1y5m7d2h")]
    Empty,
    /// A unit without a number, or a sign.
    #[error("duration {text:?}: expected a number at {rest:?}")]
    NoNumber {
        /// All of the text.
        text: String,
        /// From where it could not be read.
        rest: String,
    },
    /// Above 4,294,967,295.
    #[error("duration {text:?}: the number {number} is too large")]
    TooLarge {
        /// All of the text.
        text: String,
        /// The number.
        number: String,
    },
    /// A number with no or another unit.
    #[error("duration {text:?}: expected y, m, d or h after {number}")]
    NoUnit {
        /// All of the text.
        text: String,
        /// The number.
        number: String,
    },
    /// A unit twice, of which one would be lost.
    #[error("duration {text:?}: {unit} is given twice")]
    Twice {
        /// All of the text.
        text: String,
        /// The unit.
        unit: char,
    },
}

impl Span {
    /// Whether it reaches nowhere.
    pub fn is_zero(self) -> bool {
        self == Self::default()
    }

    /// The instant this far before `time`, counted on the calendar of `time`'s zone. A day that the month does not
    /// have runs over into the next month, as Go's `AddDate` does: 31 March less a month is 3 March. Ends at the
    /// earliest instant that can be expressed.
    pub(crate) fn before(self, time: &Zoned) -> Timestamp {
        self.checked_before(time).unwrap_or(Timestamp::MIN)
    }

    fn checked_before(self, time: &Zoned) -> Option<Timestamp> {
        let from = time.date();
        let months = (i64::from(from.year()) - i64::from(self.years)) * 12 + i64::from(from.month())
            - 1
            - i64::from(self.months);
        let year = i16::try_from(months.div_euclid(12)).ok()?;
        let month = i8::try_from(months.rem_euclid(12) + 1).ok()?;
        let days = i64::from(from.day()) - 1 - i64::from(self.days);
        let date = Date::new(year, month, 1).ok()?.checked_add(SignedDuration::from_secs(days * 86_400)).ok()?;
        let day = time.time_zone().to_timestamp(date.to_datetime(time.time())).ok()?;
        day.checked_sub(SignedDuration::from_hours(i64::from(self.hours))).ok()
    }
}

impl FromStr for Span {
    type Err = SpanError;

    /// Reads numbers each followed by one of `y`, `m`, `d`, `h`, in any order.
    fn from_str(text: &str) -> Result<Self, SpanError> {
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(SpanError::Empty);
        }
        let mut span = Self::default();
        let mut seen = [false; 4];
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (number, tail) = rest.split_at(end);
            if number.is_empty() {
                return Err(SpanError::NoNumber { text: text.into(), rest: rest.into() });
            }
            let no_unit = || SpanError::NoUnit { text: text.into(), number: number.into() };
            let unit = tail.chars().next().ok_or_else(no_unit)?;
            let (which, field) = match unit {
                'y' => (0, &mut span.years),
                'm' => (1, &mut span.months),
                'd' => (2, &mut span.days),
                'h' => (3, &mut span.hours),
                _ => return Err(no_unit()),
            };
            if std::mem::replace(&mut seen[which], true) {
                return Err(SpanError::Twice { text: text.into(), unit });
            }
            *field = number.parse().map_err(|_| SpanError::TooLarge { text: text.into(), number: number.into() })?;
            rest = &tail[1..];
        }
        Ok(span)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [(self.years, 'y'), (self.months, 'm'), (self.days, 'd'), (self.hours, 'h')];
        if self.is_zero() {
            return f.write_str("0h");
        }
        parts.iter().filter(|(n, _)| *n != 0).try_for_each(|(n, unit)| write!(f, "{n}{unit}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before(time: &str, span: &str) -> String {
        let time: Zoned = time.parse().unwrap();
        span.parse::<Span>().unwrap().before(&time).to_string()
    }

    #[test]
    fn a_span_is_read_in_any_order_and_written_in_one() {
        let span: Span = " 7d2y3h5m ".parse().unwrap();
        assert_eq!(span, Span { years: 2, months: 5, days: 7, hours: 3 });
        assert_eq!(span.to_string(), "2y5m7d3h");
        assert_eq!("0d".parse::<Span>().unwrap().to_string(), "0h");
    }

    #[test]
    fn what_is_no_span_is_refused() {
        for text in ["", " ", "7", "d", "-1d", "1d-2h", "7w", "1D", "1d 2h", "4294967296h", "1d2d", "1µ"] {
            assert!(text.parse::<Span>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_day_the_month_does_not_have_runs_over() {
        assert_eq!(before("2023-03-31T12:00:00+00:00[UTC]", "1m"), "2023-03-03T12:00:00Z");
        assert_eq!(before("2024-02-29T12:00:00+00:00[UTC]", "1y"), "2023-03-01T12:00:00Z");
        assert_eq!(before("2024-01-15T12:00:00+00:00[UTC]", "1m20d1h"), "2023-11-25T11:00:00Z");
    }

    #[test]
    fn a_day_back_keeps_the_clock_time_and_hours_do_not() {
        // The clocks went forward on 31 March 2024 at 02:00.
        let noon = "2024-03-31T12:00:00+02:00[Europe/Berlin]";
        assert_eq!(before(noon, "1d"), "2024-03-30T11:00:00Z");
        assert_eq!(before(noon, "24h"), "2024-03-30T10:00:00Z");
    }

    #[test]
    fn a_span_longer_than_the_calendar_ends_at_its_beginning() {
        let earliest = Timestamp::MIN.to_string();
        for span in ["4294967295y", "4294967295m", "4294967295d", "4294967295h", "11000y"] {
            assert!(before("2024-03-31T12:00:00+00:00[UTC]", span) <= before("1600-01-01T00:00Z[UTC]", "0h"), "{span}");
        }
        assert_eq!(before("2024-03-31T12:00:00+00:00[UTC]", "4294967295y"), earliest);
    }
}
