//! Dumps, and what is wrong with them.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use workload::address::{Address, Login};
use workload::dump::{self, Format, Part};
use workload::error::Error;

use crate::login;
use crate::server::MariaDb;

/// What a dump gives, or its error.
pub(crate) fn dumped(login: &Login, part: &Part) -> Result<String, Error> {
    let mut text = String::new();
    match dump::open(login, part)?.read_to_string(&mut text) {
        Ok(_) => Ok(text),
        Err(error) => Err(error.downcast::<Error>().unwrap()),
    }
}

/// The part of a database.
pub(crate) fn part(database: &str) -> Part {
    Part { file: format!("{database}.sql"), database: Some(database.to_owned()), format: Format::MysqlSql }
}

/// A database with one of each kind of object.
pub(crate) const SHOP: &str = "create database shop character set latin1 collate latin1_german1_ci;
use shop;
create table customer (id int primary key auto_increment, name varchar(100) character set utf8mb4, photo blob,
  made timestamp default current_timestamp) engine = innodb;
create table orders (id bigint primary key auto_increment, customer int not null, amount decimal(10, 2), note text,
  total decimal(10, 2) generated always as (amount * 1.2) stored,
  constraint c foreign key (customer) references customer (id), check (amount >= 0)) engine = innodb;
create table log (id int auto_increment primary key, what varchar(200)) engine = myisam;
create table cache (k int primary key, v text) engine = aria;
create table price (id int primary key, p int) with system versioning;
create sequence numbers start with 100;
create view big as select o.id, c.name from shop.orders o join customer c on c.id = o.customer where o.amount > 10;
create view a_count as select count(*) n from big;
delimiter //
create function twice(x int) returns int deterministic return x * 2//
create trigger shop.ins after insert on shop.orders for each row begin
 insert into log (what) values (concat('order ', new.id));
end//
create trigger other after insert on customer for each row insert into log (what) values ('customer')//
create procedure add_order(c int, a decimal(10, 2)) begin
 insert into orders (customer, amount) values (c, twice(a) / 2);
