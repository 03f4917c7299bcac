//! Where a database is: `postgres://user@host:5432/orders`, `mysql:///shop`, `sqlite:/srv/shop/app.db`.
//!
//! An address bears no password: those are read from files, and never shown.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::tool::Tools;

/// Where a database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `postgres://` or `postgresql://`
    Postgres(Server),
    /// `mysql://` or `mariadb://`
    Mysql(Server),
    /// `sqlite:/path`
    Sqlite(PathBuf),
}

/// A server, and perhaps one of its databases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// As whom to log in; `None` for what the client takes.
    pub user: Option<String>,
    /// Name or address; `None` for the local socket.
    pub host: Option<String>,
    /// TCP port, or for PostgreSQL the socket's number.
    pub port: Option<u16>,
    /// The database; `None` for the whole server.
    pub database: Option<String>,
    /// What comes after `?`, decoded: `socket`, `sslmode`.
    pub parameters: Vec<(String, String)>,
}

impl Server {
    /// A parameter of the address.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// How to log in, and with which programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Where.
    pub address: Address,
    /// The file whose first line is the password; absolute.
    pub password_file: Option<PathBuf>,
    /// Where the client programs are.
    pub tools: Tools,
}

impl Login {
    /// To an address, with no password, and with the programs of this system.
    pub fn new(address: Address) -> Login {
        Login { address, password_file: None, tools: Tools::default() }
    }

    /// The same server, another of its databases.
    pub fn with_database(&self, database: &str) -> Login {
        Login { address: self.address.with_database(database), ..self.clone() }
    }
}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// [`Error::Address`], without the password that may have stood in it.
    pub fn parse(text: &str) -> Result<Address, Error> {
        let wrong = |reason: &str| Error::Address { address: without_password(text), reason: reason.to_owned() };
        let (scheme, rest) =
            text.split_once(':').ok_or_else(|| wrong("write postgres://, mysql:// or sqlite:/ before it"))?;
        match scheme {
            "sqlite" => {
                let path = rest.strip_prefix("//").unwrap_or(rest);
                if !path.starts_with('/') || path.ends_with('/') {
                    return Err(wrong("after sqlite: comes the whole path of a file, such as sqlite:/srv/shop/app.db"));
                }
                Ok(Address::Sqlite(path.into()))
            }
            "postgres" | "postgresql" => Ok(Address::Postgres(Server::parse(rest).map_err(|reason| wrong(&reason))?)),
            "mysql" | "mariadb" => Ok(Address::Mysql(Server::parse(rest).map_err(|reason| wrong(&reason))?)),
            _ => Err(wrong("known are postgres://, mysql://, mariadb:// and sqlite:/")),
        }
    }

    /// The server, if it is on one.
    pub fn server(&self) -> Option<&Server> {
        match self {
            Address::Postgres(server) | Address::Mysql(server) => Some(server),
            Address::Sqlite(_) => None,
        }
    }

    /// The database's name: of a SQLite file, the file's.
    pub fn database(&self) -> Option<&str> {
        match self {
            Address::Postgres(server) | Address::Mysql(server) => server.database.as_deref(),
            Address::Sqlite(path) => path.file_name().and_then(|name| name.to_str()),
        }
    }

    /// The same server, another of its databases. Of SQLite the same file.
    pub fn with_database(&self, database: &str) -> Address {
        let other = |server: &Server| Server { database: Some(database.to_owned()), ..server.clone() };
        match self {
            Address::Postgres(server) => Address::Postgres(other(server)),
            Address::Mysql(server) => Address::Mysql(other(server)),
            Address::Sqlite(path) => Address::Sqlite(path.clone()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Postgres(server) => write!(f, "postgres:{server}"),
            Address::Mysql(server) => write!(f, "mysql:{server}"),
            Address::Sqlite(path) => write!(f, "sqlite:{}", Path::display(path)),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("//")?;
        if let Some(user) = &self.user {
            write!(f, "{}@", encoded(user))?;
        }
        match self.host.as_deref() {
            Some(host) if host.contains(':') => write!(f, "[{host}]")?,
            Some(host) => f.write_str(host)?,
            None => {}
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        f.write_str("/")?;
        f.write_str(&encoded(self.database.as_deref().unwrap_or_default()))?;
        for (number, (name, value)) in self.parameters.iter().enumerate() {
            write!(f, "{}{}={}", if number == 0 { '?' } else { '&' }, encoded(name), encoded(value))?;
        }
        Ok(())
    }
}

impl Server {
    fn parse(rest: &str) -> Result<Server, String> {
        let rest = rest.strip_prefix("//").ok_or("after the scheme comes //")?;
        let (rest, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let (place, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, place) = place.rsplit_once('@').map_or((None, place), |(user, place)| (Some(user), place));
        if user.is_some_and(|user| user.contains(':')) {
            return Err(
                "a password does not belong into it; write it into a file, and password-file = that file".to_owned()
            );
        }
        let (host, port) = match place.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
        };
        let port = port
            .filter(|port| !port.is_empty())
            .map(|port| port.parse().map_err(|_| format!("{port:?} is not a port")));
        let mut read = Vec::new();
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').ok_or("after ? come name=value, joined by &")?;
            if name.to_ascii_lowercase().contains("password") {
                return Err("a password does not belong into it; write it into a file, and password-file = that file"
                    .to_owned());
            }
            read.push((decoded(name)?, decoded(value)?));
        }
        let some = |text: &str| -> Result<Option<String>, String> {
            if text.is_empty() { Ok(None) } else { decoded(text).map(Some) }
        };
        Ok(Server {
            user: some(user.unwrap_or_default())?,
            host: some(host)?,
            port: port.transpose()?,
            database: some(database)?,
            parameters: read,
        })
    }
}

/// For messages: what lies between the first `:` after `//` and the `@` is gone.
fn without_password(text: &str) -> String {
    let hidden = |text: &str| {
        let (before, rest) = text.split_once("//")?;
        let (login, place) = rest.rsplit_once('@')?;
        let (user, _) = login.split_once(':')?;
        Some(format!("{before}//{user}:***@{place}"))
    };
    let text = hidden(text).unwrap_or_else(|| text.to_owned());
    match text.to_ascii_lowercase().find("password=") {
        Some(at) => format!("{}***", &text[..at + "password=".len()]),
        None => text,
    }
}

/// Percent-decoding (RFC 3986).
fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next(), rest.next()].map(|digit| digit.and_then(|digit| char::from(digit).to_digit(16)));
        let [Some(high), Some(low)] = digits else { return Err(format!("{text:?} has a % without two hex digits")) };
        bytes.push((high * 16 + low) as u8);
    }
    let text = String::from_utf8(bytes).map_err(|_| format!("{text:?} is not UTF-8"))?;
    if text.contains(char::is_control) { Err(format!("{text:?} has control characters")) } else { Ok(text) }
}

