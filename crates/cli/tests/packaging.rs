//! What the package brings beside the binary.
#![allow(missing_docs)]

mod environment;

use std::fs;
use std::path::Path;
use std::process::Command;

use environment::Environment;

#[test]
fn systemd_understands_the_units_and_their_commands_exist() {
    let environment = Environment::empty();
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/systemd");
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no", "--recursive-errors=no"]);
    let mut commands = Vec::new();
    for unit in fs::read_dir(units).unwrap() {
        let unit = unit.unwrap();
        let text = fs::read_to_string(unit.path()).unwrap();
        let run = text.lines().filter_map(|line| line.strip_prefix("ExecStart=/usr/bin/snapback "));
        commands.extend(run.map(str::to_owned));
        // It looks whether the program is there.
        let text = text.replace("/usr/bin/snapback", env!("CARGO_BIN_EXE_snapback"));
        let copy = environment.path(unit.file_name().to_str().unwrap());
        fs::write(&copy, text).unwrap();
        verify.arg(copy);
    }
    let verified = verify.output().expect("systemd-analyze is needed for this test");
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && !said.contains("snapback"), "{said}");
    assert_eq!(commands.len(), 4);
    fs::write(environment.path("snapback.toml"), "").unwrap();
    for command in commands {
        let mut run = environment.command();
        run.args(command.split(' ')).env("SNAPBACK_CONFIG", environment.path("snapback.toml"));
        // The daemon would stay.
        if command == "serve" {
            run.arg("--once");
        }
        environment::Run::from(run.output().unwrap()).succeeds();
    }
}
