//! The last run, on a clock that may be set.

use jiff::{SignedDuration, Timestamp};

/// A last run that lies further ahead than this was not made on the clock we look at: it was wrong then, or is now.
/// Less is a clock that was set back, and what ran before it was set need not run again: the largest such step that
/// happens by itself is that of a hardware clock in local time taken for UTC, 14 hours.
const SET_BACK: SignedDuration = SignedDuration::from_hours(24);

/// What has to be remembered of a task between two runs.
///
/// - Set back by less than a day: what ran does not run again, and the next occurrence that did not run does.
/// - Set back further: counted from when that was first seen. Else a clock that once showed the year 2040 would stop
///   all backups until then.
/// - Set right again, the run is where it always was: a machine that starts in 1970, and learns the time from the network
///   a minute later, has missed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// When the last run began, or, before the first one, since when the task is known.
    pub last: Timestamp,
    /// Since when the clock shows a time long before that.
    pub behind_since: Option<Timestamp>,
}

impl Past {
    /// With a last run, and nothing else known.
    pub fn new(last: Timestamp) -> Past {
        Past { last, behind_since: None }
    }

    /// As it is to be remembered after a look at the clock.
    #[must_use]
    pub fn seen(self, now: Timestamp) -> Past {
        let is_behind = self.last.duration_since(now) > SET_BACK;
        let behind_since = match self.behind_since {
            _ if !is_behind => None,
            // Set back even further since.
            Some(since) if since.duration_since(now) > SET_BACK => Some(now),
            Some(since) => Some(since),
            None => Some(now),
        };
        Past { behind_since, ..self }
    }

    /// After which point in time occurrences have not been met yet.
    pub fn covered_until(self) -> Timestamp {
        self.behind_since.unwrap_or(self.last)
    }
}
