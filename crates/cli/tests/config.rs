//! The configuration file from the command line: its errors, its schema, and projects by name.
#![allow(missing_docs)]

mod environment;

use std::fs;

use environment::Environment;

fn with_config(text: &str) -> Environment {
    let environment = Environment::empty();
    fs::create_dir_all(environment.path("home/.config/snapback")).unwrap();
    fs::write(environment.path("snapback.toml"), text).unwrap();
    environment
}

fn check(environment: &Environment) -> environment::Run {
    environment.run(["--config", "snapback.toml", "config", "check"])
}

#[test]
fn all_errors_are_told_with_line_and_fix_and_fail_the_check() {
    let environment = with_config("[plan.nightly]\nbackup = { at = \"25:00\", to = [\"offsite\"] }\n[projct.shop]\n");
    let run = check(&environment);
    assert_eq!(run.code, 1, "{run:?}");
    for expected in [
        "snapback.toml:2:17: at: \"25:00\" is no time of day",
        "try: write a time such as",
        "snapback.toml:3:2: the file has no key \"projct\"",
        "try: write project",
        "3 errors",
    ] {
        assert!(run.stderr.contains(expected), "{expected}: {}", run.stderr);
    }
    let run = environment.run(["--config", "snapback.toml", "--json", "config", "check"]);
    let json = &run.json()[0];
    assert_eq!((json["errors"].as_array().unwrap().len(), json["errors"][0]["line"].as_u64()), (3, Some(2)));
}

#[test]
fn a_file_that_fits_is_well_and_what_the_machine_lacks_is_a_warning() {
    let environment = with_config("[project.shop]\npaths = [\"/there/is/nothing\"]\n");
    let run = check(&environment).succeeds();
    assert!(run.stderr.contains("is well: 1 project, 0 plans, 0 repositories"), "{}", run.stderr);
    assert!(run.stderr.contains("project.shop: /there/is/nothing is not there"), "{}", run.stderr);
}

#[test]
fn without_a_file_it_is_said_how_to_get_one() {
    let run = check(&Environment::empty());
    assert_eq!(run.code, 2);
    assert!(
        run.stderr.contains("there is no configuration file") && run.stderr.contains("snapback protect DIR"),
        "{}",
        run.stderr
    );
}

#[test]
fn the_schema_is_json() {
    let run = Environment::empty().run(["config", "schema"]).succeeds();
    let schema: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(schema["properties"]["project"]["additionalProperties"]["required"], serde_json::json!(["paths"]));
}

#[test]
fn a_project_stands_for_its_directory_and_a_wrong_name_suggests_the_right_one() {
    let environment = with_config("[project.shop]\npaths = [\"/srv/shop\"]\n");
    let list = |name: &str| environment.run(["--config", "snapback.toml", "snapshot", "list", name]);
    assert!(list("shop").succeeds().stderr.contains("no snapshots"));
    let run = list("shpo");
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("there is no project \"shpo\"") && run.stderr.contains("try: shop"), "{}", run.stderr);
    // What is there is a directory, and what has a slash always is.
    for directory in ["files", "./shpo"] {
        list(directory).succeeds();
    }
    let run = environment.run(["--config", "snapback.toml", "rollback", "shop"]);
    assert!(run.code != 0 && run.stderr.contains("/srv/shop"), "{}", run.stderr);
}

#[test]
fn a_broken_configuration_stops_nothing_that_does_without_it() {
    let environment = with_config("nonsense");
    environment.run(["--config", "snapback.toml", "snapshot", "list", "./files"]).succeeds();
    environment.run(["--config", "snapback.toml", "snapshot", "list", "files"]).succeeds();
    let run = environment.run(["--config", "snapback.toml", "snapshot", "list", "shop"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("snapback.toml:1:"), "{}", run.stderr);
}
