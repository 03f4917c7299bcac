//! Dumps brought back, and what happens when that fails.

use std::io::{self, Read};

use workload::dump;
use workload::error::Error;
use workload::restore::{Options, Restored, restore};

use crate::login;
use crate::server::Postgres;

const CONTENT: &str = "
    create extension pg_trgm;
    create type color as enum ('red', 'green');
    create table goods (id serial primary key, name text not null, color color);
    create table orders (id serial primary key, good int references goods, price numeric);
    create index on goods using gin (name public.gin_trgm_ops);
    create function total() returns numeric language sql as 'select sum(price) from orders';
    create function touched() returns trigger language plpgsql as $$ begin new.name := new.name || '!'; return new; end $$;
    create trigger touch before insert on goods for each row execute function touched();
    insert into goods (name, color) select 'good ' || n, 'red' from generate_series(1, 1000) n;
    insert into orders (good, price) select n, n from generate_series(1, 1000) n;
    grant select on goods to reader;
    alter database shop set work_mem = '7MB';
    alter database shop set default_transaction_read_only = on;
    comment on database shop is 'what; we sell';
    grant connect on database shop to reader;";

/// A server with a small shop, and a dump of it: its roles, and the database.
fn shop() -> (Postgres, Vec<u8>, Vec<u8>) {
    let server = Postgres::start();
    server.sql("postgres", "create role seller; create role reader; grant reader to seller");
    server.sql("postgres", "create database shop owner seller");
    server.sql("shop", CONTENT);
    let (roles, shop) = dumped(&server, "shop");
    (server, roles, shop)
}

fn dumped(server: &Postgres, database: &str) -> (Vec<u8>, Vec<u8>) {
    let login = login(server, database);
    let whole = |part| {
        let mut bytes = Vec::new();
        dump::open(&login, part).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    };
    let parts = dump::contents(&login, false).unwrap().parts;
    (whole(&parts[0]), whole(&parts[1]))
}

fn part(database: Option<&str>) -> dump::Part {
    let format = if database.is_some() { dump::Format::PgCustom } else { dump::Format::PgSql };
    dump::Part { file: "a file".to_owned(), database: database.map(str::to_owned), format }
}

fn options(name: Option<&str>) -> Options {
    Options { name: name.map(str::to_owned), mark: "20260102T030405".to_owned(), ..Options::default() }
}

fn back(server: &Postgres, dump: &mut dyn Read, options: &Options) -> Result<Restored, Error> {
    restore(&login(server, ""), &part(Some("shop")), dump, options)
}

fn databases(server: &Postgres) -> String {
    server.sql("postgres", "select string_agg(datname, ' ' order by datname) from pg_database where not datistemplate")
}

#[test]
fn a_database_is_switched_to_what_it_was_while_people_use_it() {
    let (server, _, dump) = shop();
    server.sql("shop", "begin read write; drop table orders; comment on database shop is 'x'; commit");
    // Somebody who sits in it, and somebody who comes again and again.
    let mut sits = server.command("psql", &["-h", server.sockets().to_str().unwrap(), "shop"]);
    let mut sits = sits.stdin(std::process::Stdio::piped()).spawn().unwrap();
    let load = server.visitors("shop");
    let restored = back(&server, &mut &dump[..], &options(None)).unwrap();
    drop(load);
    let _ = sits.kill();
    sits.wait().unwrap();

    assert_eq!(restored.database.as_deref(), Some("shop"));
    assert_eq!(restored.kept.as_deref(), Some("shop_before_20260102T030405"));
    assert_eq!(restored.warnings, Vec::<String>::new());
    assert_eq!(databases(&server), "postgres shop shop_before_20260102T030405");
    let facts = "select total(), (select count(*) from goods where name like '%ood 10!'), \
        current_setting('work_mem'), current_setting('default_transaction_read_only'), \
        has_table_privilege('reader', 'goods', 'select'), shobj_description(oid, 'pg_database'), \
        pg_get_userbyid(datdba), datacl::text ~ 'reader=c' from pg_database where datname = 'shop'";
    assert_eq!(server.sql("shop", facts), "500500|1|7MB|on|t|what; we sell|seller|t");
    assert_eq!(server.sql("shop_before_20260102T030405", "select to_regclass('orders') is null"), "t");
}

#[test]
fn under_a_new_name_and_on_a_server_that_knows_neither_roles_nor_database() {
    let (first, roles, dump) = shop();
    let second = Postgres::start();
    let error = back(&second, &mut &dump[..], &options(Some("copy"))).unwrap_err().to_string();
    assert!(error.contains("role \"seller\" does not exist"), "{error}");
    assert_eq!(databases(&second), "postgres");

    second.sql("postgres", "create role reader createdb");
    restore(&login(&second, ""), &part(None), &mut &roles[..], &options(None)).unwrap();
    let rights = "select string_agg(rolname || rolcreatedb, ' ' order by 1), pg_has_role('seller', 'reader', 'member') \
        from pg_roles where rolname in ('reader', 'seller')";
    assert_eq!(second.sql("postgres", rights), "readertrue sellerfalse|t", "a role that is there stays as it is");
    for server in [&first, &second] {
        let restored = back(server, &mut &dump[..], &options(Some("copy"))).unwrap();
        assert_eq!((restored.database.as_deref(), restored.kept), (Some("copy"), None));
        assert_eq!(server.sql("copy", "select total()"), "500500");
    }
    let error = back(&first, &mut &dump[..], &options(Some("copy"))).unwrap_err().to_string();
    assert!(error.contains("there is a database \"copy\" already"), "{error}");
}

