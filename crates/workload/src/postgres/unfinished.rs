//! The database that a restore fills, and the session that looks after it.

use super::client::{Client, literal};
use super::quiesce::SOON;
use crate::address::{Login, Server};
use crate::error::Error;
use crate::restore::options::Options;

/// A restore under way.
pub(super) struct Restore<'a> {
    pub(super) login: &'a Login,
    pub(super) server: &'a Server,
    /// Logged in to a database that is neither renamed nor dropped; holds the lock.
    pub(super) client: Client,
    pub(super) version: u32,
    /// The name it gets in the end.
    pub(super) wanted: String,
    /// Whether that name is taken.
    pub(super) exists: bool,
    /// The name until then.
    pub(super) unfinished: String,
    pub(super) mark: String,
}

impl<'a> Restore<'a> {
    pub(super) fn begin(
        login: &'a Login,
        server: &'a Server,
        wanted: &str,
        options: &Options,
    ) -> Result<Restore<'a>, Error> {
        let mut client = Restore::session(login, server, wanted)?;
        let version = client.version()?;
        let exists = exists(&mut client, wanted)?;
        let refused = |why: String| Err(Error::Refused(format!("{}: {why}", login.address)));
        if options.name.is_some() && exists {
            return refused(format!("there is a database {wanted:?} already; choose another name"));
        }
        if !options.tables.is_empty() && options.name.is_none() {
            return refused("single tables come into a database of their own; give it a name (--as)".to_owned());
        }
        let unfinished = named(wanted, &format!("_restoring_{}", options.mark));
        let mark = options.mark.clone();
        let wanted = wanted.to_owned();
        Ok(Restore { login, server, client, version, wanted, exists, unfinished, mark })
    }

    /// A session with a database that stays as it is, whichever is restored.
    pub(super) fn session(login: &Login, server: &Server, wanted: &str) -> Result<Client, Error> {
        if wanted == "postgres" {
            Client::open_database(login, server, "template1")
        } else {
            Client::open_server(login, server)
        }
    }
}

pub(super) fn exists(client: &mut Client, database: &str) -> Result<bool, Error> {
    let statement = format!("select 1 from pg_database where datname = {};", literal(database));
    Ok(!client.ask("the list of databases", &statement, SOON)?.is_empty())
}

/// A name of at most 63 bytes, as the server would cut it: the stem gives way, not the ending.
pub(super) fn named(stem: &str, ending: &str) -> String {
    let mut length = stem.len().min(63_usize.saturating_sub(ending.len()));
    while !stem.is_char_boundary(length) {
        length -= 1;
    }
    format!("{}{ending}", &stem[..length])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_ending_within_63_bytes() {
        assert_eq!(named("orders", "_x"), "orders_x");
        let long = named(&"ä".repeat(40), "_restoring_1");
        assert!(long.len() <= 63 && long.ends_with("ä_restoring_1"), "{long}");
    }
}
