//! MariaDB, real, under load.

mod dialect;
mod dumping;
mod quiescing;
mod restoring;
#[path = "../servers/mariadb.rs"]
mod server;
mod verifying;

use server::MariaDb;
use workload::address::{Address, Login};

/// How to log in to a database of a test's server.
fn login(server: &MariaDb, database: &str) -> Login {
    Login::new(Address::parse(&server.url(database)).unwrap())
}
