//! What is told of databases in a snapshot.

use engine::database::held::{Around, InSnapshot};
use snapshot::record::Record;

use crate::output::Output;

/// For how long writes may have stood still, in parentheses, or nothing where no database was held.
pub(crate) fn stood_still(record: &Record) -> String {
    match Around::of(record).stood_still_ms() {
        Some(millis) => format!(" (writes stood still for at most {millis} ms)"),
        None => String::new(),
    }
}

/// What was done to each, and what is to be looked at.
pub(crate) fn tell(record: &Record, output: &Output) {
    for database in Around::of(record).databases {
        output.detail(format_args!("  database {}", described(&database)));
        if let Some(warning) = database.warning() {
            output.warning(warning);
        }
    }
}

/// Which, and in what state: `orders (PostgreSQL 15.18): checkpoint`.
fn described(database: &InSnapshot) -> String {
    let name = &database.quiesced.name;
    let server = database.quiesced.server.as_ref().map(|server| format!(" ({server})")).unwrap_or_default();
    format!("{name}{server}: {}", database.state())
}

/// All of a snapshot in a few words, for a table: `orders held, shop not held`.
pub(crate) fn brief(record: &Record) -> String {
    let databases = Around::of(record).databases;
    let word = |database: &InSnapshot| format!("{} {}", database.quiesced.name, database.state().brief());
    databases.iter().map(word).collect::<Vec<_>>().join(", ")
}
