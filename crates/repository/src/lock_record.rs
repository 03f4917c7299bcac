//! What a lock says of whoever holds it.

use std::fmt;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};

use crate::holder::Holder;
use crate::tree::Timestamp;

/// As restic's lock document.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LockRecord {
    /// When it was written.
    pub time: Timestamp,
    /// Whether nobody else may work.
    pub exclusive: bool,
    /// Of whom.
    #[serde(default)]
    pub hostname: String,
    /// Of whom.
    #[serde(default)]
    pub username: String,
    /// Of whom.
    #[serde(default)]
    pub pid: u32,
    /// Of whom.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub uid: u32,
    /// Of whom.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gid: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(id: &u32) -> bool {
    *id == 0
}

impl fmt::Display for LockRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.exclusive { "exclusively" } else { "for a backup" };
        write!(f, "process {} of {} on {}, {kind}, since {}", self.pid, self.username, self.hostname, self.time)
    }
}

impl LockRecord {
    pub(crate) fn ours(exclusive: bool, holder: &Holder) -> Self {
        LockRecord {
            time: (holder.now)(),
            exclusive,
            hostname: holder.hostname.clone(),
            username: holder.username.clone(),
            pid: holder.pid,
            uid: holder.uid,
            gid: holder.gid,
        }
    }

    /// Whether whoever wrote it is certainly gone: it was not refreshed for half an hour, or it is a process of
    /// this machine that no longer runs.
    pub fn is_stale(&self, holder: &Holder) -> bool {
        const STALE_SECS: i64 = 30 * 60;
        if (holder.now)().secs - self.time.secs > STALE_SECS {
            return true;
        }
        if self.hostname != holder.hostname || self.pid == holder.pid {
            return false;
        }
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        pid.is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH))
    }
}
