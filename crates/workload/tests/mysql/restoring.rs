//! Dumps brought back, and what must not happen when that fails.

use std::io::{Cursor, Read};

use workload::dump::{Format, Part};
use workload::error::Error;
use workload::restore::{Options, Restored, restore};

use crate::dumping::{SHOP, dumped, part};
use crate::login;
use crate::server::MariaDb;

fn options(mark: &str) -> Options {
    Options { mark: mark.to_owned(), ..Options::default() }
}

fn restored(server: &MariaDb, dump: &str, options: &Options) -> Result<Restored, Error> {
    restore(&login(server, ""), &part("shop"), &mut Cursor::new(dump.as_bytes()), options)
}

/// All of a database that can be compared.
fn everything(server: &MariaDb, database: &str) -> String {
    let dump = dumped(&login(server, database), &part(database)).unwrap();
    // Rows and definitions; the trigger's text lost the name of its database.
    dump.lines().filter(|line| !line.starts_with("-- ")).collect::<Vec<_>>().join("\n").replace("shop.", "")
}

fn databases(server: &MariaDb) -> String {
    server.sql("show databases like 'shop%'").replace('\n', " ")
}

#[test]
fn a_database_comes_back_whole_and_the_old_one_is_kept() {
    let server = MariaDb::start();
    server.sql(SHOP);
    let before = everything(&server, "shop");
    let dump = dumped(&login(&server, "shop"), &part("shop")).unwrap();
    server.sql(
        "use shop; delete from orders; drop procedure add_order; create table extra (x int) engine = innodb; insert into extra values (7); \
         drop trigger other; create view newer as select * from extra; create function thrice(x int) returns int return x * 3; \
         create event more on schedule every 1 day do delete from extra;",
    );
    let changed = everything(&server, "shop");
    let done = restored(&server, &dump, &options("1")).unwrap();
    assert_eq!(done.warnings, [""; 0]);
    assert_eq!(done.database.as_deref(), Some("shop"));
    assert_eq!(done.kept.as_deref(), Some("shop_before_1"));
    assert_eq!(databases(&server), "shop shop_before_1");
    assert_eq!(everything(&server, "shop"), before);
    assert_eq!(everything(&server, "shop_before_1"), changed.replace("PRESERVE ENABLE", "PRESERVE DISABLE"));
    // It works, and in its own tables.
    server.sql("use shop; call add_order(1, 30); insert into shop.customer (name) values ('new');");
    let counts = "(select count(*) from shop.log), (select count(*) from shop_before_1.log), nextval(shop.numbers)";
    assert_eq!(server.sql(&format!("select {counts}")), "6\t4\t1100");
    assert!(
        server
            .try_sql("insert into shop.orders (customer, amount) values (99, 1)")
            .unwrap_err()
            .contains("foreign key")
    );
    // Again, with the same dump.
    restored(&server, &dump, &options("2")).unwrap();
    assert_eq!(everything(&server, "shop"), before);
    assert_eq!(databases(&server), "shop shop_before_1 shop_before_2");
}

#[test]
fn under_another_name_and_where_nothing_is_there_is_nothing_to_keep() {
    let server = MariaDb::start();
    server.sql(SHOP);
    let before = everything(&server, "shop");
    let dump = dumped(&login(&server, "shop"), &part("shop")).unwrap();
    let named = Options { name: Some("copy".to_owned()), ..options("1") };
    let done = restored(&server, &dump, &named).unwrap();
    assert_eq!((done.database.as_deref(), done.kept), (Some("copy"), None));
    assert_eq!(everything(&server, "copy"), before);
    assert_eq!(everything(&server, "shop"), before);
    assert!(restored(&server, &dump, &named).unwrap_err().to_string().contains("already"));
    server.sql("drop database shop");
    assert_eq!(restored(&server, &dump, &options("1")).unwrap().kept, None);
    assert_eq!(everything(&server, "shop"), before);
    server.sql("drop database shop; create database shop");
    assert_eq!(restored(&server, &dump, &options("1")).unwrap().kept, None);
    assert_eq!(everything(&server, "shop"), before);
}

