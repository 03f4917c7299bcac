//! The arguments that all commands share.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

/// What every command understands.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Where the repository lies: a directory
    #[arg(short, long, value_name = "URL", env = "SNAPBACK_REPOSITORY", hide_env_values = true, global = true)]
    pub(crate) repository: Option<String>,

    /// Read the password from a file
    #[arg(long, value_name = "FILE", global = true, conflicts_with = "password_command")]
    pub(crate) password_file: Option<PathBuf>,

    /// Run a command that prints the password; without either, SNAPBACK_PASSWORD is taken, or the terminal asked
    #[arg(long, value_name = "COMMAND", global = true)]
    pub(crate) password_command: Option<String>,

    /// Print JSON: one document, or one object a line where progress is told
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Print nothing but results and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Say more: exact times, whole ids, every file
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,

    /// Take no lock where a command only reads, for a repository that cannot be written to
    #[arg(long, global = true)]
    pub(crate) no_lock: bool,

    /// How long to wait if somebody else has the repository locked, such as 30s, 10m, 2h
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = crate::human::parse_duration, global = true)]
    pub(crate) wait_lock: Duration,

    /// Where Snapback keeps what it knows of snapshots, instead of /var/lib/snapback, or ~/.local/state/snapback
    #[arg(long, value_name = "DIR", env = "SNAPBACK_STATE_DIRECTORY", hide_env_values = true, global = true)]
    pub(crate) state_dir: Option<PathBuf>,

    /// The configuration file, instead of /etc/snapback/snapback.toml, or ~/.config/snapback/snapback.toml
    #[arg(long, value_name = "FILE", env = "SNAPBACK_CONFIG", hide_env_values = true, global = true)]
    pub(crate) config: Option<PathBuf>,
}
