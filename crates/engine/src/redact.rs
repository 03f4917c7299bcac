//! Texts without the secrets in them, for whatever is written down or shown.
//!
//! An address may hold a password (`rest:https://user:password@host/`), and an error may hold the address. What is
//! replaced is the password alone, so that the text still says what is meant. Too much is rather replaced than too
//! little.

const GONE: &str = "***";

/// Names whose values are secrets, in `name=value` and `--name value`.
const SECRET_NAMES: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "credential",
    "signature",
    "apikey",
    "api-key",
    "access-key",
    "secret-key",
    "private-key",
];

/// Names that are also the ends of harmless words: `compass`.
const SECRET_WORDS: &[&str] = &["pass", "pwd"];

/// A text that may hold addresses and commands.
pub fn text(text: &str) -> String {
    let without_users = addresses(text);
    values(&without_users)
}

/// The passwords of addresses: in `//user:password@host`.
fn addresses(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find("//") {
        let (before, after) = rest.split_at(begin + 2);
        clean.push_str(before);
        // A password may hold a slash or an @ that should have been escaped; a blank or a quote ends the address.
        let end = after.find(|letter: char| letter.is_whitespace() || "\"'`<>".contains(letter));
        let address = &after[..end.unwrap_or(after.len())];
        let secret = match (address.find(':'), address.rfind('@')) {
            (Some(colon), Some(at)) if colon < at && !address[..colon].contains('/') => {
                Some((colon, at)).filter(|_| !is_port(&address[colon + 1..at]))
            }
            _ => None,
        };
        match secret {
            Some((colon, at)) => {
                clean.push_str(&address[..=colon]);
                clean.push_str(GONE);
                rest = &after[at..];
            }
            None => rest = after,
        }
    }
    clean.push_str(rest);
    clean
}

/// Whether what follows a colon is a port and the beginning of a path.
fn is_port(text: &str) -> bool {
    text.split_once('/').is_some_and(|(port, _)| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The values of secret names: `?token=abc&`, `PASSWORD=abc`, `--password abc`, `--password=abc`.
fn values(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut is_next_secret = false;
    for word in text.split_inclusive(char::is_whitespace) {
        let bare = word.trim_end();
        let blanks = &word[bare.len()..];
        if std::mem::take(&mut is_next_secret) && !bare.is_empty() && !bare.starts_with('-') {
            clean.push_str(GONE);
        } else {
            for part in bare.split_inclusive(['&', ';', '?', ',']) {
                clean.push_str(&value(part));
            }
            is_next_secret = bare.starts_with("--") && !bare.contains('=') && is_secret(bare);
        }
        clean.push_str(blanks);
    }
    clean
}

fn value(part: &str) -> String {
    let Some((name, value)) = part.split_once('=') else { return part.to_owned() };
    if !is_secret(name) || value.is_empty() {
        return part.to_owned();
    }
    let separator = value.chars().last().filter(|letter| "&;?,".contains(*letter));
    format!("{name}={GONE}{}", separator.map(String::from).unwrap_or_default())
}

/// Whether a name ends in one of the secret ones: `--db-password`, `AWS_SECRET_ACCESS_KEY`. Names of files that hold a
/// secret end otherwise: `--password-file`.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('_', "-");
    let last_word = name.rsplit(|letter: char| !letter.is_ascii_alphanumeric()).next().unwrap_or_default();
    SECRET_NAMES.iter().any(|secret| name.ends_with(secret)) || SECRET_WORDS.contains(&last_word)
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn passwords_in_addresses_are_gone_and_the_rest_stays() {
        let cases = [
            ("rest:https://me:hunter2@host:8000/shop", "rest:https://me:***@host:8000/shop"),
            ("rest:http://me:p@ss/w:rd@host/", "rest:http://me:***@host/"),
            ("s3:https://KEY:SECRET@s3.example.org/bucket", "s3:https://KEY:***@s3.example.org/bucket"),
            ("cannot reach \"https://a:b@h/\": timeout", "cannot reach \"https://a:***@h/\": timeout"),
            ("https://a:b@h and https://c:d@i", "https://a:***@h and https://c:***@i"),
            ("sftp://user@host:22/srv", "sftp://user@host:22/srv"),
            ("sftp:user@host:/srv", "sftp:user@host:/srv"),
            ("https://host:443/a@b", "https://host:443/a@b"),
            ("/srv//shop", "/srv//shop"),
            ("", ""),
        ];
        for (given, clean) in cases {
            assert_eq!(text(given), clean);
        }
    }

    #[test]
    fn values_of_secret_names_are_gone_and_names_of_files_stay() {
        let cases = [
            ("https://h/x?token=abc&part=2", "https://h/x?token=***&part=2"),
            ("PGPASSWORD=abc pg_dump", "PGPASSWORD=*** pg_dump"),
            ("mysqldump --password abc --all", "mysqldump --password *** --all"),
            ("mysqldump --password=abc --all", "mysqldump --password=*** --all"),
            ("AWS_SECRET_ACCESS_KEY=x", "AWS_SECRET_ACCESS_KEY=***"),
            ("--password-file /etc/p", "--password-file /etc/p"),
            ("compass=north of here", "compass=north of here"),
            ("MYSQL_PASS=abc", "MYSQL_PASS=***"),
            ("keep = 5, name=shop", "keep = 5, name=shop"),
        ];
        for (given, clean) in cases {
            assert_eq!(text(given), clean);
        }
    }
}
