//! Accounts, roles and grants as statements that add what is missing, and change nobody's password who is there.

use std::collections::HashSet;

use super::client::{Client, PATIENCE, Rows, literal};
use crate::error::Error;

/// Accounts that the server makes for itself.
const OWN: &str = "'mariadb.sys', 'mysql.sys', 'mysql.session', 'mysql.infoschema'";

/// The last line, as the dump tools write it.
pub(super) const COMPLETED: &str = "-- Dump completed\n";

/// All accounts, or those that have a grant on one database, with that grant alone and their roles.
pub(super) fn statements(client: &mut Client, database: Option<&str>) -> Result<String, Error> {
    let mut text = format!("-- Accounts and grants of {}\n", client.version);
    let mariadb = client.version.is_mariadb();
    if !mariadb {
        client.ask("the session", "set session print_identified_with_as_hex = on;", PATIENCE)?;
    }
    let accounts = accounts(client)?;
    let mut grants = Vec::new();
    for account in &accounts {
        let what = format!("the grants of {}", account.shown());
        let rows = client.ask(&what, &format!("show grants for {};", account.sql()), PATIENCE)?;
        grants.push(rows.into_iter().filter_map(|row| row.into_iter().next()).collect::<Vec<_>>());
    }
    let chosen = chosen(&accounts, &grants, database);
    // Roles first: accounts of MySQL name theirs when they are made.
    let order = |roles: bool| accounts.iter().enumerate().filter(move |(_, account)| account.role == roles);
    for (at, account) in order(true).chain(order(false)) {
        if !chosen.contains(&at) {
            continue;
        }
        if mariadb && account.role {
            if account.user != "PUBLIC" {
                text.push_str(&format!("CREATE ROLE IF NOT EXISTS {};\n", account.sql()));
            }
            continue;
        }
        let what = format!("the account {}", account.shown());
        let made = client.value(&what, &format!("show create user {};", account.sql()))?.unwrap_or_default();
        let made = made.strip_prefix("CREATE USER ").unwrap_or(&made);
        text.push_str(&format!("CREATE USER IF NOT EXISTS {made};\n"));
    }
    for (at, grants) in grants.iter().enumerate().filter(|(at, _)| chosen.contains(at)) {
        let wanted = |grant: &&String| {
            // Default roles are written below, of every version alike.
            grant.starts_with("GRANT ") && database.is_none_or(|database| concerns(grant, database) || is_role(grant))
        };
        for grant in grants.iter().filter(wanted) {
            text.push_str(&without_password(grant));
            text.push_str(";\n");
        }
        let account = &accounts[at];
        if let Some(role) = account.default_role.as_deref().filter(|_| !account.role) {
            text.push_str(&format!("SET DEFAULT ROLE {} FOR {};\n", literal(role), account.sql()));
        }
    }
    text.push_str(COMPLETED);
    Ok(text)
}

struct Account {
    user: String,
    host: String,
    role: bool,
    /// MariaDB's.
    default_role: Option<String>,
}

impl Account {
    fn sql(&self) -> String {
        match self.role && self.host.is_empty() {
            true if self.user == "PUBLIC" => "PUBLIC".to_owned(),
            true => literal(&self.user),
            false => format!("{}@{}", literal(&self.user), literal(&self.host)),
        }
    }

    fn shown(&self) -> String {
        format!("{}@{}", self.user, self.host)
    }

    /// As grants name it: `` `reader` `` or `` `reader`@`%` ``.
    fn quoted(&self) -> String {
        let user = format!("`{}`", self.user.replace('`', "``"));
        if self.host.is_empty() { user } else { format!("{user}@`{}`", self.host) }
    }
}

fn accounts(client: &mut Client) -> Result<Vec<Account>, Error> {
    let query = if client.version.is_mariadb() {
        format!(
            "select user, host, is_role = 'Y', default_role from mysql.user where user not in ({OWN}) order by 1, 2;"
        )
    } else {
        format!(
            "select user, host, exists (select 1 from mysql.role_edges where from_user = user and from_host = host), '' \
             from mysql.user where user not in ({OWN}) order by 1, 2;"
        )
    };
    let rows: Rows = client.ask("the list of accounts", &query, PATIENCE)?;
    let account = |row: Vec<String>| {
        let [user, host, role, default_role] = <[String; 4]>::try_from(row).ok()?;
        Some(Account {
            user,
            host,
            role: role == "1",
            default_role: Some(default_role).filter(|role| !role.is_empty()),
        })
    };
    Ok(rows.into_iter().filter_map(account).collect())
}

