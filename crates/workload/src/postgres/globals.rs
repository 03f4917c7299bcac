//! Roles, their memberships and settings, and tablespaces, brought back: only what is missing. A role that is there keeps its
//! password and its rights, as an older dump's would lock out, or let in, whoever works now.

use std::collections::HashSet;
use std::io::Read;
use std::time::Duration;

use super::client::{Client, identifier};
use super::quiesce::SOON;
use super::statements::{name, statements};
use crate::address::{Login, Server};
use crate::error::Error;
use crate::restore::options::Restored;

/// A script of roles is text of some kilobytes.
const SCRIPT_BYTES: u64 = 256 << 20;

const LIMIT: Duration = Duration::from_secs(120);

/// Restores a script of pg_dumpall.
pub(super) fn restore(login: &Login, server: &Server, dump: &mut dyn Read) -> Result<Restored, Error> {
    let mut client = Client::open_server(login, server)?;
    let mut script = String::new();
    let read = dump.take(SCRIPT_BYTES).read_to_string(&mut script);
    read.map_err(|error| client.failed("reading the dump", error.to_string()))?;
    let known = client.ask("the list of roles", "select rolname from pg_roles;", SOON)?;
    let known: HashSet<String> = known.into_iter().flatten().map(|name| identifier(&name)).collect();
    let spaces = client.ask("the list of tablespaces", "select spcname from pg_tablespace;", SOON)?;
    let spaces: HashSet<String> = spaces.into_iter().flatten().map(|name| identifier(&name)).collect();
    let mut restored = Restored::default();
    // Roles first and in one transaction: all of them, or none.
    let mut roles = vec!["begin".to_owned()];
    let mut tablespaces = Vec::new();
    for statement in statements(&script) {
        match Subject::of(&statement) {
            Some(Subject::Role(role)) if !known.contains(&role) => roles.push(statement),
            Some(Subject::Tablespace(name)) if !spaces.contains(&name) => tablespaces.push((name, statement)),
            _ => {}
        }
    }
    roles.push("commit".to_owned());
    for statement in roles {
        client.ask("making roles", &format!("{statement};"), LIMIT)?;
    }
    for (name, statement) in tablespaces {
        // Its directory is a matter of this machine.
        if let Err(error) = client.ask("making a tablespace", &format!("{statement};"), LIMIT) {
            restored.warnings.push(format!("tablespace {name}: {error}"));
        }
    }
    Ok(restored)
}

/// What a statement is about.
enum Subject {
    Role(String),
    Tablespace(String),
}

impl Subject {
    fn of(statement: &str) -> Option<Subject> {
        let after = |begin: &str| statement.strip_prefix(begin).map(|rest| name(rest).0);
        let role = after("CREATE ROLE ").or_else(|| after("ALTER ROLE ")).or_else(|| after("COMMENT ON ROLE "));
        if let Some(role) = role {
            return Some(Subject::Role(role));
        }
        // A membership belongs to the member: GRANT "staff" TO "joe" WITH ADMIN OPTION GRANTED BY "postgres"
        if statement.starts_with("GRANT ") && !statement.contains(" ON ") {
            return statement.split_once(" TO ").map(|(_, member)| Subject::Role(name(member).0));
        }
        after("CREATE TABLESPACE ").or_else(|| after("ALTER TABLESPACE ")).map(Subject::Tablespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_about_a_role_or_a_tablespace() {
        let role = |statement| match Subject::of(statement) {
            Some(Subject::Role(name)) => name,
            Some(Subject::Tablespace(name)) => format!("tablespace {name}"),
            None => String::new(),
        };
        assert_eq!(role("CREATE ROLE \"a \"\"b\""), "\"a \"\"b\"");
        assert_eq!(role("ALTER ROLE joe SET work_mem TO '1MB'"), "\"joe\"");
        assert_eq!(role("GRANT \"staff\" TO \"joe\" WITH ADMIN OPTION GRANTED BY \"postgres\""), "\"joe\"");
        assert_eq!(role("CREATE TABLESPACE \"fast\" OWNER \"joe\" LOCATION '/x'"), "tablespace \"fast\"");
        assert_eq!(role("GRANT ALL ON DATABASE x TO y"), "");
        assert_eq!(role("SET default_transaction_read_only = off"), "");
    }
}
