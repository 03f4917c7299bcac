//! The help texts, word by word: `UPDATE_HELP=1 cargo test -p cli --test help` writes them anew.
#![allow(missing_docs)]
#![allow(clippy::disallowed_methods, clippy::print_stderr, reason = "what the machine has decides what can be tested")]

mod environment;

use std::fs;
use std::path::Path;

use environment::Environment;

const COMMANDS: &[&str] = &[
    "",
    "status",
    "snapshot",
    "snapshot create",
    "snapshot list",
    "snapshot diff",
    "snapshot undo",
    "snapshot mount",
    "snapshot hold",
    "snapshot delete",
    "snapshot expire",
    "rollback",
    "guard",
    "confirm",
    "adopt",
    "hook",
    "hook install",
    "backup",
    "list",
    "ls",
    "find",
    "diff",
    "cat",
    "restore",
    "mount",
    "tag",
    "database",
    "database list",
    "database dump",
    "database restore",
    "database verify",
    "forget",
    "repo",
    "repo init",
    "repo check",
    "repo stats",
    "repo prune",
    "repo copy",
    "repo unlock",
    "repo key",
    "repo key add",
    "repo repair",
    "repo repair packs",
    "repo repair index",
    "repo repair backups",
    "init",
    "protect",
    "catalog",
    "catalog rebuild",
    "config",
    "config check",
    "config schema",
    "serve",
    "completions",
];

#[test]
fn the_help_texts_are_the_ones_that_were_read_and_approved() {
    let environment = Environment::empty();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help");
    let update = std::env::var_os("UPDATE_HELP").is_some();
    for command in COMMANDS {
        let arguments = command.split_whitespace().chain(["--help"]);
        let text = environment.run(arguments).succeeds().stdout;
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{command}: too wide: {line}");
        }
        let file = directory.join(format!("snapback {command}").trim().replace(' ', "-") + ".txt");
        if update {
            fs::write(&file, &text).unwrap();
        } else {
            let approved = fs::read_to_string(&file).unwrap_or_default();
            assert_eq!(text, approved, "{} differs; UPDATE_HELP=1 writes it anew", file.display());
        }
    }
}
