//! Where a repository lies, by its URL as restic writes them.

use std::path::Path;

use super::{Machine, Place, System, machine};

/// `/path`, `local:/path`, `sftp:user@host:/path`, `sftp://host:port/path`, `rest:https://host/`, `s3:host/bucket`, and the
/// clouds.
pub(super) fn place(url: &str, system: &System) -> Place {
    let is_scheme = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    };
    let (scheme, rest) = match url.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => (scheme, rest),
        _ => return Place::of_path(Path::new(url), system),
    };
    match scheme {
        "local" => Place::of_path(Path::new(rest), system),
        "sftp" | "rest" | "s3" | "swift" => match host(rest) {
            Some(host) if machine::is_this(host, system) => {
                let mut place = Place::on(Machine::This);
                place.doubt(format!(
                    "the repository is served by this machine ({host}), from disks that cannot be seen"
                ));
                place
            }
            Some(host) => Place::on(Machine::Other(host.to_lowercase())),
            None => Place::unknown(format!("a repository at {scheme}: without a host")),
        },
        "azure" | "b2" | "gs" => Place::on(Machine::Other(scheme.to_owned())),
        "rclone" => Place::unknown("where a remote of rclone lies cannot be seen"),
        _ => Place::unknown(format!("where a repository at {scheme}: lies is not known")),
    }
}

/// The host, without user, password and port.
fn host(rest: &str) -> Option<&str> {
    let rest = rest.split_once("://").map_or(rest, |(_, rest)| rest).trim_start_matches('/');
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    (!host.is_empty()).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_url_is_found_without_what_is_secret() {
        let cases = [
            ("user@backup.example.org:/srv/b", "backup.example.org"),
            ("backup:b", "backup"),
            ("//user@host:2222//srv/b", "host"),
            ("user@[2001:db8::7]:/srv", "2001:db8::7"),
            ("https://user:pass@host:8000/x/", "host"),
            ("http://[::1]:8000/", "::1"),
            ("s3.example.org/bucket/path", "s3.example.org"),
        ];
        for (rest, expected) in cases {
            assert_eq!(host(rest), Some(expected), "{rest}");
        }
        assert_eq!(host(""), None);
    }
}