#[test]
fn single_tables_come_into_a_database_of_their_own() {
    let server = MariaDb::start();
    server.sql(SHOP);
    let dump = dumped(&login(&server, "shop"), &part("shop")).unwrap();
    let tables = |names: &[&str], name: Option<&str>| Options {
        name: name.map(str::to_owned),
        tables: names.iter().map(|name| (*name).to_owned()).collect(),
        mark: "1".to_owned(),
        ..Options::default()
    };
    restored(&server, &dump, &tables(&["customer", "log"], Some("some"))).unwrap();
    assert_eq!(server.sql("show full tables from some"), "customer\tBASE TABLE\nlog\tBASE TABLE");
    assert_eq!(server.sql("select count(*) from some.log; show triggers from some").lines().count(), 2);
    let missing = restored(&server, &dump, &tables(&["nobody"], Some("more"))).unwrap_err().to_string();
    assert!(missing.contains("no table \"nobody\""), "{missing}");
    assert!(restored(&server, &dump, &tables(&["log"], None)).is_err());
    assert_eq!(server.sql("show databases like 'more%'"), "");
}

#[test]
fn accounts_and_grants_that_are_missing_are_added_and_no_password_is_changed() {
    let server = MariaDb::start();
    server.sql(SHOP);
    let globals = Part { file: "globals.sql".to_owned(), database: None, format: Format::MysqlSql };
    let dump = dumped(&login(&server, ""), &globals).unwrap();
    let grants = "show grants for app@localhost; show grants for reader; show create user app@localhost";
    let before = server.sql(grants);
    server.sql("drop user app@localhost; drop role reader; set password for other@localhost = password('changed')");
    let other = server.sql("show create user other@localhost");
    let target = login(&server, "");
    let done = restore(&target, &globals, &mut Cursor::new(dump.as_bytes()), &options("1")).unwrap();
    assert_eq!(done.warnings, [""; 0]);
    assert_eq!(server.sql(grants), before);
    assert_eq!(server.sql("show create user other@localhost"), other);
    let cut = &dump.as_bytes()[..dump.len() - 1];
    assert!(restore(&target, &globals, &mut Cursor::new(cut), &options("1")).is_err());
    let wrong = dump.replace("ON `shop`.*", "ON PROCEDURE `shop`.`gone`");
    let done = restore(&target, &globals, &mut Cursor::new(wrong.as_bytes()), &options("1")).unwrap();
    assert!(!done.warnings.is_empty() && !done.warnings.concat().contains("IDENTIFIED"), "{:?}", done.warnings);
}

/// A dump that breaks, cuts the connection or does whatever else in its middle.
struct Breaking<'a> {
    dump: Cursor<&'a [u8]>,
    at: u64,
    then: Box<dyn FnMut() -> std::io::Result<()> + 'a>,
}

impl Read for Breaking<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.dump.position() >= self.at {
            self.at = u64::MAX;
            (self.then)()?;
        }
        let length = buffer.len().min(1000);
        self.dump.read(&mut buffer[..length])
    }
}

#[test]
fn whatever_fails_everything_is_as_it_was() {
    let server = MariaDb::start();
    server.sql(SHOP);
    server.sql("use shop; insert into customer (name) select repeat('y', 90) from seq_1_to_20000");
    let dump = dumped(&login(&server, "shop"), &part("shop")).unwrap();
    let before = everything(&server, "shop");
    let unchanged = |what: &str| {
        assert_eq!(everything(&server, "shop"), before, "{what}");
        assert_eq!(databases(&server), "shop", "{what}");
    };
    let middle = dump.len() as u64 / 2;
    let broken = |then: Box<dyn FnMut() -> std::io::Result<()> + '_>| {
        let mut dump = Breaking { dump: Cursor::new(dump.as_bytes()), at: middle, then };
        restore(&login(&server, ""), &part("shop"), &mut dump, &options("1")).unwrap_err().to_string()
    };
    let error = broken(Box::new(|| Err(std::io::Error::other("the repository is gone"))));
    assert!(error.contains("the repository is gone"), "{error}");
    unchanged("the dump breaks");
    let error = broken(Box::new(|| {
        server.sql(
            "select max(id) into @loader from information_schema.processlist where db like 'shop_restoring%'; kill @loader",
        );
        Ok(())
    }));
    assert!(error.contains("ERROR 20") || error.contains("gone away") || error.contains("reached"), "{error}");
    unchanged("the connection is cut");
    for length in [dump.len() / 3, dump.len() - 20] {
        let error = restored(&server, &dump[..length], &options("1")).unwrap_err().to_string();
        assert!(error.contains("before its last line"), "{error}");
        unchanged("the dump ends early");
    }
    for (from, to) in [("CREATE TABLE `orders`", "CREATE TABEL `orders`"), ("FUNCTION `twice`", "FUNCTOIN `twice`")] {
        let error = restored(&server, &dump.replace(from, to), &options("1")).unwrap_err().to_string();
        assert!(error.contains("ERROR 1064"), "{error}");
        unchanged(to);
    }
    // Somebody holds a table: the switch gives up, and puts the triggers back.
    let mut client = server.client();
    let holder =
        client.args(["-e", "use shop; begin; select * from orders; do sleep(60)"]).stdout(std::process::Stdio::null());
    let mut holder = holder.spawn().unwrap();
    while server.sql("select count(*) from information_schema.processlist where info = 'do sleep(60)'") == "0" {}
    let error = restored(&server, &dump, &options("1")).unwrap_err().to_string();
    assert!(error.contains("switch") && error.contains("ERROR 1205"), "{error}");
    unchanged("a table is held");
    let _ = holder.kill();
    let _ = holder.wait();
    server.sql(
        "create database outer_one; create table outer_one.x (c int, foreign key (c) references shop.customer (id))",
    );
    let error = restored(&server, &dump, &options("1")).unwrap_err().to_string();
    assert!(error.contains("outer_one.x") && error.contains("new name"), "{error}");
    unchanged("others refer to it");
}

