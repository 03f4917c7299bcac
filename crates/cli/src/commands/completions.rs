//! `snapback completions`

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use clap_complete::Shell;

/// Print the completions of a shell, such as `snapback completions bash > /etc/bash_completion.d/snapback`.
#[derive(Args, Debug)]
pub(crate) struct Command {
    /// Of which shell
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

pub(crate) fn run(command: &Command, mut arguments: clap::Command) -> Result<ExitCode> {
    // Into memory first: the generator panics when a pipe is closed.
    let mut script = Vec::new();
    clap_complete::generate(command.shell, &mut arguments, "snapback", &mut script);
    std::io::Write::write_all(&mut std::io::stdout(), &script)?;
    Ok(ExitCode::SUCCESS)
}
