//! MySQL 8 where it is not MariaDB: what it is asked, and with which options it is dumped. Its programs are played.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use workload::address::{Address, Login};
use workload::quiesce::{self, How, Layout};

use crate::dumping::{dumped, part};

/// What `mysql` of MySQL 8.0.36 answers in batch mode.
const CLIENT: &str = r#"
while IFS= read -r line; do
  echo "$line" >> "$HOME_OF_TEST/asked"
  case "$line" in
    *"version()"*) echo "8.0.36-0ubuntu0.22.04.1";;
    *"'datadir'"*) printf 'datadir\t%s/\n' "$HOME_OF_TEST";;
    *"engine in"*) cat "$HOME_OF_TEST/torn";;
    *"processlist"*) echo 0;;
    *"default_character_set_name"*) printf 'utf8mb4\tutf8mb4_0900_ai_ci\n';;
    *"SYSTEM VERSIONED"*) echo 0;;
    "select '=snapback"*) mark="${line#select \'}"; echo "${mark%\';}";;
  esac
done
"#;

const DUMP: &str = r#"
case "$*" in
  *--version*) echo "mysqldump  Ver 8.0.36-0ubuntu0.22.04.1 for Linux on x86_64 ((Ubuntu))";;
  *) echo "$*" >> "$HOME_OF_TEST/asked"; echo "-- MySQL dump 10.13"; echo "-- Dump completed";;
esac
"#;

fn played(home: &Path) -> Login {
    let programs = home.join("programs");
    fs::create_dir(&programs).unwrap();
    for (name, text) in [("mysql", CLIENT), ("mysqldump", DUMP)] {
        let file = programs.join(name);
        fs::write(&file, format!("#!/bin/bash\nHOME_OF_TEST='{}'{text}", home.display())).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::write(home.join("torn"), "0\n").unwrap();
    let mut login = Login::new(Address::parse("mysql:///shop").unwrap());
    login.tools.directories = vec![programs];
    login
}

fn asked(home: &Path) -> String {
    fs::read_to_string(home.join("asked")).unwrap()
}

#[test]
fn the_instance_is_locked_and_all_writes_only_for_tables_without_transactions() {
    let home = tempfile::tempdir().unwrap();
    let login = played(home.path());
    let hold = || quiesce::hold(&[("shop".to_owned(), login.clone())], &|_| Layout::OneMoment).release();
    let done = hold();
    assert_eq!(done[0].how, How::LockInstance, "{done:?}");
    assert_eq!(done[0].server.as_deref(), Some("MySQL 8.0.36"));
    assert_eq!(done[0].stood_still_ms, 0);
    let text = asked(home.path());
    assert!(text.contains("lock instance for backup;") && text.contains("unlock instance;"), "{text}");
    assert!(!text.contains("read lock") && !text.contains("backup stage"), "{text}");
    fs::write(home.path().join("torn"), "3\n").unwrap();
    assert_eq!(hold()[0].how, How::LockInstance);
    assert!(asked(home.path()).contains("flush tables with read lock;"));
}

#[test]
fn a_dump_has_no_positions_of_replication() {
    let home = tempfile::tempdir().unwrap();
    let text = dumped(&played(home.path()), &part("shop")).unwrap();
    assert!(text.starts_with("ALTER DATABASE CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_ai_ci;\n"), "{text}");
    let options = asked(home.path());
    for option in ["--set-gtid-purged=OFF", "--column-statistics=0", "--single-transaction", "--no-tablespaces"] {
        assert!(options.contains(option), "{option}: {options}");
    }
}
