//! The hook of apt: `DPkg::Pre-Install-Pkgs`, apt.conf(5), which is given the list of packages on standard input.

use super::{Installation, command_line};
use snapshot::error::Error;

/// Where apt looks for it on Debian.
pub const FILE: &str = "/etc/apt/apt.conf.d/80snapback";

/// The first word of our command, by which apt finds the protocol that a hook wants: an assignment that nobody reads, so
/// that what follows can be a test in the shell.
const WORD: &str = "SNAPBACK_HOOK=apt";

/// The configuration file. If the program is gone, apt goes on without it; also if the hook fails, unless it is strict.
pub fn configuration(installation: &Installation<'_>) -> Result<String, Error> {
    // The shell that apt starts has apt as its parent.
    let run = command_line("apt", "$PPID", installation)?;
    let program = installation.program.display();
    let line = match installation.is_strict {
        true => format!("{WORD} {run}"),
        false => format!("{WORD} test ! -x {program} || {run} || true"),
    };
    Ok(format!(
        "// Written by `snapback hook install apt`; `snapback hook uninstall apt` removes it.\n\
         // A snapshot before each run of apt, one however many dpkg runs it has.\n\
         DPkg::Pre-Install-Pkgs {{ \"{line}\"; }};\n\
         DPkg::Tools::Options::{WORD}::Version \"3\";\n"
    ))
}

/// What apt is about to do, one text a package: `openssl 3.0.15 → 3.0.17`. Understands the protocol's versions 1 to 3;
/// a line that cannot be understood is left out, for it is only a note.
pub fn packages(text: &str) -> Vec<String> {
    let Some(version) = text.lines().next().and_then(|line| line.strip_prefix("VERSION ")) else {
        // Version 1: the files that are unpacked.
        let name = |line: &str| line.rsplit('/').next().unwrap_or(line).to_owned();
        return text.lines().filter(|line| !line.is_empty()).map(name).collect();
    };
    let has_architectures = version.trim() != "2";
    let mut packages: Vec<String> = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    // apt's whole configuration comes first, up to an empty line.
    for line in text.lines().skip_while(|line| !line.is_empty()).skip(1) {
        let fields: Vec<&str> = line.split(' ').collect();
        let (name, old, new, action) = match (fields.as_slice(), has_architectures) {
            ([name, old, _, _, _, new, _, _, action, ..], true) => (*name, *old, *new, *action),
            ([name, old, _, new, action, ..], false) => (*name, *old, *new, *action),
            _ => continue,
        };
        // Each package that is unpacked is configured later: one of the two will do.
        if names.contains(&name) {
            continue;
        }
        names.push(name);
        packages.push(match (old, new, action) {
            (old, _, "**REMOVE**") => format!("{name} {old} removed"),
            (old, new, "**CONFIGURE**") if old == new => format!("{name} {new} configured"),
            ("-", new, _) => format!("{name} {new} new"),
            (old, new, _) if old == new => format!("{name} {new} again"),
            (old, new, _) => format!("{name} {old} → {new}"),
        });
    }
    packages
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    #[test]
    fn the_list_of_apt_becomes_one_text_a_package() {
        let text = "VERSION 3\nAPT::Architecture=amd64\nDir=/\n\n\
            php8.4 - - none < 8.4.1 amd64 none /var/cache/apt/archives/php8.4_8.4.1_amd64.deb\n\
            openssl 3.0.15 amd64 foreign < 3.0.17 amd64 foreign /x/openssl.deb\n\
            exim4 4.96 amd64 none > - - none **REMOVE**\n\
            half 1 amd64 none = 1 amd64 none **CONFIGURE**\n\
            what is this\n\
            php8.4 - - none < 8.4.1 amd64 none **CONFIGURE**\n";
        let expected = ["php8.4 8.4.1 new", "openssl 3.0.15 → 3.0.17", "exim4 4.96 removed", "half 1 configured"];
        assert_eq!(packages(text), expected);
        let text = "VERSION 2\nA=b\n\nopenssl 3.0.15 < 3.0.17 /x/openssl.deb\n";
        assert_eq!(packages(text), ["openssl 3.0.15 → 3.0.17"]);
        assert_eq!(packages("/var/cache/a_1_all.deb\n/var/cache/b_2_all.deb\n"), ["a_1_all.deb", "b_2_all.deb"]);
        assert!(packages("").is_empty());
    }

    #[test]
    fn what_would_break_out_of_the_configuration_is_refused() {
        let installed = |program, directory| {
            let directories = [PathBuf::from(directory)];
            let program = Path::new(program);
            configuration(&Installation {
                program,
                directories: &directories,
                state: None,
                grace_secs: 60,
                is_strict: false,
            })
        };
        assert!(installed("/usr/bin/snapback", "/srv/shop").is_ok());
        for directory in ["/srv/a b", "/srv/\"x", "/srv/$x", "/srv/a;b", "/srv/ä", ""] {
            assert!(installed("/usr/bin/snapback", directory).is_err(), "{directory}");
        }
        assert!(installed("/home/me/my programs/snapback", "/").is_err());
    }
}
