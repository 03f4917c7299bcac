//! Dumps, and what keeps one from being made.

use std::io::Read;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::{fs, io};

use workload::address::{Address, Login};
use workload::dump::{self, Part};
use workload::error::Error;
use workload::tool::Tools;

use crate::login;
use crate::server::Postgres;

/// All of a part, or why there is none.
fn whole(login: &Login, part: &Part) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    dump::open(login, part)?.read_to_end(&mut bytes).map_err(|error| error.downcast::<Error>().unwrap())?;
    Ok(bytes)
}

fn error(result: Result<impl Sized, Error>) -> Error {
    result.err().expect("it must fail")
}

#[test]
fn a_database_is_dumped_with_its_roles_and_a_server_with_all_of_its_databases() {
    let server = Postgres::start();
    server.sql("postgres", "create role shop login password 'sesame'");
    server.sql("postgres", "create database \"my/shop\" owner shop");
    server.sql("my/shop", "create table rows as select generate_series(1, 1000) as n");
    let contents = dump::contents(&login(&server, "my%2Fshop"), false).unwrap();
    let files: Vec<_> = contents.parts.iter().map(|part| part.file.as_str()).collect();
    assert_eq!(files, ["roles.sql", "my%2Fshop.pgdump"]);
    assert!(contents.tool.starts_with("pg_dump 1"), "{}", contents.tool);
    let roles = String::from_utf8(whole(&login(&server, "my/shop"), &contents.parts[0]).unwrap()).unwrap();
    assert!(roles.contains("CREATE ROLE \"shop\"") && !roles.contains("PASSWORD 'SCRAM"), "{roles}");
    let dumped = whole(&login(&server, "my/shop"), &contents.parts[1]).unwrap();
    assert!(dumped.starts_with(b"PGDMP") && dumped.windows(10).any(|window| window.ends_with(b"1000\n")));

    let contents = dump::contents(&login(&server, ""), true).unwrap();
    let files: Vec<_> = contents.parts.iter().map(|part| part.file.as_str()).collect();
    assert_eq!(files, ["globals.sql", "my%2Fshop.pgdump", "postgres.pgdump"]);
    let globals = String::from_utf8(whole(&login(&server, ""), &contents.parts[0]).unwrap()).unwrap();
    assert!(globals.contains("PASSWORD 'SCRAM"), "{globals}");
}

#[test]
fn a_dump_whose_connection_is_cut_ends_with_an_error() {
    let server = Postgres::start();
    server.pgbench_tables("bank", 5);
    let login = login(&server, "bank");
    let part = dump::contents(&login, false).unwrap().parts.pop().unwrap();
    let mut dump = dump::open(&login, &part).unwrap();
    // It cannot get further than the pipe is wide.
    let mut head = vec![0; 1 << 20];
    dump.read_exact(&mut head).unwrap();
    let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'snapback'";
    assert_eq!(server.sql("postgres", cut), "1");
    let error = io::copy(&mut dump, &mut io::sink()).unwrap_err().downcast::<Error>().unwrap().to_string();
    assert!(error.contains("pg_dump of bank failed") && error.contains("terminat"), "{error}");
    assert!(dump.read(&mut head).is_err(), "an error stays one");
}

#[test]
fn what_keeps_a_dump_from_being_made_is_told_before_it_begins() {
    let mut server = Postgres::start();
    let port = server.listen("host all all 127.0.0.1/32 scram-sha-256");
    server.sql("postgres", r"create role shop login password 'open:se\same'; grant pg_read_all_data to shop");
    let secrets = tempfile::tempdir().unwrap();
    let file = secrets.path().join("password");
    let address = Address::parse(&format!("postgres://shop@127.0.0.1:{port}/postgres")).unwrap();
    let login = Login { password_file: Some(file.clone()), ..Login::new(address) };

    fs::write(&file, "open:se\\same\nwhat comes after is none\n").unwrap();
    let contents = dump::contents(&login, false).unwrap();
    whole(&login, &contents.parts[0]).unwrap();
    assert!(whole(&login, &contents.parts[1]).unwrap().starts_with(b"PGDMP"));

    let missing = error(dump::contents(&login.with_database("nowhere"), false));
    assert!(matches!(missing, Error::NoDatabase { .. }), "{missing}");
    fs::write(&file, "hunter2").unwrap();
    let wrong = error(dump::contents(&login, false));
    assert!(matches!(wrong, Error::Login { .. }) && !wrong.to_string().contains("hunter2"), "{wrong}");
    server.stop();
    let down = error(dump::contents(&login, false));
    assert!(matches!(down, Error::Unreachable { .. }), "{down}");
}

#[test]
fn a_dump_tool_that_is_missing_or_too_old_is_named_with_its_package() {
    let server = Postgres::start();
    let tools = tempfile::tempdir().unwrap();
    fs::set_permissions(tools.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let login = Login {
        tools: Tools { directories: vec![tools.path().to_owned()], ..Tools::default() },
        ..login(&server, "postgres")
    };
    let no_client = error(dump::contents(&login, false));
    assert!(matches!(&no_client, Error::Tool { program, .. } if program == "psql"), "{no_client}");
    let psql = Tools::default().all(workload::tool::Program { names: &["psql"], package: "" }).remove(0);
    script(&tools.path().join("psql"), &format!("exec {} \"$@\"", psql.display()));
    let missing = error(dump::contents(&login, false)).to_string();
    assert_eq!(missing, "pg_dump is not installed; install the package postgresql-client");
    script(&tools.path().join("pg_dump"), "echo 'pg_dump (PostgreSQL) 9.6.24'");
    let old = error(dump::contents(&login, false)).to_string();
    assert!(old.starts_with("pg_dump 9.6.24 is older than the server, 1"), "{old}");
    assert!(old.contains("install the package postgresql-client-1"), "{old}");
}

fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
