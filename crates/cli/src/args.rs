//! The list of the commands.

use clap::{Parser, Subcommand};

use crate::commands;
use crate::global::Global;

/// Snapshots on the same disk, to roll back to within hours; backups elsewhere, in restic's repository format.
#[derive(Debug, Parser)]
#[command(
    name = "snapback",
    version,
    propagate_version = false,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "\
A BACKUP or a SNAPSHOT is the beginning of an id, `latest`, or `latest~2` for the second before it.

Exit codes: 0 done; 1 failed; 2 wrong usage; 3 done, but some source files could not be read;
10 no repository; 11 locked; 12 wrong password; 130 interrupted."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// All commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show how well all is protected, and what needs attention
    Status(commands::status::Command),
    /// Points in time on the same disk: take, list, delete
    #[command(subcommand, arg_required_else_help = true)]
    Snapshot(commands::snapshot::Command),
    /// Take a directory back to a snapshot
    Rollback(commands::rollback::Command),
    /// Run a risky command, and go back if it fails
    Guard(commands::guard::Command),
    /// Say that all is well after a guarded command
    Confirm(commands::confirm::Command),
    /// Make snapshots of a directory possible where its file system has none
    Adopt(commands::adopt::Command),
    /// A snapshot before each run of apt or dnf
    #[command(subcommand, arg_required_else_help = true)]
    Hook(commands::hook::Command),
    /// Back up a project, or files and directories
    Backup(commands::backup::Command),
    /// List the backups, or all points in time of a project
    List(commands::list::Command),
    /// List the files of a backup
    Ls(commands::ls::Command),
    /// Find files in all backups
    Find(commands::find::Command),
    /// Show what differs between two backups
    Diff(commands::diff::Command),
    /// Print a file of a backup, or a directory as tar
    Cat(commands::cat::Command),
    /// Bring files back from a backup
    Restore(commands::restore::Command),
    /// Show all backups as a read-only file system
    Mount(commands::mount::Command),
    /// Change the tags of backups
    Tag(commands::tag::Command),
    /// Databases in snapshots and backups: list, dump, restore, verify
    #[command(subcommand, arg_required_else_help = true)]
    Database(commands::database::Command),
    /// Remove backups, by name or by rules
    Forget(commands::forget::Command),
    /// Create and maintain the repository
    #[command(subcommand, arg_required_else_help = true)]
    Repo(commands::repo::Command),
    /// Look around, and write a first configuration
    Init(commands::init::Command),
    /// Protect a directory: a project, a plan, the first snapshot and backup
    Protect(commands::protect::Command),
    /// What Snapback knows of what it did
    #[command(subcommand, arg_required_else_help = true)]
    Catalog(commands::catalog::Command),
    /// Check the configuration, or print its schema
    #[command(subcommand, arg_required_else_help = true)]
    Config(commands::config::Command),
    /// Make snapshots and backups by the clock
    Serve(commands::serve::Command),
    /// Print the completions of a shell
    Completions(commands::completions::Command),
    /// Write the manual pages
    #[command(hide = true)]
    Man(commands::man::Command),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        super::Arguments::command().debug_assert();
    }
}
