//! By how much one machine begins later than another.

use jiff::SignedDuration;
use jiff::civil::Date;

/// A part of `spread`, in whole milliseconds, evenly distributed over seeds and days.
pub(super) fn offset(seed: &str, day: Date, spread: SignedDuration) -> SignedDuration {
    let millis = u64::try_from(spread.as_millis()).unwrap_or(0);
    if millis == 0 {
        return SignedDuration::ZERO;
    }
    let days = [day.year().to_le_bytes().as_slice(), &day.day_of_year().to_le_bytes()].concat();
    let hash = mix(fnv1a(seed.as_bytes().iter().chain(&[0]).chain(&days)));
    SignedDuration::from_millis(i64::try_from(hash % millis).unwrap_or(0))
}

/// FNV-1a. std's hashers promise nothing about the next version, and a server's time must not change with it.
fn fnv1a<'a>(bytes: impl Iterator<Item = &'a u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The end of splitmix64: seeds that differ in one letter come to lie far apart.
fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn a_thousand_servers_are_spread_evenly_and_another_way_each_day() {
        let half_an_hour = SignedDuration::from_mins(30);
        let minutes = |day: i8| -> Vec<i64> {
            let server = |number| offset(&format!("web{number}/shop"), date(2026, 5, day), half_an_hour).as_mins();
            (0..1000).map(server).collect()
        };
        let monday = minutes(4);
        for minute in 0..30 {
            let count = monday.iter().filter(|at| **at == minute).count();
            assert!((10..70).contains(&count), "{count} servers begin in minute {minute}");
        }
        let same = monday.iter().zip(minutes(5)).filter(|(a, b)| *a == b).count();
        assert!(same < 100, "{same} servers begin in the same minute on the next day");
    }

    #[test]
    fn a_servers_time_is_the_same_in_every_version() {
        let of = |seed: &str| offset(seed, date(2026, 5, 4), SignedDuration::from_hours(1)).as_millis();
        assert_eq!([of("web1/shop"), of("web2/shop")], [3_510_765, 2_684_710]);
        assert_eq!(offset("web1/shop", date(2026, 5, 4), SignedDuration::ZERO), SignedDuration::ZERO);
    }
}
