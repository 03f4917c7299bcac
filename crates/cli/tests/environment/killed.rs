//! `kill -9` at a chosen durable step: each of them ends with a rename, of a file of the state directory or of a tree.

use std::fs;
use std::path::Path;
use std::process::Command;

/// A step: the system call, and which of its kind. strace counts each kind by itself.
#[derive(Clone, Copy, Debug)]
pub struct Step(pub &'static str, pub u32);

/// Tries all steps of both kinds; `is_killed` says whether there is such a step. Gives how many there are.
pub fn each_step(mut is_killed: impl FnMut(Step) -> bool) -> u32 {
    let kinds = ["rename", "renameat2"].into_iter();
    kinds.map(|kind| (1..).take_while(|number| is_killed(Step(kind, *number))).count() as u32).sum()
}

/// Runs a command to its end, and kills each of its processes right before its step. Whether any was killed.
pub fn is_killed_at(command: &Command, Step(call, number): Step, log: &Path) -> bool {
    let mut strace = Command::new("strace");
    strace.env_clear().envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    strace.args(["--follow-forks", "-o"]).arg(log).arg("-e").arg(format!("trace={call}"));
    strace.arg("-e").arg(format!("inject={call}:signal=KILL:when={number}"));
    strace.arg(command.get_program()).args(command.get_args());
    strace.output().expect("strace is needed for this test");
    fs::read_to_string(log).unwrap().contains("killed by SIGKILL")
}
