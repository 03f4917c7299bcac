//! `snapback status`, of a real volume, a real repository, and a state directory.
#![allow(missing_docs)]

mod environment;

use std::fs;

use environment::btrfs::Shop;
use environment::{Environment, Run};

/// A volume with a subvolume `shop`, a repository on the disk below the volume's image, and both in a configuration.
fn shop() -> Shop {
    let shop = Shop::new();
    shop.run(["repo", "init"]).succeeds();
    configure(&shop.environment, &shop.name());
    shop
}

fn configure(environment: &Environment, path: &str) {
    let password = environment.path("password");
    fs::write(&password, "correct horse").unwrap();
    let text = format!(
        "[repository.local]\nurl = {:?}\npassword-file = {password:?}\n\
         [plan.nightly]\nbackup = {{ at = \"02:30\", to = [\"local\"] }}\nsnapshot = {{ every = \"4h\", keep = \"24h\" }}\n\
         [project.shop]\npaths = [{path:?}]\nplans = [\"nightly\"]\n",
        environment.path("repository"),
    );
    fs::write(environment.path("snapback.toml"), text).unwrap();
}

fn status(environment: &Environment, more: &[&str]) -> Run {
    environment.run([&["--config", "snapback.toml", "status"], more].concat())
}

#[test]
fn a_project_is_shown_with_its_nets_and_with_what_it_lacks() {
    let shop = shop();
    let run = status(&shop.environment, &[]);
    assert_eq!(run.code, 1, "{run:?}");
    for words in ["none kept", "no backup", "there is no backup yet", "snapback serve is not running"] {
        assert!(run.stdout.contains(words), "{words}: {}", run.stdout);
    }
    assert!(!run.stdout.contains('\x1b') && run.stderr.is_empty(), "{run:?}");
    shop.snapshot();
    let run = status(&shop.environment, &["shop", "--json"]);
    assert_eq!(run.code, 1, "{run:?}");
    let json = &run.json()[0];
    let project = &json["projects"][0];
    assert_eq!((json["is_well"].as_bool(), project["name"].as_str()), (Some(false), Some("shop")));
    assert_eq!(
        (project["snapshots"]["kept"].as_u64(), project["snapshots"]["mechanism"].as_str()),
        (Some(1), Some("btrfs"))
    );
    let answer = |what: &str| project["survives"][what]["answer"].as_str().unwrap().to_owned();
    assert_eq!([answer("bad-update"), answer("dead-disk")], ["yes", "no"]);
    // The volume is a file on the disk that the repository lies on.
    assert_eq!(project["backups"][0]["relation"]["nearness"], "same-disk");
    assert_eq!(project["next"].as_array().unwrap().len(), 2);
}

#[test]
fn a_repository_that_is_gone_lies_where_it_was_last_seen() {
    let shop = shop();
    status(&shop.environment, &[]);
    fs::rename(shop.environment.path("repository"), shop.environment.path("elsewhere")).unwrap();
    let run = status(&shop.environment, &["--json"]);
    let repository = &run.json()[0]["projects"][0]["backups"][0];
    assert!(repository["unreachable"]["reason"].as_str().unwrap().contains("does not exist"), "{repository}");
    assert_eq!(repository["relation"]["nearness"], "same-disk");
}

#[test]
fn without_a_configuration_or_with_an_unknown_project_the_way_out_is_told() {
    let environment = Environment::empty();
    assert_ne!(status(&environment, &[]).code, 0);
    configure(&environment, "/srv/shop");
    status(&environment, &["shob"]).fails(2, ["no project \"shob\"", "shop"]);
}

#[test]
fn a_catalog_that_is_damaged_is_said_and_the_rest_is_shown() {
    let shop = shop();
    fs::create_dir_all(shop.environment.path("state")).unwrap();
    fs::write(shop.environment.path("state/catalog.sqlite"), "no database at all, but long enough to be one").unwrap();
    let run = status(&shop.environment, &[]);
    assert!(run.stderr.contains("the catalog was damaged") && run.stdout.contains("shop"), "{run:?}");
}
