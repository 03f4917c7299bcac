//! Which of a group's points in time are kept; the rules and their order of counting are restic's `forget`
//! (`internal/data/snapshot_policy.go`), so that one repository can be thinned by either tool with the same result.
//!
//! Every rule keeps on its own: a point is kept if any rule keeps it, and no rule takes back what another kept.
//! Hours, days, ISO weeks, months and years are those of each point's own zone.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use jiff::{Timestamp, Zoned};

use crate::span::Span;

/// A point in time one could go back to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestorePoint {
    /// When it was made, in the zone it was made in. A fixed offset will do; with a real zone, the beginning of a
    /// [`Span`] also follows the zone's clock changes.
    pub time: Zoned,
    /// In any order.
    pub tags: Vec<String>,
}

/// How many a rule keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Count {
    /// At most so many; none switches the rule off.
    AtMost(u32),
    /// All that there are.
    All,
}

/// A text that is no [`Count`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot keep {text:?}; write a number, or `unlimited` for all")]
pub struct CountError {
    /// What was given.
    pub text: String,
    /// Why it is not a number.
    #[source]
    pub source: ParseIntError,
}

impl FromStr for Count {
    type Err = CountError;

    /// Reads a number, or `all` or `unlimited`.
    fn from_str(text: &str) -> Result<Self, CountError> {
        match text {
            "all" | "unlimited" => Ok(Self::All),
            _ => text.parse().map(Self::AtMost).map_err(|source| CountError { text: text.into(), source }),
        }
    }
}

/// What to keep. Rules that are `None`, zero or empty are off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// The newest.
    pub last: Option<Count>,
    /// The newest of each of the newest hours that have one.
    pub hourly: Option<Count>,
    /// The newest of each day.
    pub daily: Option<Count>,
    /// The newest of each ISO week.
    pub weekly: Option<Count>,
    /// The newest of each month.
    pub monthly: Option<Count>,
    /// The newest of each year.
    pub yearly: Option<Count>,
    /// All made within the span before the newest point.
    pub within: Option<Span>,
    /// The newest of each hour within the span.
    pub within_hourly: Option<Span>,
    /// The newest of each day within the span.
    pub within_daily: Option<Span>,
    /// The newest of each ISO week within the span.
    pub within_weekly: Option<Span>,
    /// The newest of each month within the span.
    pub within_monthly: Option<Span>,
    /// The newest of each year within the span.
    pub within_yearly: Option<Span>,
    /// All that have every tag of one of these lists. The empty tag stands for having none.
    pub tags: Vec<Vec<String>>,
}

impl Keep {
    /// Whether no rule is on, so that it says nothing about what may go.
    pub fn is_empty(&self) -> bool {
        self.tags.is_empty()
            && self.within().is_none()
            && self.counted().iter().all(|(_, count)| is_off(*count))
            && self.counted_within().iter().all(|(_, span)| span.is_none())
    }

    fn within(&self) -> Option<Span> {
        self.within.filter(|span| !span.is_zero())
    }

    fn counted(&self) -> [(Period, Option<Count>); 6] {
        [
            (Period::Each, self.last),
            (Period::Hour, self.hourly),
            (Period::Day, self.daily),
            (Period::Week, self.weekly),
            (Period::Month, self.monthly),
            (Period::Year, self.yearly),
        ]
    }

    fn counted_within(&self) -> [(Period, Option<Span>); 5] {
        [
            (Period::Hour, self.within_hourly),
            (Period::Day, self.within_daily),
            (Period::Week, self.within_weekly),
            (Period::Month, self.within_monthly),
            (Period::Year, self.within_yearly),
        ]
        .map(|(period, span)| (period, span.filter(|span| !span.is_zero())))
    }
}

fn is_off(count: Option<Count>) -> bool {
    matches!(count, None | Some(Count::AtMost(0)))
}

/// The stretch of time of which one point is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Period {
    /// Every point is its own.
    Each,
    /// A clock hour.
    Hour,
    /// A calendar day.
    Day,
    /// An ISO week, Monday to Sunday.
    Week,
    /// A calendar month.
    Month,
    /// A calendar year.
    Year,
}

impl Period {
    /// Two points of the same stretch have the same value. `nr` is the point's place, newest first.
    fn stretch(self, time: &Zoned, nr: usize) -> (i64, i8, i8, i8) {
        let year = i64::from(time.year());
        match self {
            Self::Each => (i64::try_from(nr).unwrap_or(i64::MAX), 0, 0, 0),
            Self::Hour => (year, time.month(), time.day(), time.hour()),
            Self::Day => (year, time.month(), time.day(), 0),
            Self::Week => {
                let week = time.date().iso_week_date();
                (i64::from(week.year()), week.week(), 0, 0)
            }
            Self::Month => (year, time.month(), 0, 0),
            Self::Year => (year, 0, 0, 0),
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Each => "last",
            Self::Hour => "hourly",
            Self::Day => "daily",
            Self::Week => "weekly",
            Self::Month => "monthly",
            Self::Year => "yearly",
        })
    }
}

