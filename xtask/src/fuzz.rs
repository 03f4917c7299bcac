//! `cargo xtask fuzz`: feeds the parsers of stored bytes with what nobody honest has written.
//!
//! The targets lie in `fuzz/`, a workspace of its own, as they only build with a fuzzer's flags. Small inputs to begin
//! with are kept in `fuzz/seeds`; what the fuzzer finds new on this machine goes to `fuzz/corpus`, and what crashes to
//! `fuzz/artifacts`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;

pub(crate) const USAGE: &str = "\
usage: cargo xtask fuzz [TARGET] [--seconds N]

Runs one fuzz target, or all of them, each for N seconds (60).
";

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let (target, seconds) = parse(arguments)?;
    let all = targets()?;
    let chosen: Vec<_> = match target {
        None => all,
        Some(target) if all.contains(&target) => vec![target],
        Some(target) => bail!("there is no fuzz target {target}; there are {}", all.join(", ")),
    };
    install()?;
    for target in chosen {
        println!("xtask: fuzzing {target} for {seconds} s");
        fuzz(&target, seconds)?;
    }
    Ok(())
}

fn parse(arguments: &[String]) -> Result<(Option<String>, u64)> {
    let (mut target, mut seconds) = (None, 60);
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if argument == "--seconds" {
            let number = arguments.next().context("--seconds needs a number")?;
            seconds = number.parse().with_context(|| format!("--seconds {number}"))?;
        } else if argument.starts_with('-') || target.is_some() {
            bail!("{argument} is not understood\n\n{USAGE}");
        } else {
            target = Some(argument.clone());
        }
    }
    Ok((target, seconds))
}

fn directory() -> std::path::PathBuf {
    shell::root().join("fuzz")
}

fn targets() -> Result<Vec<String>> {
    let directory = directory().join("fuzz_targets");
    let mut targets = Vec::new();
    for entry in directory.read_dir().with_context(|| format!("listing {}", directory.display()))? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|name| name.to_str());
        targets.push(name.with_context(|| format!("the name of {}", path.display()))?.to_owned());
    }
    targets.sort();
    Ok(targets)
}

fn install() -> Result<()> {
    if shell::output(cargo_fuzz().arg("--version")).is_ok() {
        return Ok(());
    }
    println!("xtask: installing cargo-fuzz");
    shell::run(shell::cargo().args(["install", "--locked", "--quiet", "cargo-fuzz"]))
}

fn cargo_fuzz() -> Command {
    let mut command = shell::cargo();
    command.arg("fuzz");
    // The fuzzer's instrumentation is behind flags that the stable compiler otherwise refuses.
    command.env("RUSTC_BOOTSTRAP", "1");
    command
}

fn fuzz(target: &str, seconds: u64) -> Result<()> {
    let corpus = directory().join("corpus").join(target);
    std::fs::create_dir_all(&corpus).with_context(|| format!("making {}", corpus.display()))?;
    let seeds = directory().join("seeds").join(target);
    let seeds = seeds.is_dir().then_some(seeds);
    let mut command = cargo_fuzz();
    command.args(["run", target]).arg(&corpus).args(seeds.as_deref().map(Path::as_os_str));
    command.args(["--", &format!("-max_total_time={seconds}"), "-timeout=20", "-print_final_stats=1"]);
    shell::run(&mut command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_and_a_time_can_be_chosen() {
        let parse = |line: &str| parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(parse("").unwrap(), (None, 60));
        assert_eq!(parse("tree --seconds 5").unwrap(), (Some("tree".to_owned()), 5));
        assert!(parse("--seconds").is_err() && parse("a b").is_err() && parse("--help").is_err());
    }

    #[test]
    fn every_target_is_in_the_manifest() {
        let manifest = std::fs::read_to_string(directory().join("Cargo.toml")).unwrap();
        for target in targets().unwrap() {
            assert!(manifest.contains(&format!("path = \"fuzz_targets/{target}.rs\"")), "{target}");
        }
    }
}
