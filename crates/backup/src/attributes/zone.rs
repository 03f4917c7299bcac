//! The offset from UTC that local time had at a moment.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// 1970 to 2100, in which nearly all files' times lie.
const TABLE: std::ops::Range<i64> = 0..4_102_444_800;

/// A time zone, quick to ask for offsets: two or three questions for each of a backup's files.
#[derive(Clone, Debug)]
pub struct Zone {
    zone: TimeZone,
    /// From when on which offset is in force, in seconds since 1970, ascending; the first at the table's beginning.
    changes: Box<[(i64, i16)]>,
}

impl Zone {
    /// Reads the zone's clock changes once.
    pub fn new(zone: TimeZone) -> Self {
        let begin = Timestamp::UNIX_EPOCH;
        let later = zone
            .following(begin)
            .map(|change| (change.timestamp().as_second(), minutes(change.offset().seconds())))
            .take_while(|(from, _)| TABLE.contains(from));
        let first = (TABLE.start, minutes(zone.to_offset(begin).seconds()));
        let mut changes: Vec<_> = std::iter::once(first).chain(later).collect();
        changes.dedup_by_key(|(_, offset)| *offset);
        Self { zone, changes: changes.into() }
    }

    /// Coordinated universal time.
    pub fn utc() -> Self {
        Self::new(TimeZone::UTC)
    }

    /// From when on which offset is in force, from 1970 to 2100: what tells zones apart in nearly all files' times.
    pub(crate) fn offsets(&self) -> &[(i64, i16)] {
        &self.changes
    }

    /// Minutes east of UTC that local time was at `unix_secs`. Beyond the years -9999 to 9999, as at their ends.
    pub fn offset_minutes(&self, unix_secs: i64) -> i16 {
        if !TABLE.contains(&unix_secs) {
            let bounded = unix_secs.clamp(Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
            let at = Timestamp::from_second(bounded).unwrap_or(Timestamp::UNIX_EPOCH);
            return minutes(self.zone.to_offset(at).seconds());
        }
        let after = self.changes.partition_point(|(from, _)| *from <= unix_secs);
        self.changes[after - 1].1
    }
}

/// Whole minutes; the seconds of the local mean times before zones existed are cut off, as Go does in RFC 3339.
fn minutes(offset_secs: i32) -> i16 {
    i16::try_from(offset_secs / 60).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_agrees(zone: TimeZone) {
        let quick = Zone::new(zone.clone());
        let day = 86_400;
        // Steps that are no multiple of an hour, so that the clock changes are met at all distances.
        for secs in (-30 * 365 * day..140 * 365 * day).step_by(100_003) {
            let expected = zone.to_offset(Timestamp::from_second(secs).unwrap()).seconds() / 60;
            assert_eq!(i32::from(quick.offset_minutes(secs)), expected, "{secs} in {zone:?}");
        }
        for (at, _) in quick.changes.iter().skip(1) {
            for secs in [at - 1, *at] {
                let expected = zone.to_offset(Timestamp::from_second(secs).unwrap()).seconds() / 60;
                assert_eq!(i32::from(quick.offset_minutes(secs)), expected);
            }
        }
    }

    #[test]
    fn offsets_are_the_zones_before_in_and_after_the_table() {
        assert_agrees(TimeZone::UTC);
        assert_agrees(TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap());
        assert_agrees(TimeZone::posix("NPT-5:45").unwrap());
        assert_agrees(TimeZone::posix("AEST-10AEDT,M10.1.0,M4.1.0/3").unwrap());
    }

    #[test]
    fn a_moment_beyond_the_calendar_has_an_offset() {
        let zone = Zone::new(TimeZone::posix("NPT-5:45").unwrap());
        assert_eq!([i64::MIN, i64::MAX].map(|secs| zone.offset_minutes(secs)), [345, 345]);
    }
}