#[test]
fn single_tables_come_into_a_database_of_their_own() {
    let (server, _, dump) = shop();
    let tables = |tables: &[&str], name| {
        let tables = tables.iter().map(|&table| table.to_owned()).collect();
        back(&server, &mut &dump[..], &Options { tables, ..options(name) })
    };
    let restored = tables(&["public.goods"], Some("some")).unwrap();
    assert_eq!(restored.warnings, ["the other tables are there, too, but empty"]);
    let counts = "select count(*), (select count(*) from orders), (select count(*) from pg_indexes \
        where tablename = 'goods') from goods";
    assert_eq!(server.sql("some", counts), "1000|0|2");
    assert!(tables(&["nothing"], Some("other")).unwrap_err().to_string().contains("no rows of a table nothing"));
    assert!(tables(&["goods"], None).unwrap_err().to_string().contains("--as"));
    assert_eq!(databases(&server), "postgres shop some");
}

#[test]
fn a_dump_that_breaks_leaves_nothing() {
    let (server, _, dump) = shop();
    let half = &dump[..dump.len() * 3 / 4];
    let error = back(&server, &mut &half[..], &options(None)).unwrap_err().to_string();
    assert!(error.contains("pg_restore failed"), "{error}");
    let broken = || io::Error::other("the repository cannot be reached");
    let error = back(&server, &mut half.chain(Broken(broken())), &options(None)).unwrap_err().to_string();
    assert!(error.contains("the repository cannot be reached"), "{error}");
    let error = back(&server, &mut dump.chain(Broken(broken())), &options(None)).unwrap_err().to_string();
    assert!(error.contains("the repository cannot be reached"), "an error after the last byte counts: {error}");
    let error = back(&server, &mut &b"no dump at all, but something else"[..], &options(None)).unwrap_err().to_string();
    assert!(error.contains("reading the dump failed"), "{error}");
    assert_eq!(databases(&server), "postgres shop");
    assert_eq!(server.sql("shop", "select total()"), "500500");
}

struct Broken(io::Error);

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other(self.0.to_string()))
    }
}

/// Does something when so much was read.
struct At<'a, F: FnMut()>(&'a [u8], usize, F);

impl<F: FnMut()> Read for At<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.len() < self.1 {
            self.1 = 0;
            (self.2)();
        }
        let length = buffer.len().min(16 << 10);
        self.0.read(&mut buffer[..length])
    }
}

#[test]
fn a_connection_that_is_cut_leaves_nothing() {
    let server = Postgres::start();
    server.pgbench_tables("shop", 5);
    let (_, dump) = dumped(&server, "shop");
    let terminate = |whose: &str| {
        let all = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'snapback'";
        server.sql("postgres", &format!("{all} and {whose}"));
    };
    for whose in ["datname ~ '_restoring_'", "true"] {
        let mut stream = At(&dump, dump.len() / 2, || terminate(whose));
        let error = back(&server, &mut stream, &options(None)).unwrap_err().to_string();
        assert!(error.contains("terminat") || error.contains("the client ended"), "{whose}: {error}");
        assert_eq!(databases(&server), "postgres shop", "{whose}");
    }
    let mut stream = At(&dump, dump.len() / 2, || terminate("datname !~ '_restoring_'"));
    let restored = back(&server, &mut stream, &options(None)).unwrap();
    assert_eq!(restored.kept.as_deref(), Some("shop_before_20260102T030405"), "only the session that waits was cut");
}

#[test]
fn a_server_whose_disk_is_full_goes_on_without_what_was_half_restored() {
    let server = Postgres::start();
    server.pgbench_tables("shop", 10);
    let (_, dump) = dumped(&server, "shop");
    drop(server);
    let disk = SmallDisk::new(220);
    let server =
        Postgres::start_in(Some(disk.0.path()), &["--wal-segsize=1"], "max_wal_size = 4MB\nmin_wal_size = 2MB");
    let started = server.process();
    let error = back(&server, &mut &dump[..], &options(None)).unwrap_err().to_string();
    assert!(error.contains("MB left, and the server needs them"), "{error}");
    assert_eq!(databases(&server), "postgres");
    assert_eq!(server.sql("postgres", "select 1"), "1");
    assert!(!server.log().contains("PANIC") && server.process() == started, "{}", server.log());
}

/// A disk in memory, of so many MB.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(megabytes: u32) -> SmallDisk {
        let place = tempfile::tempdir().unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"]).arg(place.path());
        assert!(mount.status().unwrap().success());
        SmallDisk(place)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = std::process::Command::new("umount").args(["-l"]).arg(self.0.path()).status();
        assert!(unmounted.unwrap().success() || std::thread::panicking());
    }
}

#[test]
fn what_a_killed_restore_left_is_dropped_by_the_next() {
    let (server, _, dump) = shop();
    let left = "create database shop_restoring_20250101t000000";
    let comment = "comment on database shop_restoring_20250101t000000 is 'Snapback: being restored'";
    server.sql("postgres", left);
    server.sql("postgres", comment);
    server.sql("postgres", "create database shop_restoring_20250101t000001");
    back(&server, &mut &dump[..], &options(None)).unwrap();
    let expected = "postgres shop shop_before_20260102T030405 shop_restoring_20250101t000001";
    assert_eq!(databases(&server), expected, "what is not ours stays");
}
