//! From nothing to a protected directory with one command.
#![allow(missing_docs)]

mod environment;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use environment::{Environment, Run};

/// The binary with a configuration of its own, and without a repository or a password of the environment.
fn command(environment: &Environment) -> Command {
    let mut command = environment.command();
    command.env_remove("SNAPBACK_REPOSITORY").env_remove("SNAPBACK_PASSWORD");
    command.env("SNAPBACK_CONFIG", environment.path("etc/snapback.toml"));
    command.env("XDG_DATA_HOME", environment.path("data"));
    command
}

fn run(environment: &Environment, arguments: &[&str]) -> Run {
    command(environment).args(arguments).output().unwrap().into()
}

/// Root's usual place for repositories is the machine's own; tests have theirs.
fn protect(environment: &Environment, more: &[&str]) -> Run {
    let repository = environment.path("backups/local");
    let mut arguments = vec!["protect", "files", "-r", repository.to_str().unwrap()];
    arguments.extend(more);
    run(environment, &arguments)
}

fn with_files() -> Environment {
    let environment = Environment::empty();
    environment.write("hello", "hello\n");
    environment
}

fn backups(environment: &Environment) -> usize {
    fs::read_dir(environment.path("backups/local/snapshots")).unwrap().count()
}

#[test]
fn one_command_makes_project_plan_repository_and_first_backup_and_says_what_is_missing() {
    let environment = with_files();
    let done = protect(&environment, &[]).succeeds();
    assert!(done.stderr.contains("missing: a copy off this disk"), "{}", done.stderr);
    assert!(done.stderr.contains("keep a copy on another machine"), "{}", done.stderr);
    assert_eq!(backups(&environment), 1);
    let password = environment.path("etc/local.password");
    assert_eq!(fs::metadata(&password).unwrap().permissions().mode() & 0o7777, 0o600);
    assert!(!done.stderr.contains(fs::read_to_string(&password).unwrap().trim()));
    run(&environment, &["config", "check"]).succeeds();
    run(&environment, &["backup", "files"]).succeeds();
    assert_eq!(backups(&environment), 2);
}

#[test]
fn files_of_sqlite_become_databases_of_the_project_if_they_can_be_read() {
    let environment = with_files();
    let sqlite3 = |file: &str, statements: &str| {
        let done = Command::new("sqlite3").arg(environment.path(file)).arg(statements).status().unwrap();
        assert!(done.success());
    };
    sqlite3("files/app.db", "PRAGMA journal_mode=wal; CREATE TABLE orders(x)");
    sqlite3("files/cut.db", "CREATE TABLE a(x); CREATE TABLE b(x)");
    let cut = fs::read(environment.path("files/cut.db")).unwrap();
    fs::write(environment.path("files/cut.db"), &cut[..4096]).unwrap();

    let shown = protect(&environment, &["--dry-run"]).succeeds();
    assert!(shown.stdout.contains("[project.files.database.app]\nurl = \"sqlite:/"), "{}", shown.stdout);
    let done = protect(&environment, &[]).succeeds();
    assert!(done.stderr.contains("files/app.db: SQLite 3."), "{}", done.stderr);
    assert!(done.stderr.contains("not added: sqlite:/") && done.stderr.contains("it is damaged"), "{}", done.stderr);
    let text = fs::read_to_string(environment.path("etc/snapback.toml")).unwrap();
    assert!(text.contains("database.app]") && !text.contains("cut.db"), "{text}");
    run(&environment, &["config", "check"]).succeeds();
    // What was taken out by hand stays out.
    let without = text.split("\n[project.files.database.app]").next().unwrap();
    fs::write(environment.path("etc/snapback.toml"), without).unwrap();
    protect(&environment, &[]).succeeds();
    assert_eq!(fs::read_to_string(environment.path("etc/snapback.toml")).unwrap(), without);
}

#[test]
fn doing_it_once_more_changes_nothing() {
    let environment = with_files();
    protect(&environment, &[]).succeeds();
    let config = environment.path("etc/snapback.toml");
    let before = (fs::read(&config).unwrap(), fs::read(environment.path("etc/local.password")).unwrap());
    let again = protect(&environment, &[]).succeeds();
    assert!(again.stderr.contains("is the project files already"), "{}", again.stderr);
    assert_eq!((fs::read(&config).unwrap(), fs::read(environment.path("etc/local.password")).unwrap()), before);
    assert_eq!(backups(&environment), 1);
}

#[test]
fn what_a_killed_run_left_is_gone_on_with() {
    let environment = with_files();
    protect(&environment, &[]).succeeds();
    // Killed while the repository was made: a key without a repository, and no configuration yet.
    fs::rename(environment.path("backups/local"), environment.path("backups/local.unfinished")).unwrap();
    for gone in ["config", "snapshots", "index", "data"] {
        let path = environment.path("backups/local.unfinished").join(gone);
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
    fs::remove_file(environment.path("etc/snapback.toml")).unwrap();
    protect(&environment, &[]).succeeds();
    assert_eq!(backups(&environment), 1);
    assert!(!environment.path("backups/local.unfinished").exists());
}

#[test]
fn a_dry_run_shows_the_lines_and_makes_nothing() {
    let environment = with_files();
    let shown = protect(&environment, &["--dry-run"]).succeeds();
    assert!(shown.stdout.contains("[project.files]") && shown.stdout.contains("[plan.nightly]"), "{}", shown.stdout);
    assert!(!environment.path("etc").exists() && !environment.path("backups").exists());
}

#[test]
fn a_repository_with_another_password_or_inside_of_the_directory_is_refused() {
    let environment = with_files();
    protect(&environment, &[]).succeeds();
    fs::remove_file(environment.path("etc/snapback.toml")).unwrap();
    fs::write(environment.path("etc/local.password"), "wrong\n").unwrap();
    assert_eq!(protect(&environment, &[]).code, 12);
    fs::remove_file(environment.path("etc/local.password")).unwrap();
    let run_ = protect(&environment, &[]);
    assert!(run_.code == 2 && run_.stderr.contains("give --password-file"), "{run_:?}");
    let inside = environment.files().join("backups");
    let run_ = run(&environment, &["protect", "files", "-r", inside.to_str().unwrap()]);
    assert!(run_.code == 2 && run_.stderr.contains("lies in what it shall protect"), "{run_:?}");
    assert!(!environment.path("etc/snapback.toml").exists());
}

#[test]
fn init_writes_a_configuration_that_fits_and_never_over_another() {
    let environment = with_files();
    let repository = environment.path("backups/local");
    let arguments = ["init", "-r", repository.to_str().unwrap()];
    run(&environment, &arguments).succeeds();
    run(&environment, &["config", "check"]).succeeds();
    let config = environment.path("etc/snapback.toml");
    let before = fs::read(&config).unwrap();
    let again = run(&environment, &arguments);
    assert!(again.code == 2 && again.stderr.contains("there is a configuration already"), "{again:?}");
    assert_eq!(fs::read(&config).unwrap(), before);
}
