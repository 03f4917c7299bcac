//! `[project.NAME.database.NAME]`: an address that says as much as it must, and no more.

use workload::address::{Address, Login};

use super::Database;
use super::check::Places;
use super::section::{Section, Spanned, absolute};
use super::value::Wrong;

/// Nothing if it is not known where the database is, which has been told of.
pub(crate) fn database(project: &str, name: &str, section: &Section<'_>, places: &mut Places) -> Option<Database> {
    let url = section.text("url");
    // All are read, so that each is checked.
    let password_file = section.path("password-file");
    let query = section.text("query").map(|query| query.value);
    let (dump, all, quiesce) = (section.flag("dump", true), section.flag("all", false), section.flag("quiesce", true));
    let url = url?;
    let wrong =
        |key: &str, message: &str, fix: &str| section.source.wrong(&section.span_of(key), Wrong::new(message, fix));
    let address = match address(&url, section) {
        Ok(address) => address,
        Err(wrong) => {
            section.source.wrong(&url.span, wrong);
            return None;
        }
    };
    match &address {
        Address::Sqlite(_) => {
            if all {
                wrong("all", "all: a file of SQLite is one database", "leave it out");
            }
            if section.has("password-file") {
                wrong("password-file", "password-file: SQLite knows no passwords", "leave it out");
            }
        }
        Address::Postgres(server) | Address::Mysql(server) => match (&server.database, all) {
            (None, false) => {
                let fix = format!(
                    "write {:?} with your database's name, or add all = true",
                    address.with_database("NAME").to_string()
                );
                section.source.wrong(&url.span, Wrong::new("url: it names no database", fix));
            }
            (Some(database), true) => {
                let message = format!("all: the url names one database, {database}");
                wrong("all", &message, "leave the name out of the url for all of the server, or leave out all");
            }
            (None, true) if query.is_some() => {
                let fix =
                    "write it into another [project.NAME.database.NAME], with the url of one database and dump = false";
                wrong("query", "query: it is asked of one database, and these are all of a server", fix);
            }
            _ => {}
        },
    }
    if !dump && !quiesce && query.is_none() {
        let message = format!("nothing is done with the database {name}");
        section.source.warn(&section.span, Wrong::new(message, "leave out dump = false, or quiesce = false"));
    }
    let login = Login { password_file, ..Login::new(address) };
    places.databases.push((project.to_owned(), name.to_owned(), section.span_of("url")));
    Some(Database { name: name.to_owned(), login, dump, all, query, quiesce })
}

/// The address, a file's path in the one form that paths have.
fn address(url: &Spanned<String>, section: &Section<'_>) -> Result<Address, Wrong> {
    let named = |wrong: Wrong| Wrong { message: format!("url: {}", wrong.message), ..wrong };
    match Address::parse(&url.value) {
        Ok(Address::Sqlite(path)) => {
            absolute(&path.to_string_lossy(), section.source.home).map(Address::Sqlite).map_err(named)
        }
        Ok(address) => Ok(address),
        // It shows no password, even where one was written into it.
        Err(workload::error::Error::Address { address, reason }) => {
            Err(named(Wrong::new(format!("{address:?} is not the address of a database"), reason)))
        }
        Err(error) => Err(named(Wrong::new(error.to_string(), "write postgres://, mysql:// or sqlite:/"))),
    }
}
