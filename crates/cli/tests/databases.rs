//! Databases of a project, on a real server whose files lie on a real btrfs: held for a snapshot, proven on a clone of it,
//! dumped, and brought back. Needs root.
#![allow(missing_docs, clippy::print_stderr, clippy::disallowed_methods, reason = "what was measured is told")]

mod environment;
#[path = "../../workload/tests/servers/mariadb.rs"]
mod mariadb;
#[path = "../../workload/tests/servers/postgres.rs"]
mod postgres;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use environment::Run;
use environment::btrfs::Shop;
use mariadb::MariaDb;
use postgres::Postgres;
use serde_json::Value;

/// A shop with a server on its volume, of which one database is known to the configuration as `orders`.
struct Site<S> {
    server: S,
    shop: Shop,
}

impl Site<Postgres> {
    fn new(more: &str) -> Self {
        Site::on(|data| Postgres::start_in(Some(data), &[], ""), |server| server.url("orders"), more)
    }
}

impl<S> Site<S> {
    fn on(start: impl FnOnce(&Path) -> S, url: impl FnOnce(&S) -> String, more: &str) -> Self {
        let shop = Shop::new();
        // The server's user has to come by.
        fs::set_permissions(shop.environment.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        let server = start(&shop.directory().join("data"));
        let config = format!(
            "[repository.here]\nurl = \"{repository}\"\npassword-file = \"{password}\"\n\
             [plan.p]\nbackup = {{ at = \"02:30\", to = [\"here\"] }}\n\
             [project.shop]\npaths = [\"{shop}\"]\nplans = [\"p\"]\n\
             [project.shop.database.orders]\nurl = \"{url}\"\n{more}\n",
            repository = shop.environment.path("repository").display(),
            password = shop.environment.path("password").display(),
            shop = shop.name(),
            url = url(&server),
        );
        fs::write(shop.environment.path("password"), "correct horse\n").unwrap();
        fs::set_permissions(shop.environment.path("password"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(shop.environment.path("snapback.toml"), config).unwrap();
        Site { server, shop }
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let mut command = self.shop.environment.command();
        command.env_remove("SNAPBACK_REPOSITORY").env_remove("SNAPBACK_PASSWORD");
        command.env("SNAPBACK_CONFIG", self.shop.environment.path("snapback.toml"));
        command.args(arguments).output().unwrap().into()
    }

    /// Starts throw-away servers on clones of snapshots, two at once; gives how long the longest proof took, in seconds.
    fn prove(&self, ids: &[&str]) -> f64
    where
        S: Sync,
    {
        let prove = |id: &str| {
            let run = self.run(&["database", "verify", id, "--json"]);
            assert_eq!((run.code, &run.json()[0]["good"]), (0, &true.into()), "{id}: {run:?}");
            run.json()[0]["seconds"].as_f64().unwrap()
        };
        let (first, second) = ids.split_at(ids.len() / 2);
        let longest = std::thread::scope(|scope| {
            let halves =
                [first, second].map(|half| scope.spawn(move || half.iter().map(|id| prove(id)).fold(0.0, f64::max)));
            halves.map(|half| half.join().unwrap()).into_iter().fold(0.0, f64::max)
        });
        assert_eq!(
            self.shop.list().iter().filter(|snapshot| snapshot["purpose"] == "proof").count(),
            0,
            "clones are left"
        );
        longest
    }

    /// A snapshot of the project: its id, and what was done to the database.
    fn snapshot(&self) -> (String, Value) {
        let run = self.run(&["snapshot", "create", "shop", "--json"]).succeeds();
        let document = run.json()[0].clone();
        (document["id"].as_str().unwrap().to_owned(), document["databases"].clone())
    }
}

#[test]
fn a_snapshot_says_how_the_database_in_it_was_held() {
    let site = Site::new("");
    site.server.sql("postgres", "create database orders");
    let (_, around) = site.snapshot();
    let orders = &around["databases"][0];
    assert_eq!(
        (&orders["name"], &orders["how"], &orders["kind"], &orders["files"]["taken"]),
        (&"orders".into(), &"checkpoint".into(), &"postgres".into(), &"one-moment".into()),
        "{around}"
    );
    assert_eq!(orders["files"]["directory"], site.shop.directory().join("data").to_str().unwrap());
    let listed = site.run(&["snapshot", "list", "shop"]).succeeds();
    assert!(listed.stdout.contains("orders good"), "{}", listed.stdout);
    let told = site.run(&["snapshot", "create", "shop"]).succeeds();
    assert!(told.stderr.contains("writes stood still for at most"), "{}", told.stderr);
}

/// Whether pgbench's sums agree.
const SUMS: &str = "select sum(abalance) = (select sum(tbalance) from pgbench_tellers) \
                    and sum(abalance) = (select sum(bbalance) from pgbench_branches) \
                    and sum(abalance) = (select coalesce(sum(delta), 0) from pgbench_history) from pgbench_accounts";

/// Twenty snapshots while four clients write: each is started from and asked, and some are rolled back to.
#[test]
fn twenty_snapshots_in_a_row_under_load_all_start_and_their_sums_agree() {
    const GOAL_MS: u128 = 250;
    let mut site = Site::new(&format!("query = \"{SUMS}\""));
    site.server.pgbench_tables("orders", 1);
    let load = site.server.load("orders", 4);
    let snapshots: Vec<(String, Value)> = (0..20).map(|_| site.snapshot()).collect();
    let still = load.longest_stand_still();
    let told = snapshots.iter().map(|(_, around)| around["made_in_ms"].as_u64().unwrap()).max().unwrap();
    eprintln!(
        "PostgreSQL, 20 snapshots under 4 clients: no transaction ended for at most {still:?}; making one took at most {told} ms"
    );
    for (id, around) in &snapshots {
        assert_eq!(around["databases"][0]["how"], "checkpoint", "{id}: {around}");
    }
    let (rolled_back_to, started): (Vec<_>, Vec<_>) =
        snapshots.iter().map(|(id, _)| id.as_str()).enumerate().partition(|(number, _)| number % 7 == 6);
    let started: Vec<&str> = started.into_iter().map(|(_, id)| id).collect();
    eprintln!("a proof took at most {:.2} s", site.prove(&started));
    let newest = site.server.sql("orders", "select count(*) from pgbench_history").parse::<u64>().unwrap();
    let refused = site.run(&["rollback", rolled_back_to[0].1, "--yes"]);
    assert_eq!(refused.code, 1, "a running server would go on with the old files");
    assert!(refused.stderr.contains("the server of the database orders runs in the directory"), "{}", refused.stderr);
    for (_, id) in rolled_back_to.iter().rev() {
        site.server.stop();
        site.run(&["rollback", id, "--yes"]).succeeds();
        assert!(!site.server.data().join("postmaster.pid").exists(), "it was the old server's");
        site.server.run();
        assert_eq!(site.server.sql("orders", SUMS), "t", "{id}");
        assert!(site.server.sql("orders", "select count(*) from pgbench_history").parse::<u64>().unwrap() < newest);
    }
    assert!(still.as_millis() <= GOAL_MS, "writes stood still for {still:?}");
}

#[test]
fn a_proof_tells_what_is_broken_and_is_remembered() {
    let site = Site::new("query = \"select count(*) from customers\"");
    site.server.sql("postgres", "create database orders");
    site.server.sql("orders", "create table customers (id int primary key)");
    let (empty, _) = site.snapshot();
    site.server.sql("orders", "insert into customers select generate_series(1, 1000)");
    let (full, _) = site.snapshot();
    let run = site.run(&["database", "verify", &empty]);
    assert_eq!(run.code, 1, "{run:?}");
    let run = site.run(&["database", "verify", &full, "orders"]).succeeds();
    assert!(
        run.stdout.contains("orders: good: PostgreSQL") && run.stdout.contains("the query gave 1000"),
        "{}",
        run.stdout
    );
    let listed = site.run(&["database", "list", "shop"]).succeeds();
    assert!(listed.stdout.contains(&format!("snapshot {full}")), "{}", listed.stdout);
    let run = site.run(&["database", "verify", &full, "order"]);
    assert!(run.code == 1 && run.stderr.contains("orders"), "the nearest is suggested: {}", run.stderr);
    assert_eq!(site.server.sql("orders", "select count(*) from customers"), "1000", "production is as it was");
}

#[test]
fn a_dump_in_a_backup_is_listed_proven_printed_and_brought_back() {
    let site = Site::new("");
    site.server.sql("postgres", "create database orders");
    site.server.sql("orders", "create table customers as select generate_series(1, 1000) as id");
    site.run(&[
        "repo",
        "init",
        "-r",
        site.shop.environment.path("repository").to_str().unwrap(),
        "--password-file",
        site.shop.environment.path("password").to_str().unwrap(),
    ])
    .succeeds();
    site.run(&["backup", "shop"]).succeeds();
    let listed = site.run(&["database", "list", "--from", "latest"]).succeeds();
    assert!(listed.stdout.contains("PostgreSQL") && listed.stdout.contains("orders.pgdump"), "{}", listed.stdout);
    site.run(&["database", "verify", "latest"]).succeeds();
    let dump = site.run(&["database", "dump", "orders", "--from", "latest"]).succeeds();
    assert!(dump.bytes.starts_with(b"PGDMP"));
    let dump = site.run(&["database", "dump", "orders"]).succeeds();
    assert!(dump.bytes.starts_with(b"PGDMP"));

    site.server.sql("orders", "delete from customers");
    let asked = site.run(&["database", "restore", "latest", "orders"]);
    assert_eq!(asked.code, 2, "nobody said yes: {asked:?}");
    site.run(&["database", "restore", "latest", "orders", "--dry-run"]).succeeds();
    assert_eq!(site.server.sql("orders", "select count(*) from customers"), "0", "nothing was changed");
    site.run(&["database", "restore", "latest", "orders", "--as", "yesterday", "--yes"]).succeeds();
    assert_eq!(site.server.sql("yesterday", "select count(*) from customers"), "1000");
    assert_eq!(site.server.sql("orders", "select count(*) from customers"), "0");
    let run = site.run(&["database", "restore", "latest", "orders", "--yes"]).succeeds();
    assert_eq!(site.server.sql("orders", "select count(*) from customers"), "1000");
    assert!(run.stderr.contains("is kept as"), "{}", run.stderr);
}

/// The same of MariaDB.
#[test]
fn twenty_snapshots_of_mariadb_under_load_all_start_and_their_sums_agree() {
    const GOAL_MS: u128 = 500;
    const SUM: &str = "select sum(balance) = 0 and count(*) = 1000 from account";
    let more = format!("query = \"{SUM}\"");
    let mut site = Site::on(|data| MariaDb::start_in(Some(data), &[]), |server| server.url("bank"), &more);
    site.server.bank();
    let load = site.server.load(4);
    let snapshots: Vec<(String, Value)> = (0..20).map(|_| site.snapshot()).collect();
    let still = load.longest_stand_still();
    let held = snapshots.iter().map(|(_, around)| around["databases"][0]["stood_still_ms"].as_u64().unwrap()).max();
    eprintln!(
        "MariaDB, 20 snapshots under 4 clients: no transfer ended for at most {still:?}; held for at most {held:?} ms"
    );
    for (id, around) in &snapshots {
        assert_eq!(around["databases"][0]["how"], "backup-stage", "{id}: {around}");
    }
    let ids: Vec<&str> = snapshots.iter().map(|(id, _)| id.as_str()).collect();
    let (back, started) = ids.split_first().unwrap();
    eprintln!("a proof took at most {:.2} s", site.prove(started));
    let refused = site.run(&["rollback", back, "--yes"]);
    assert!(refused.code == 1 && refused.stderr.contains("runs in the directory"), "{refused:?}");
    site.server.stop();
    site.run(&["rollback", back, "--yes"]).succeeds();
    site.server.run();
    assert_eq!(site.server.sql(&format!("use bank; {SUM}")), "1");
    assert!(still.as_millis() <= GOAL_MS, "writes stood still for {still:?}");
}
