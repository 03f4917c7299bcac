//! `list PROJECT` and `catalog rebuild` with the real binary: a btrfs, two repositories, a catalog that suffers.
#![allow(missing_docs)]

mod environment;

use std::fs;
use std::path::PathBuf;

use environment::Run;
use environment::btrfs::Shop;

/// A project on a btrfs of its own, and a configuration with two repositories.
struct Site {
    shop: Shop,
}

impl Site {
    fn new() -> Site {
        let site = Site { shop: Shop::new() };
        site.shop.write("order", "first");
        fs::write(site.path("password"), "correct horse\n").unwrap();
        for repository in ["usb", "offsite"] {
            site.shop.run(["repo", "init", "-r", site.path(repository).to_str().unwrap()]).succeeds();
        }
        let (root, shop) = (site.path(""), site.shop.name());
        let root = root.display();
        let text = format!(
            r#"
repository.usb = {{ url = "{root}usb", password-file = "{root}password" }}
repository.offsite = {{ url = "{root}offsite", password-file = "{root}password" }}

[plan.nightly]
backup = {{ at = "02:30", to = ["usb", "offsite"] }}

[project.shop]
paths = ["{shop}"]
plans = ["nightly"]
snapshot = {{ keep-base = false }}
"#
        );
        fs::write(site.path("snapback.toml"), text).unwrap();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.shop.environment.path(name)
    }

    fn catalog(&self) -> PathBuf {
        self.path("state/catalog.sqlite")
    }

    fn run<const N: usize>(&self, arguments: [&str; N]) -> Run {
        let mut command = self.shop.environment.command();
        command.env_remove("SNAPBACK_REPOSITORY").env_remove("SNAPBACK_PASSWORD");
        command.env("SNAPBACK_CONFIG", self.path("snapback.toml")).args(arguments).output().unwrap().into()
    }

    /// Kind and repository of each point, newest first.
    fn points(&self, arguments: &[&str]) -> Vec<String> {
        let mut command = self.shop.environment.command();
        command.env("SNAPBACK_CONFIG", self.path("snapback.toml")).args(["list", "shop", "--json"]).args(arguments);
        let run: Run = command.output().unwrap().into();
        let document = run.succeeds().json()[0].clone();
        let points = document["points"].as_array().unwrap().iter();
        points.map(|point| format!("{} {}", point["kind"], point["repository"]).replace('"', "")).collect()
    }
}

const LINE: [&str; 3] = ["snapshot null", "backup offsite", "backup usb"];

fn busy() -> Site {
    let site = Site::new();
    site.run(["backup", "shop", "--to", "usb"]).succeeds();
    site.run(["backup", "shop", "--to", "offsite"]).succeeds();
    site.run(["snapshot", "create", "shop", "--note", "before the update"]).succeeds();
    site
}

#[test]
fn a_project_has_one_line_of_snapshots_and_backups() {
    let site = busy();
    assert_eq!(site.points(&[]), LINE);
    let table = site.run(["list", "shop"]).succeeds();
    let lines: Vec<&str> = table.stdout.lines().collect();
    assert!(lines[0].contains("Kind") && lines[0].contains("Verified"), "{table:?}");
    assert!(lines[1].contains("this disk") && lines[1].contains("before the update"), "{table:?}");
    assert!(lines[2].contains("offsite") && lines[2].contains(" no"), "{table:?}");
    assert_eq!(table.stderr, "1 snapshot, 2 backups\n");
    site.run(["list", "shpo"]).fails(2, ["there is no project \"shpo\"", "shop"]);
    site.run(["list", "shop", "--tag", "x"]).fails(2, ["--tag"]);
    site.run(["list", "--offline"]).fails(2, ["PROJECT"]);
}

#[test]
fn a_repository_that_is_away_is_shown_as_it_was_and_that_is_said() {
    let site = busy();
    fs::rename(site.path("offsite"), site.path("elsewhere")).unwrap();
    let away = site.run(["list", "shop"]).succeeds();
    assert!(away.stdout.contains("offsite"), "{away:?}");
    assert!(away.stderr.contains("repository offsite cannot be looked at"), "{away:?}");
    assert!(away.stderr.contains("are shown as of 20"), "{away:?}");
    assert_eq!(site.points(&["--offline"]), LINE);

    fs::remove_file(site.catalog()).unwrap();
    assert_eq!(site.points(&[]), ["snapshot null", "backup usb"]);
    let unknown = site.run(["list", "shop"]).succeeds();
    assert!(unknown.stderr.contains("nothing is known of what it has"), "{unknown:?}");
}

#[test]
fn a_catalog_that_is_damaged_or_of_a_newer_version_stops_nothing_and_is_said_once() {
    let site = busy();
    // What is in the log would mend it.
    fs::remove_file(site.path("state/catalog.sqlite-wal")).unwrap();
    fs::write(site.catalog(), "no database, and no catalog").unwrap();
    let told = site.run(["snapshot", "create", "shop"]).succeeds();
    assert_eq!(told.stderr.matches("the catalog was damaged").count(), 1, "{told:?}");
    assert_eq!(site.points(&[])[1..], LINE);

    let newer = "PRAGMA user_version = 99; PRAGMA wal_checkpoint(TRUNCATE)";
    rusqlite::Connection::open(site.catalog()).unwrap().execute_batch(newer).unwrap();
    let before = fs::read(site.catalog()).unwrap();
    let runs = [site.run(["backup", "shop"]), site.run(["snapshot", "create", "shop"]), site.run(["list", "shop"])];
    for run in runs {
        assert!(run.succeeds().stderr.contains("is of a newer version of snapback"));
    }
    site.run(["catalog", "rebuild"]).fails(1, ["newer version", "it is rebuilt"]);
    assert!(fs::read(site.catalog()).unwrap() == before, "not a byte is changed");
    assert_eq!(site.points(&[]).len(), 7, "a backup in each repository and a snapshot more");
}

#[test]
fn a_lost_catalog_is_rebuilt_and_a_repository_that_is_away_is_named() {
    let site = busy();
    fs::remove_file(site.catalog()).unwrap();
    let rebuilt = site.run(["catalog", "rebuild", "--json"]).succeeds().json()[0].clone();
    assert_eq!((&rebuilt["snapshots"], &rebuilt["repositories"][0]["backups"]), (&1.into(), &1.into()));
    assert_eq!(site.points(&["--offline"]), LINE);
    fs::rename(site.path("usb"), site.path("elsewhere")).unwrap();
    let partly = site.run(["catalog", "rebuild"]).fails(1, ["repository usb cannot be looked at", "stays"]);
    assert!(partly.stdout.contains("1 backup in offsite"), "{partly:?}");
    assert_eq!(site.points(&["--offline"]), LINE);
}
