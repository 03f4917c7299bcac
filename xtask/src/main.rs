//! The developers' commands, run as `cargo xtask COMMAND`.
//!
//! Everything a developer or the CI does with the project beyond plain cargo is here, so that a fresh machine with
//! a Rust toolchain needs nothing else. Does not know of the product's crates: it drives the binary `snapback` and
//! its peers from outside, as a person would.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a program at a terminal: it prints, and it reads its environment and the clock"
)]

mod bench;
mod debian;
mod demo;
mod fuzz;
mod parts;
mod random;
mod shell;
mod test;
mod untouched;

use std::process::ExitCode;

const USAGE: &str = "\
The developers' commands of Snapback.

usage: cargo xtask COMMAND

  demo                          build the program, and run its main job on a sample site
  test [CARGO-TEST-ARGUMENTS]   install what the tests need (as root, through apt), then run all tests
  bench [OPTIONS]               measure ours and its peers; `bench --help` tells more
  fuzz [TARGET] [--seconds N]   feed the parsers of stored bytes with bad ones
";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next();
    let rest: Vec<String> = arguments.collect();
    let outcome = match command.as_deref() {
        Some("demo") => demo::run(&rest),
        Some("test") => test::run(&rest),
        Some("bench") if rest.iter().any(|argument| argument == "--help") => {
            print!("{}", bench::USAGE);
            return ExitCode::SUCCESS;
        }
        Some("bench") => bench::run(&rest),
        Some("fuzz") if rest.iter().any(|argument| argument == "--help") => {
            print!("{}", fuzz::USAGE);
            return ExitCode::SUCCESS;
        }
        Some("fuzz") => fuzz::run(&rest),
        Some("help" | "--help" | "-h") => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
