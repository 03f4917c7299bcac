//! The newest restic there is, from Debian's unstable suite, beside the system and not in it.
//!
//! A private apt (its own sources, lists and cache below the target directory) fetches the one package; apt checks
//! its signature against Debian's keyring. The package is unpacked, never installed: no suites are mixed and no
//! root is needed. The mirror is the one the machine's own sources name, so that a site's mirror, and apt's own
//! settings for proxies, are honoured.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The program `restic` of Debian's unstable suite, fetched on the first call and kept in the target directory.
pub(crate) fn newest_restic() -> Result<PathBuf> {
    let parts = shell::target_dir()?.join("parts");
    let unpacked = parts.join("restic-new");
    let restic = unpacked.join("usr/bin/restic");
    if Command::new(&restic).arg("version").output().is_ok_and(|said| said.status.success()) {
        return Ok(restic);
    }
    let mirror = mirror(&machine_sources())
        .context("no mirror of Debian in /etc/apt/sources.list or /etc/apt/sources.list.d")?;
    let package = download("restic", &mirror, &parts.join("apt")).context("Debian's unstable suite")?;

    // Unpacked beside and renamed, so that a run that was stopped leaves nothing half there.
    let fresh = parts.join("restic-new.part");
    for stale in [&fresh, &unpacked] {
        if stale.exists() {
            fs::remove_dir_all(stale).with_context(|| format!("removing {}", stale.display()))?;
        }
    }
    shell::run(Command::new("dpkg-deb").arg("-x").args([&package, &fresh]))?;
    fs::rename(&fresh, &unpacked).with_context(|| format!("renaming {}", fresh.display()))?;
    Ok(restic)
}

/// Downloads a package with an apt that knows of the unstable suite alone. `room` is its directory.
fn download(package: &str, mirror: &str, room: &Path) -> Result<PathBuf> {
    let downloads = room.join("packages");
    if downloads.exists() {
        fs::remove_dir_all(&downloads).with_context(|| format!("removing {}", downloads.display()))?;
    }
    for directory in [downloads.clone(), room.join("state/lists/partial"), room.join("cache/archives/partial")] {
        fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
    }
    let write = |name: &str, text: String| {
        let path = room.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    };
    write("sources.list", format!("deb [signed-by={KEYRING}] {mirror} unstable main\n"))?;
    // An empty status file: as far as this apt knows, nothing is installed.
    write("state/status", String::new())?;
    let place = room.display();
    // The machine's apt.conf stays in force (proxies, time-outs); what it says of sources and pins does not. apt's
    // own user may not write here when we are root, hence the sandbox's user.
    let settings = format!(
        "Dir::Etc::sourcelist \"{place}/sources.list\";\n\
         Dir::Etc::sourceparts \"/dev/null\";\n\
         Dir::Etc::preferences \"/dev/null\";\n\
         Dir::Etc::preferencesparts \"/dev/null\";\n\
         Dir::State \"{place}/state\";\n\
         Dir::State::status \"{place}/state/status\";\n\
         Dir::Cache \"{place}/cache\";\n\
         Acquire::Languages \"none\";\n\
         APT::Sandbox::User \"root\";\n\
         APT::Get::List-Cleanup \"true\";\n"
    );
    write("apt.conf", settings)?;
    let apt_get = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("APT_CONFIG", room.join("apt.conf")).current_dir(&downloads);
        shell::output(&mut command)
    };
    // apt-get update ends well even if a mirror did not answer, unless told that any error counts.
    apt_get(&["update", "-o", "APT::Update::Error-Mode=any"])?;
    apt_get(&["download", package])?;

    let mut found = fs::read_dir(&downloads).with_context(|| format!("reading {}", downloads.display()))?;
    match found.next() {
        Some(file) => Ok(file?.path()),
        None => bail!("apt-get download {package} left no package"),
    }
}

/// The text of all of the machine's package sources.
fn machine_sources() -> Vec<String> {
    let mut files: Vec<PathBuf> = fs::read_dir("/etc/apt/sources.list.d")
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    files.sort();
    files.insert(0, "/etc/apt/sources.list".into());
    files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect()
}

/// The address of the mirror that has Debian itself: the first source whose keyring is Debian's or not named, and
/// whose suite is a release (not its security updates, which are another archive; nor some vendor's suite).
/// Reads both forms of sources.list(5): one line each, and stanzas.
fn mirror(sources: &[String]) -> Option<String> {
    sources.iter().find_map(|text| one_line_mirror(text).or_else(|| stanza_mirror(text)))
}

fn one_line_mirror(text: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => ("", rest),
        };
        let mut words = rest.split_whitespace();
        let (address, suite) = (words.next()?, words.next()?);
        let keyring = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
        is_debian(&[suite], keyring).then(|| address.to_owned())
    })
}

fn stanza_mirror(text: &str) -> Option<String> {
    text.split("\n\n").find_map(|stanza| {
        let field =
            |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        let suites: Vec<_> = field("Suites")?.split_whitespace().collect();
        let wanted = field("Types")?.split_whitespace().any(|kind| kind == "deb") && field("Enabled") != Some("no");
        let address = field("URIs")?.split_whitespace().next()?;
        (wanted && is_debian(&suites, field("Signed-By"))).then(|| address.to_owned())
    })
}

fn is_debian(suites: &[&str], keyring: Option<&str>) -> bool {
    const RELEASES: [&str; 9] =
        ["stable", "testing", "unstable", "sid", "bookworm", "trixie", "forky", "duke", "oldstable"];
    suites.iter().any(|suite| RELEASES.contains(suite)) && keyring.is_none_or(|path| path.contains("debian-archive"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror_of(text: &str) -> Option<String> {
        mirror(&[text.to_owned()])
    }

    #[test]
    fn the_mirror_is_read_from_a_stanza() {
        let text = "Types: deb\n# a comment\nURIs: http://mirror.test/security\nSuites: bookworm-security\nComponents: main\n\
                    \nTypes: deb deb-src\nURIs: http://mirror.test/debian http://other.test\nSuites: bookworm bookworm-updates\n\
                    Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n";
        assert_eq!(mirror_of(text).as_deref(), Some("http://mirror.test/debian"));
    }

    #[test]
    fn the_mirror_is_read_from_a_line() {
        let text = "# deb http://old.test/debian bookworm main\n\
                    deb [arch=amd64 signed-by=/k/vendor.gpg] https://vendor.test/apt stable main\n\
                    deb [arch=amd64] http://mirror.test/debian trixie main contrib\n";
        assert_eq!(mirror_of(text).as_deref(), Some("http://mirror.test/debian"));
    }

    #[test]
    fn a_vendors_archive_is_no_mirror() {
        assert_eq!(mirror_of("deb https://vendor.test/apt vendor-bookworm main\n"), None);
        let stanza = "Types: deb\nURIs: http://x.test\nSuites: stable\nSigned-By: /usr/share/keyrings/vendor.gpg\n";
        assert_eq!(mirror_of(stanza), None);
        assert_eq!(mirror_of("Types: deb\nEnabled: no\nURIs: http://x.test\nSuites: sid\n"), None);
    }
}
