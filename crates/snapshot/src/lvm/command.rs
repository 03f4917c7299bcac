//! The commands of LVM, and what their errors mean.

use std::sync::Arc;

use crate::error::Error;
use crate::runner::{self, Runner};

/// Runs them.
#[derive(Clone)]
pub(super) struct Command {
    runner: Arc<dyn Runner>,
}

impl Command {
    pub(super) fn new(runner: Arc<dyn Runner>) -> Command {
        Command { runner }
    }

    /// Runs a command that must succeed.
    pub(super) fn run(&self, program: &str, arguments: &[&str]) -> Result<String, Error> {
        runner::run(&*self.runner, program, arguments).map_err(|error| explain(error, program, arguments))
    }
}

/// Turns what a command says into what it means.
fn explain(error: Error, program: &str, arguments: &[&str]) -> Error {
    let output = match &error {
        Error::Command { output, .. } => output.to_lowercase(),
        Error::Refused { hint: None, .. } => {
            let package = match program {
                "mount" | "umount" => "mount",
                "dmsetup" => "dmsetup",
                "thin_ls" | "thin_delta" => "thin-provisioning-tools",
                _ => "lvm2",
            };
            return error.or(format!("install it: Debian's package is {package}"));
        }
        _ => return error,
    };
    let of = arguments.last().copied().unwrap_or_default();
    if output.contains("permission denied") || output.contains("must be superuser") {
        let action = format!("run {program} {}", arguments.join(" "));
        let hint = Some("run as root".to_owned());
        return Error::Privilege { action, capability: "CAP_SYS_ADMIN", hint };
    }
    if output.contains("reached threshold") || output.contains("insufficient free space") {
        let message = format!("the thin pool of {of} has no room: {}", output.trim());
        return Error::refused(message).or("extend the pool with lvextend, or delete snapshots");
    }
    if output.contains("in use") || output.contains("busy") {
        return Error::refused(format!("{of} is in use")).or("stop what uses it: fuser -vm shows who does");
    }
    error
}
