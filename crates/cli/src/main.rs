//! The binary `snapback`: arguments, output, exit codes. What it does is done by the crates below.
#![expect(clippy::disallowed_methods, reason = "the program reads its environment and its clock, and passes them on")]

mod args;
mod commands;
mod entry;
mod error;
mod global;
mod human;
mod open;
mod output;
mod password;
mod patterns;
mod progress_bar;
mod select;
mod signals;
mod sources;
mod status_line;
mod suggest;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::Arguments;
use crate::output::Output;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let output = Output::new(&arguments.global);
    match commands::run(&arguments, &output) {
        Ok(code) => code,
        Err(error) => error::report(&error, &output),
    }
}
