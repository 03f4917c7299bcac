//! A point in time as Go writes it.

/// A point in time with the zone offset it was written with, so that re-encoding gives the same bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub secs: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
    /// East of UTC, in minutes.
    pub offset_minutes: i16,
}
