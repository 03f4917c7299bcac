//! PostgreSQL, real, under load.

mod dumping;
mod quiescing;
mod restoring;
#[path = "../servers/postgres.rs"]
mod server;
mod verifying;

use server::Postgres;
use workload::address::{Address, Login};

/// How to log in to a database of a test's server.
fn login(server: &Postgres, database: &str) -> Login {
    Login::new(Address::parse(&server.url(database)).unwrap())
}
