//! SQLite files in use: by another program, sqlite3(1), which writes all the time.

#[path = "sqlite/busy.rs"]
mod busy;
#[path = "sqlite/dumps.rs"]
mod dumps;
#[path = "sqlite/quiesced.rs"]
mod quiesced;
#[path = "sqlite/restores.rs"]
mod restores;
#[path = "sqlite/verified.rs"]
mod verified;
