//! The programs that are measured: what each calls its operations, and the environment it runs in.
//!
//! Each tool is data, not code. In the words of a command, `{repository}`, `{source}`, `{target}`, `{cache}` and
//! `{name}` (a new one for every backup) stand for what their names say.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::{debian, shell};

/// How a tool is driven.
pub(crate) struct Profile {
    pub(crate) name: &'static str,
    environment: &'static [(&'static str, &'static str)],
    version: &'static str,
    init: &'static [&'static str],
    backup: &'static str,
    restore: &'static str,
    check: &'static str,
    /// Whether a restored tree lies below the target with its full path, or is the target.
    restores_full_path: bool,
}

/// Ours first, then the yardstick.
const PROFILES: [Profile; 7] = [
    Profile {
        name: "snapback",
        environment: &[("SNAPBACK_REPOSITORY", "{repository}"), ("SNAPBACK_PASSWORD", "benchmark")],
        version: "--version",
        init: &["repo init"],
        backup: "backup --quiet {source}",
        restore: "restore --quiet latest --to {target}",
        check: "repo check --quiet --read-data",
        restores_full_path: true,
    },
    Profile {
        name: "restic",
        environment: &[("RESTIC_REPOSITORY", "{repository}"), ("RESTIC_PASSWORD", "benchmark")],
        version: "version",
        init: &["init --quiet"],
        backup: "backup --quiet --compression auto {source}",
        restore: "restore --quiet latest --target {target}",
        check: "check --quiet --read-data",
        restores_full_path: true,
    },
    Profile {
        name: "rustic",
        environment: &[
            ("RUSTIC_REPOSITORY", "{repository}"),
            ("RUSTIC_PASSWORD", "benchmark"),
            ("RUSTIC_NO_PROGRESS", "true"),
        ],
        version: "--version",
        init: &["init"],
        backup: "backup {source}",
        restore: "restore latest {target}",
        check: "check --read-data",
        restores_full_path: true,
    },
    Profile {
        name: "borg",
        environment: &[("BORG_REPO", "{repository}"), ("BORG_PASSPHRASE", "benchmark")],
        version: "--version",
        init: &["init --encryption repokey"],
        backup: "create ::{name} {source}",
        restore: "extract ::{name}",
        check: "check --verify-data",
        restores_full_path: true,
    },
    Profile {
        name: "borg2",
        environment: &[("BORG_REPO", "{repository}"), ("BORG_PASSPHRASE", "benchmark")],
        version: "--version",
        init: &["repo-create --encryption repokey-aes-ocb"],
        backup: "create {name} {source}",
        restore: "extract {name}",
        check: "check --verify-data",
        restores_full_path: true,
    },
    Profile {
        name: "bupstash",
        environment: &[
            ("BUPSTASH_REPOSITORY", "{repository}"),
            ("BUPSTASH_KEY", "{cache}/key"),
            ("BUPSTASH_SEND_LOG", "{cache}/send-log"),
            ("BUPSTASH_QUERY_CACHE", "{cache}/query-cache"),
        ],
        version: "--version",
        init: &["new-key -o {cache}/key", "init"],
        backup: "put --quiet name={name} {source}",
        restore: "restore --quiet --into {target} name={name}",
        // It has no check; getting a backup back decrypts and verifies all that is in it.
        check: "get --quiet name={name}",
        restores_full_path: false,
    },
    Profile {
        name: "conserve",
        environment: &[],
        version: "--version",
        init: &["init {repository}"],
        backup: "backup --no-progress {repository} {source}",
        restore: "restore --no-progress {repository} {target}",
        check: "validate --no-progress {repository}",
        restores_full_path: false,
    },
];

/// A tool that is on this machine.
pub(crate) struct Tool {
    profile: &'static Profile,
    program: PathBuf,
    /// As it says itself.
    pub(crate) version: String,
}

impl Tool {
    pub(crate) fn name(&self) -> &'static str {
        self.profile.name
    }
}