#[test]
fn a_full_disk_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    std::fs::set_permissions(home.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let small = Mounted::new(home.path(), "size=96m");
    let server = MariaDb::start_in(Some(&small.0.join("data")), &["--innodb-log-file-size=4M"]);
    server.sql(SHOP);
    let dump = dumped(&login(&server, "shop"), &part("shop")).unwrap();
    let before = everything(&server, "shop");
    let row = format!("INSERT INTO `orders` (customer, note) VALUES (1, '{}');\n", "z".repeat(60_000));
    let large = dump.replace("UNLOCK TABLES;\n", &format!("{}UNLOCK TABLES;\n", row.repeat(1500)));
    let large = large.replacen(&row.repeat(1500), "", 3);
    let error = restored(&server, &large, &options("1")).unwrap_err().to_string();
    assert!(error.contains("ERROR 1114") || error.contains("No space") || error.contains("full"), "{error}");
    assert_eq!(databases(&server), "shop");
    assert_eq!(everything(&server, "shop"), before);
}

/// A small file system in memory.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn new(home: &std::path::Path, options: &str) -> Mounted {
        let place = home.join("small");
        std::fs::create_dir(&place).unwrap();
        let mut mount = std::process::Command::new("mount");
        assert!(mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&place).status().unwrap().success());
        Mounted(place)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn what_a_crash_left_in_the_middle_is_settled_by_the_next_restore() {
    let server = MariaDb::start();
    server.sql(SHOP);
    let dump = dumped(&login(&server, "shop"), &part("shop")).unwrap();
    let journal = |rows: &str, more: &str| {
        server.sql(&format!(
            "create database shop_restoring_0; use shop_restoring_0; \
             create table snapback_restore (step varchar(20), name varchar(255), statements longblob); \
             insert into snapback_restore values ('events', '', ''), {rows}; {more}"
        ));
    };
    // Before the rename: triggers are gone, the new tables still wait.
    let trigger = "create trigger other after insert on customer for each row insert into log (what) values (7);";
    journal(
        &format!("('finish', '', ''), ('revert', 'other', '{trigger}')"),
        "create table orders (x int); drop trigger shop.other",
    );
    let done = restored(&server, &dump, &options("1")).unwrap();
    assert!(done.warnings.concat().contains("taken back"), "{:?}", done.warnings);
    assert!(server.sql("show triggers from shop_before_1").contains("other"));
    // After it: the code is missing.
    journal("('finish', '', 'use shop; create view late as select 1 as x;')", "");
    let done = restored(&server, &dump, &options("2")).unwrap();
    assert!(done.warnings.concat().contains("finished"), "{:?}", done.warnings);
    assert_eq!(server.sql("select * from shop_before_2.late"), "1");
    assert_eq!(databases(&server), "shop shop_before_1 shop_before_2");
    // One that is only named like ours stays.
    server.sql("create database shop_restoring_mine");
    restored(&server, &dump, &options("3")).unwrap();
    assert!(databases(&server).contains("shop_restoring_mine"));
}