/// Who has a grant on the database, and the roles through which they have others.
fn chosen(accounts: &[Account], grants: &[Vec<String>], database: Option<&str>) -> HashSet<usize> {
    let Some(database) = database else { return (0..accounts.len()).collect() };
    let mut chosen: HashSet<usize> =
        (0..accounts.len()).filter(|&at| grants[at].iter().any(|grant| concerns(grant, database))).collect();
    loop {
        let has = |at: usize, role: &Account, only_to_use: bool| {
            let given = |grant: &&String| is_role(grant) && grant.contains(&role.quoted());
            // Whoever makes a role in MariaDB may give it, which is no reason to be counted among its users.
            grants[at].iter().filter(given).any(|grant| !only_to_use || !grant.ends_with("WITH ADMIN OPTION"))
        };
        // Roles of those who are chosen, and whoever uses a chosen role.
        let more: Vec<usize> = (0..accounts.len())
            .filter(|at| !chosen.contains(at))
            .filter(|&at| {
                accounts[at].role && chosen.iter().any(|&other| has(other, &accounts[at], false))
                    || chosen.iter().any(|&other| accounts[other].role && has(at, &accounts[other], true))
            })
            .collect();
        if more.is_empty() {
            return chosen;
        }
        chosen.extend(more);
    }
}

/// Whether a grant is on a database: ``ON `shop`.*``, with `\_` for a `_` that is no pattern.
fn concerns(grant: &str, database: &str) -> bool {
    let quoted = database.replace('`', "``");
    let escaped = quoted.replace('_', "\\_").replace('%', "\\%");
    let places = ["ON ", "ON PROCEDURE ", "ON FUNCTION ", "ON PACKAGE ", "ON PACKAGE BODY "];
    [quoted, escaped].iter().any(|name| places.iter().any(|on| grant.contains(&format!(" {on}`{name}`."))))
}

/// A role that is given: it is on nothing.
fn is_role(grant: &str) -> bool {
    grant.starts_with("GRANT `") && !grant.contains(" ON ")
}

/// MariaDB repeats an account's password in its first grant, which would set it.
fn without_password(grant: &str) -> String {
    let mut quote = None;
    let mut end = grant.len();
    for (at, character) in grant.char_indices() {
        match quote {
            Some(open) if character == open => quote = None,
            None if matches!(character, '`' | '\'' | '"') => quote = Some(character),
            None if [" IDENTIFIED ", " REQUIRE "].iter().any(|word| grant[at..].starts_with(word)) => {
                end = at;
                break;
            }
            _ => {}
        }
    }
    let option = " WITH GRANT OPTION";
    let kept = if end < grant.len() && grant.ends_with(option) { option } else { "" };
    format!("{}{kept}", &grant[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_sets_no_password() {
        for (grant, expected) in [
            ("GRANT USAGE ON *.* TO `a`@`%` IDENTIFIED BY PASSWORD '*14E6'", "GRANT USAGE ON *.* TO `a`@`%`"),
            (
                "GRANT ALL PRIVILEGES ON *.* TO `r`@`%` IDENTIFIED VIA unix_socket REQUIRE SSL WITH GRANT OPTION",
                "GRANT ALL PRIVILEGES ON *.* TO `r`@`%` WITH GRANT OPTION",
            ),
            ("GRANT SELECT ON `a IDENTIFIED b`.* TO `a`@`%`", "GRANT SELECT ON `a IDENTIFIED b`.* TO `a`@`%`"),
        ] {
            assert_eq!(without_password(grant), expected);
        }
    }

    #[test]
    fn a_grant_is_on_a_database_or_not() {
        assert!(concerns("GRANT SELECT ON `my\\_shop`.* TO `a`@`%`", "my_shop"));
        assert!(concerns("GRANT EXECUTE ON PROCEDURE `shop`.`p` TO `a`@`%`", "shop"));
        assert!(!concerns("GRANT SELECT ON `shop2`.* TO `a`@`%`", "shop"));
        assert!(!concerns("GRANT ALL PRIVILEGES ON *.* TO `shop`@`%`", "shop"));
    }
}
