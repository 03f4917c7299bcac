//! SQLite: files that other programs have open. There is no server; the library that is built in reads and locks them as
//! every program does that uses them, and so knows rollback journals, write-ahead logs, and what a crash left behind.
//!
//! The invariant: a file in use is only read and locked, and what was begun by others and not ended is recovered as any
//! program would that opened it next. Only a restore replaces a file, as a whole, when nobody has it open.
//!
//! Does not know of SQLCipher and other encryption: such a file is none that it can read, and it says so.

mod database;
pub mod dump;
mod locks;
pub mod quiesce;
pub mod restore;
mod switch;
mod unfinished;
mod users;
pub mod verify;

/// Name and version, of the server as of the dump tool: it is both.
pub fn version() -> String {
    format!("SQLite {}", rusqlite::version())
}