/// Ours and whichever peers there are; only those named in `wanted`, unless it is empty.
pub(crate) fn find(wanted: &[&str]) -> Result<Vec<Tool>> {
    let mut tools = Vec::new();
    for profile in &PROFILES {
        if !wanted.is_empty() && !wanted.contains(&profile.name) {
            continue;
        }
        let program = match profile.name {
            "snapback" => Some(shell::target_dir()?.join("release/snapback")),
            "restic" => newest_restic(),
            name => shell::which(name),
        };
        let Some(program) = program else {
            eprintln!("xtask: {} is not on PATH: left out", profile.name);
            continue;
        };
        let said = shell::output(Command::new(&program).arg(profile.version))?;
        let version = said.lines().next().unwrap_or_default().to_owned();
        println!("xtask: {}: {version} ({})", profile.name, program.display());
        tools.push(Tool { profile, program, version });
    }
    Ok(tools)
}

/// The restic that `SNAPBACK_BENCH_RESTIC` names, else the newest, else the one on PATH (which Debian stable's is, and
/// slower).
fn newest_restic() -> Option<PathBuf> {
    std::env::var_os("SNAPBACK_BENCH_RESTIC")
        .map(PathBuf::from)
        .or_else(|| debian::newest_restic().ok())
        .or_else(|| shell::which("restic"))
}

/// One tool's room in one round: its repository, its cache, its targets.
pub(crate) struct Room<'a> {
    tool: &'a Tool,
    source: &'a Path,
    directory: PathBuf,
    log: PathBuf,
    backups: usize,
}

impl<'a> Room<'a> {
    /// An empty room, and in it a new repository.
    pub(crate) fn create(tool: &'a Tool, source: &'a Path, directory: PathBuf, log: &Path) -> Result<Room<'a>> {
        let log = log.join(format!("{}.log", tool.name()));
        let room = Room { tool, source, directory, log, backups: 0 };
        for name in ["cache", "target"] {
            let path = room.directory.join(name);
            fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        }
        for command in tool.profile.init {
            shell::run(&mut room.command(command)?)?;
        }
        Ok(room)
    }

    pub(crate) fn repository(&self) -> PathBuf {
        self.directory.join("repository")
    }

    /// Where restored trees are put; in here alone are as many files as in the source.
    pub(crate) fn target(&self) -> PathBuf {
        self.directory.join("target")
    }

    /// Where the restored source lies after a restore.
    pub(crate) fn restored_source(&self) -> PathBuf {
        if !self.tool.profile.restores_full_path {
            return self.target();
        }
        self.target().join(self.source.strip_prefix("/").unwrap_or(self.source))
    }

    pub(crate) fn backup(&mut self) -> Result<Command> {
        self.backups += 1;
        self.command(self.tool.profile.backup)
    }

    pub(crate) fn restore(&self) -> Result<Command> {
        self.command(self.tool.profile.restore)
    }

    pub(crate) fn check(&self) -> Result<Command> {
        self.command(self.tool.profile.check)
    }

    /// A command with the words filled in. It runs in the target, since some tools restore to where they are, and
    /// with a home of its own, so that no settings of the person's take part. What it says goes to the log; but
    /// data on the standard output goes nowhere.
    fn command(&self, template: &str) -> Result<Command> {
        let mut command = Command::new(&self.tool.program);
        command.args(template.split(' ').map(|word| self.fill(word))).current_dir(self.target());
        for (name, value) in self.tool.profile.environment {
            command.env(name, self.fill(value));
        }
        let cache = self.directory.join("cache");
        command.env("HOME", &cache).env("XDG_CACHE_HOME", &cache).env("XDG_CONFIG_HOME", &cache);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("opening {}", self.log.display()))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Ok(command)
    }

    fn fill(&self, word: &str) -> String {
        word.replace("{repository}", &self.repository().to_string_lossy())
            .replace("{source}", &self.source.to_string_lossy())
            .replace("{target}", &self.target().to_string_lossy())
            .replace("{cache}", &self.directory.join("cache").to_string_lossy())
            .replace("{name}", &format!("backup-{}", self.backups))
    }
}
