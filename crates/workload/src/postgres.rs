//! PostgreSQL, through its own programs: `psql`, `pg_dump`, `pg_dumpall`, `pg_restore`, `pg_amcheck`, and for a proof the server itself.
//!
//! Sources: the manual's chapters "Backup and Restore" (file system level backup, continuous archiving) and "pg_dump".

#[expect(dead_code, reason = "used by the next commits")]
pub(crate) mod client;
pub(crate) mod dump;
pub(crate) mod quiesce;
pub(crate) mod restore;
pub(crate) mod verify;
