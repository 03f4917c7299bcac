//! Who works with the repository, and what time it is there.

use crate::tree::Timestamp;

/// What locks, keys and records say of us. The binary fills it in; nothing below it asks the system.
#[derive(Clone, Debug)]
pub struct Holder {
    /// This machine.
    pub hostname: String,
    /// The user.
    pub username: String,
    /// The user's id.
    pub uid: u32,
    /// The group's id.
    pub gid: u32,
    /// The process.
    pub pid: u32,
    /// The clock: locks are refreshed while a run goes on, so one moment is not enough.
    pub now: fn() -> Timestamp,
}
