//! Points in time that outlast a reboot and a clock that is set.
//!
//! Within one boot, time since the boot counts: nobody sets it, and it goes on while the machine sleeps
//! (CLOCK_BOOTTIME, clock_gettime(2)). Across a reboot only the wall clock is left, which may be wrong until the network
//! is there; what has certainly passed is then the time since the boot.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::process;
use snapshot::error::Error;

/// Tells the time and lets it pass; the program has the real one.
pub trait Clock: Sync {
    /// Now, as the wall clock has it.
    fn wall(&self) -> Timestamp;

    /// Waits.
    fn sleep(&self, time: Duration);
}

/// A point in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// By the wall clock.
    pub wall: Timestamp,
    /// Of which boot: `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
    /// Since that boot, in milliseconds.
    pub since_boot_ms: u64,
}

impl Moment {
    /// Now.
    pub fn now(clock: &dyn Clock) -> Result<Moment, Error> {
        let since = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let since_boot_ms = since.tv_sec as u64 * 1000 + since.tv_nsec as u64 / 1_000_000;
        Ok(Moment { wall: clock.wall(), boot: process::boot_id()?, since_boot_ms })
    }

    /// The point a while later, should the machine stay up.
    #[must_use]
    pub fn after(&self, time: Duration) -> Moment {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Moment {
            wall: self
                .wall
                .checked_add(SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX))
                .unwrap_or(Timestamp::MAX),
            boot: self.boot.clone(),
            since_boot_ms: self.since_boot_ms.saturating_add(millis),
        }
    }

    /// How long it is from `now` until this; nothing if it has passed. Across a reboot never more than `at_most`
    /// counted from the boot, whatever the wall clock says.
    pub fn remaining(&self, now: &Moment, at_most: Duration) -> Duration {
        if self.boot == now.boot {
            return Duration::from_millis(self.since_boot_ms.saturating_sub(now.since_boot_ms));
        }
        let by_wall = Duration::try_from(self.wall.duration_since(now.wall)).unwrap_or_default();
        by_wall.min(at_most.saturating_sub(Duration::from_millis(now.since_boot_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(wall_secs: i64, boot: &str, since_boot_secs: u64) -> Moment {
        let wall = Timestamp::from_second(wall_secs).unwrap();
        Moment { wall, boot: boot.to_owned(), since_boot_ms: since_boot_secs * 1000 }
    }

    const FIVE_MINUTES: Duration = Duration::from_secs(300);

    #[test]
    fn within_a_boot_setting_the_clock_changes_nothing() {
        let deadline = moment(1000, "a", 100).after(FIVE_MINUTES);
        for wall in [0, 1060, 1_000_000] {
            assert_eq!(deadline.remaining(&moment(wall, "a", 160), FIVE_MINUTES), Duration::from_secs(240));
        }
        assert_eq!(deadline.remaining(&moment(0, "a", 401), FIVE_MINUTES), Duration::ZERO);
    }

    #[test]
    fn across_a_reboot_the_wall_clock_counts_but_a_wrong_one_gives_no_more_than_the_whole_time() {
        let deadline = moment(1000, "a", 100).after(FIVE_MINUTES);
        assert_eq!(deadline.remaining(&moment(1200, "b", 20), FIVE_MINUTES), Duration::from_secs(100));
        assert_eq!(deadline.remaining(&moment(1301, "b", 20), FIVE_MINUTES), Duration::ZERO);
        assert_eq!(deadline.remaining(&moment(0, "b", 20), FIVE_MINUTES), Duration::from_secs(280));
        assert_eq!(deadline.remaining(&moment(0, "b", 300), FIVE_MINUTES), Duration::ZERO);
    }
}