fn encoded(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => shown.push(char::from(byte)),
            _ => shown.push_str(&format!("%{byte:02X}")),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_back_as_it_was_written() {
        for text in [
            "postgres:///orders",
            "postgres://shop@db.example.org:5433/orders?sslmode=require",
            "postgres://[::1]:5433/orders",
            "postgres:///?host=/run/pg",
            "mysql://shop%40eu@127.0.0.1/shop%20two?socket=/run/s.sock",
            "sqlite:/srv/shop/app.db",
        ] {
            assert_eq!(Address::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Address::parse("postgresql:///a").unwrap(), Address::parse("postgres:///a").unwrap());
        assert_eq!(Address::parse("mariadb:///a").unwrap(), Address::parse("mysql:///a").unwrap());
        assert_eq!(Address::parse("sqlite:///srv/a.db").unwrap(), Address::Sqlite("/srv/a.db".into()));
    }

    #[test]
    fn what_is_none_is_refused_and_no_password_shown() {
        for text in [
            "orders",
            "oracle://x/y",
            "sqlite:app.db",
            "sqlite:/srv/",
            "postgres:orders",
            "postgres://h:port/x",
            "postgres://me:hunter2@h/x",
            "mysql://h/x?password=hunter2",
            "mysql:///%zz",
            "mysql:///a%0Ab",
            "mysql://h/?x",
        ] {
            let error = Address::parse(text).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