end//
create event tidy on schedule every 1 day do insert into cache values (1, 'x') on duplicate key update v = concat(v, 'y')//
delimiter ;
insert into customer (name, photo) values ('J\u{fc}rgen\\n\\t\\\\x; -- \\'', x'00ff0a0d27'), ('NULL', null);
call add_order(1, 20); call add_order(2, 5);
insert into price values (1, 10); update price set p = 11;
do nextval(numbers);
create user app@localhost identified by 'hunter2'; grant select, insert on shop.* to app@localhost;
create user other@localhost identified by 'x'; grant select on mysql.* to other@localhost;
create role reader; grant select on shop.customer to reader; grant reader to app@localhost;
set default role reader for app@localhost;
";

#[test]
fn a_server_names_what_there_is_to_dump() {
    let server = MariaDb::start();
    server.sql("create database `a b`; create database globals;");
    let contents = dump::contents(&login(&server, ""), true).unwrap();
    assert!(contents.server.starts_with("MariaDB 10."), "{}", contents.server);
    assert!(contents.tool.starts_with("mariadb-dump 10."), "{}", contents.tool);
    let files: Vec<&str> = contents.parts.iter().map(|part| &part.file[..]).collect();
    assert_eq!(files, ["a%20b.sql", "%67lobals.sql", "globals.sql"]);
    let one = dump::contents(&login(&server, "a b"), false).unwrap();
    assert_eq!(one.parts.first(), contents.parts.first());
    for part in &contents.parts {
        assert!(dumped(&login(&server, ""), part).unwrap().ends_with("-- Dump completed\n"));
    }
}

#[test]
fn a_dump_has_all_and_the_same_content_gives_the_same_bytes() {
    let server = MariaDb::start();
    server.sql(SHOP);
    let text = dumped(&login(&server, "shop"), &part("shop")).unwrap();
    for expected in [
        "ALTER DATABASE CHARACTER SET latin1 COLLATE latin1_german1_ci;",
        "0x00FF0A0D27",
        "PROCEDURE `add_order`",
        "EVENT `tidy`",
        "trigger shop.ins",
        "VIEW `a_count`",
        "CREATE SEQUENCE `numbers`",
        "row_start",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert_eq!(text, dumped(&login(&server, "shop"), &part("shop")).unwrap());
    // The native client restores it, too.
    server.sql(&format!("create database twin; use twin; {}", text.replace("shop.", "")));
    assert_eq!(server.sql("select name from twin.big"), "J\u{fc}rgen\\n\\t\\\\x; -- '");
}

#[test]
fn accounts_of_a_database_are_those_that_may_use_it() {
    let server = MariaDb::start();
    server.sql(SHOP);
    let globals = |database: &str, all: bool| {
        let login = login(&server, database);
        let contents = dump::contents(&login, all).unwrap();
        let accounts = contents.parts.last().unwrap();
        assert_eq!(accounts.database, None);
        dumped(&login, accounts).unwrap()
    };
    let some = globals("shop", false);
    for expected in ["CREATE USER IF NOT EXISTS `app`@`localhost`", "CREATE ROLE IF NOT EXISTS 'reader'", "ON `shop`.*"]
    {
        assert!(some.contains(expected), "{expected}: {some}");
    }
    assert!(!some.contains("other") && !some.contains("root") && !some.contains("hunter2"), "{some}");
    let all = globals("", true);
    assert!(all.contains("`other`") && all.contains("`root`") && !all.contains("mariadb.sys"), "{all}");
}

#[test]
fn what_cannot_be_dumped_says_why() {
    let mut server = MariaDb::start();
    server.sql("create user app@localhost identified by 'it\\'s \"#1\\\\'; create database shop; grant all on shop.* to app@localhost");
    let missing = dump::contents(&login(&server, "none"), false).unwrap_err();
    assert!(matches!(&missing, Error::NoDatabase { database, .. } if database == "none"), "{missing}");
    let unnamed = dump::contents(&login(&server, ""), false).unwrap_err();
    assert!(unnamed.to_string().contains("all = true"), "{unnamed}");

    let home = tempfile::tempdir().unwrap();
    let password = |text: &str| {
        let file = home.path().join("password");
        fs::write(&file, text).unwrap();
        Login { password_file: Some(file), ..Login::new(Address::parse(&server.url_of("app", "shop")).unwrap()) }
    };
    let contents = dump::contents(&password("it's \"#1\\\n"), false).unwrap();
    // This account does not see who else there is.
    assert_eq!(contents.parts, [part("shop")]);
    dumped(&password("it's \"#1\\\n"), &part("shop")).unwrap();
    let wrong = dump::contents(&password("hunter2"), false).unwrap_err();
    assert!(matches!(wrong, Error::Login { .. }) && !wrong.to_string().contains("hunter2"), "{wrong}");

    let old = script(home.path(), "mariadb-dump", "echo 'mariadb-dump  Ver 10.19 Distrib 10.6.2-MariaDB, for Linux'");
    let mut tools = login(&server, "shop");
    tools.tools.directories = vec![old.clone()];
    std::os::unix::fs::symlink("/usr/bin/mariadb", old.join("mariadb")).unwrap();
    let error = dump::contents(&tools, false).unwrap_err().to_string();
    assert!(error.contains("10.6.2 is older than the server") && error.contains("mariadb-client"), "{error}");
    fs::remove_file(old.join("mariadb-dump")).unwrap();
    let error = dump::contents(&tools, false).unwrap_err().to_string();
    assert!(error.contains("mariadb-dump is not installed"), "{error}");

    server.stop();
    let down = dump::contents(&login(&server, "shop"), false).unwrap_err();
    assert!(matches!(down, Error::Unreachable { .. }), "{down}");
}

#[test]
fn a_dump_that_ends_early_is_no_dump() {
    let server = MariaDb::start();
    server.bank();
    let home = tempfile::tempdir().unwrap();
    let version = "case \"$*\" in *--version*) exec /usr/bin/mariadb-dump --version;; esac";
    for (ends, expected) in [("head -c 2000", "not whole"), ("{ head -c 2000; kill -9 $$; }", "failed")] {
        let body = format!("{version}\n/usr/bin/mariadb-dump \"$@\" | {ends}");
        let directory = script(home.path(), "mariadb-dump", &body);
        let mut login = login(&server, "bank");
        login.tools.directories = vec![directory, "/usr/bin".into()];
        let error = dumped(&login, &part("bank")).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    // The connection is cut while the tool reads.
    server.sql("use bank; insert into note select seq, repeat('x', 80) from seq_1000000_to_1400000");
    let mut dump = dump::open(&login(&server, "bank"), &part("bank")).unwrap();
    let mut some = vec![0; 1 << 20];
    dump.read_exact(&mut some).unwrap();
    server.sql(
        "select id into @tool from information_schema.processlist where info like 'select /*!40001 SQL_NO_CACHE%' \
         and id <> connection_id(); kill @tool",
    );
    let error = dump.read_to_end(&mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("bank"), "{error}");
}

/// A directory with a program that does this.
fn script(home: &Path, name: &str, body: &str) -> std::path::PathBuf {
    let directory = home.join("programs");
    fs::create_dir_all(&directory).unwrap();
    let file = directory.join(name);
    fs::write(&file, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    directory
}
