//! MariaDB and MySQL, through their own programs: `mariadb` or `mysql`, `mariadb-dump` or `mysqldump`, and for a proof the
//! server itself.
//!
//! Sources: the MariaDB manual's pages "BACKUP STAGE", "Aggregate Backup Commands", "Atomic DDL" and "mariadb-dump"; the
//! MySQL manual's chapters "LOCK INSTANCE FOR BACKUP" and "mysqldump".

pub(crate) mod accounts;
pub(crate) mod client;
mod databases;
pub(crate) mod dump;
pub(crate) mod quiesce;
pub(crate) mod restore;
pub(crate) mod script;
pub(crate) mod server;
pub(crate) mod switch;
pub(crate) mod verify;
