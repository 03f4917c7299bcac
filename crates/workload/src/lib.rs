//! What runs on the server beside files: databases. Quiesced around a snapshot, dumped into a backup, brought back, and
//! proven to start.
//!
//! Servers are spoken to through their own clients (`psql`, `mariadb`), as children that are held open: they know the
//! administrator's sockets, certificates and service files, and when this process is killed their input ends, and the
//! server gives back what the session held.
//!
//! Does not know of projects, plans, snapshots and repositories.

pub mod address;
pub mod dump;
pub mod error;
pub mod postgres;
pub mod quiesce;
pub mod restore;
pub mod session;
pub mod sqlite;
pub mod tool;
pub mod verify;
