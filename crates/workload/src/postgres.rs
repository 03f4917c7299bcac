//! PostgreSQL, through its own programs: `psql`, `pg_dump`, `pg_dumpall`, `pg_restore`, `pg_amcheck`, and for a proof the server itself.
//!
//! Sources: the manual's chapters "Backup and Restore" (file system level backup, continuous archiving) and "pg_dump".

mod archive;
mod client;
pub(crate) mod dump;
mod globals;
pub(crate) mod quiesce;
pub(crate) mod restore;
mod selection;
mod statements;
mod switch;
mod throwaway;
mod unfinished;
pub(crate) mod verify;