/// Why a point is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There is no rule.
    NoRule,
    /// It has all these tags.
    Tags(Vec<String>),
    /// Younger than the span.
    Within(Span),
    /// The newest of its stretch of time, while the rule's count lasts.
    Counted {
        /// One of each of these.
        period: Period,
        /// Not the newest of its stretch, but the oldest of all: kept while the count lasts, so that the history
        /// reaches as far back as it can.
        oldest: bool,
    },
    /// The newest of its stretch of time within the span.
    CountedWithin {
        /// One of each of these.
        period: Period,
        /// How far back.
        span: Span,
        /// As in [`Reason::Counted`].
        oldest: bool,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let age = |oldest: &bool| if *oldest { "oldest " } else { "" };
        match self {
            Self::NoRule => f.write_str("no rule given"),
            Self::Tags(tags) => write!(f, "has tags [{}]", tags.join(", ")),
            Self::Within(span) => write!(f, "within {span}"),
            Self::Counted { period, oldest } => write!(f, "{}{period}", age(oldest)),
            Self::CountedWithin { period, span, oldest } => write!(f, "{}{period} within {span}", age(oldest)),
        }
    }
}

/// What becomes of a point.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether it stays.
    pub keep: bool,
    /// Each rule that keeps it; empty exactly if it goes.
    pub reasons: Vec<Reason>,
}

/// Decides about one group's points, in the order given; the points need not be sorted.
///
/// An empty `keep` keeps everything. Rules may still leave nothing (tags that no point has): restic refuses to empty a
/// group so, and whoever executes the decisions should too.
///
/// `now` only guards against wrong clocks: a span reaches back from the newest point that is not in the future, so
/// that one point dated decades ahead does not make all others too old. If all are in the future, all are within.
pub fn decide(points: &[RestorePoint], keep: &Keep, now: Timestamp) -> Vec<Decision> {
    if keep.is_empty() {
        let kept = Decision { keep: true, reasons: vec![Reason::NoRule] };
        return vec![kept; points.len()];
    }
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|&a, &b| points[b].time.timestamp().cmp(&points[a].time.timestamp()));
    let newest = order.iter().map(|&i| &points[i].time).find(|time| time.timestamp() < now);
    let start = |span: Span| newest.map_or(Timestamp::MIN, |newest| span.before(newest));

    let within = keep.within().map(|span| (span, start(span)));
    let mut counted: Vec<Counted> = keep
        .counted()
        .into_iter()
        .filter(|(_, count)| !is_off(*count))
        .filter_map(|(period, count)| Some(Counted { period, left: count?, previous: None }))
        .collect();
    let mut counted_within: Vec<CountedWithin> = keep
        .counted_within()
        .into_iter()
        .filter_map(|(period, span)| Some((period, span?)))
        .map(|(period, span)| CountedWithin { period, span, start: start(span), previous: None })
        .collect();

    let mut decisions = vec![Decision::default(); points.len()];
    for (nr, &index) in order.iter().enumerate() {
        let point = &points[index];
        let is_oldest = nr + 1 == points.len();
        let mut reasons = Vec::new();
        reasons.extend(keep.tags.iter().filter(|tags| has_tags(point, tags)).cloned().map(Reason::Tags));
        if let Some((span, start)) = within
            && point.time.timestamp() > start
        {
            reasons.push(Reason::Within(span));
        }
        reasons.extend(counted.iter_mut().filter_map(|rule| rule.reason(point, nr, is_oldest)));
        reasons.extend(counted_within.iter_mut().filter_map(|rule| rule.reason(point, nr, is_oldest)));
        decisions[index] = Decision { keep: !reasons.is_empty(), reasons };
    }
    decisions
}

fn has_tags(point: &RestorePoint, tags: &[String]) -> bool {
    for tag in tags {
        if tag.is_empty() && point.tags.is_empty() {
            return true;
        }
        if !point.tags.contains(tag) {
            return false;
        }
    }
    true
}

type Stretch = (i64, i8, i8, i8);

/// A rule with a count, on its way from the newest point to the oldest.
struct Counted {
    period: Period,
    left: Count,
    previous: Option<Stretch>,
}

impl Counted {
    fn reason(&mut self, point: &RestorePoint, nr: usize, is_oldest: bool) -> Option<Reason> {
        if self.left == Count::AtMost(0) {
            return None;
        }
        let oldest = next_stretch(self.period, &mut self.previous, point, nr, is_oldest)?;
        if let Count::AtMost(left) = &mut self.left {
            *left -= 1;
        }
        Some(Reason::Counted { period: self.period, oldest })
    }
}

/// A rule with a span, on its way from the newest point to the oldest.
struct CountedWithin {
    period: Period,
    span: Span,
    start: Timestamp,
    previous: Option<Stretch>,
}

impl CountedWithin {
    fn reason(&mut self, point: &RestorePoint, nr: usize, is_oldest: bool) -> Option<Reason> {
        if point.time.timestamp() <= self.start {
            return None;
        }
        let oldest = next_stretch(self.period, &mut self.previous, point, nr, is_oldest)?;
        Some(Reason::CountedWithin { period: self.period, span: self.span, oldest })
    }
}

/// `None` if a newer point of the same stretch was kept. Otherwise the point is kept, and the value tells whether that
/// is only for being the oldest of all.
fn next_stretch(
    period: Period,
    previous: &mut Option<Stretch>,
    point: &RestorePoint,
    nr: usize,
    is_oldest: bool,
) -> Option<bool> {
    let stretch = period.stretch(&point.time, nr);
    let same = previous.replace(stretch) == Some(stretch);
    (!same || is_oldest).then_some(same)
}
