//! `backup PROJECT` and `snapshot create PROJECT` with the real binary on a real btrfs.
#![allow(missing_docs)]

mod environment;

use std::fs;
use std::process::{Child, Stdio};
use std::time::Duration;

use environment::Run;
use environment::btrfs::{Shop, run};

/// A project on a btrfs of its own, a configuration, and a repository beside it.
struct Site {
    shop: Shop,
}

impl Site {
    fn new() -> Site {
        let shop = Shop::new();
        run("btrfs", ["subvolume", "create", &format!("{}/db", shop.name())]);
        shop.write("db/table", "first");
        let site = Site { shop };
        fs::write(site.path("password"), "correct horse\n").unwrap();
        site.shop.run(["repo", "init"]).succeeds();
        site.configure("");
        site
    }

    fn path(&self, name: &str) -> String {
        self.shop.environment.path(name).to_str().unwrap().to_owned()
    }

    /// With more of the project's own.
    fn configure(&self, more: &str) {
        let (repository, password, shop) = (self.path("repository"), self.path("password"), self.shop.name());
        let text = format!(
            r#"
[repository.offsite]
url = "{repository}"
password-file = "{password}"

[repository.gone]
url = "{repository}-gone"
password-file = "{password}"

[plan.nightly]
backup = {{ at = "02:30", to = ["offsite"] }}
keep = {{ daily = 14 }}

[project.shop]
paths = ["{shop}"]
plans = ["nightly"]
{more}
"#
        );
        fs::write(self.path("snapback.toml"), text).unwrap();
    }

    fn run<const N: usize>(&self, arguments: [&str; N]) -> Run {
        let mut command = self.shop.environment.command();
        // The configuration says where the repository is, and where its password.
        command.env_remove("SNAPBACK_REPOSITORY").env_remove("SNAPBACK_PASSWORD");
        command.env("SNAPBACK_CONFIG", self.path("snapback.toml")).args(arguments).output().unwrap().into()
    }
}

#[test]
fn a_project_is_backed_up_by_its_name_and_the_second_time_only_what_changed_is_looked_at() {
    let site = Site::new();
    let first = site.run(["backup", "shop", "--json"]).succeeds();
    let first = first.json().as_array().unwrap().last().unwrap().clone();
    assert_eq!((&first["project"], &first["repository"]), (&"shop".into(), &"offsite".into()));
    assert_eq!((&first["live"], &first["total_files_processed"]), (&false.into(), &2.into()));
    site.shop.write("index", "two");
    let second = site.run(["backup", "shop", "--json"]).succeeds();
    let second = second.json().as_array().unwrap().last().unwrap().clone();
    assert_eq!((&second["full_walk"], &second["parent"]), (&serde_json::Value::Null, &first["id"]));
    let restored = site.path("restored");
    site.shop.run(["restore", "latest", "--to", &restored]).succeeds();
    let of = |name: &str| fs::read_to_string(format!("{restored}{}/{name}", site.shop.name())).unwrap();
    assert_eq!((of("index"), of("db/table")), ("two".to_owned(), "first".to_owned()));
    let full = site.run(["backup", "shop", "--full"]).succeeds();
    assert!(full.stdout.starts_with("shop → offsite: backup "), "{full:?}");
}

#[test]
fn a_backup_without_a_dump_is_incomplete_everywhere_and_its_dumps_do_not_go_into_the_root() {
    let site = Site::new();
    let nowhere = site.path("nowhere");
    site.configure(&format!("[project.shop.database.orders]\nurl = \"postgres:///orders?host={nowhere}\""));
    let run = site.run(["backup", "shop"]).fails(3, ["the backup is incomplete: no dump of orders: "]);
    assert!(run.stdout.contains("shop → offsite: backup "), "{run:?}");
    let listed = site.run(["list", "shop"]).succeeds();
    assert!(listed.stdout.contains("incomplete"), "{listed:?}");
    let status = site.run(["status", "shop"]);
    assert!(status.stdout.contains("the newest backup in offsite is incomplete: no dump of orders"), "{status:?}");
    let json = site.run(["backup", "shop", "--json"]);
    let last = json.stdout.lines().last().unwrap_or_default();
    assert!(last.contains(r#""missing_dumps":[{"database":"orders""#), "{json:?}");
    // Three files: two of the project, and the manifest.
    let count = |to: &str| {
        let run = site.shop.run(["restore", "latest", "--to", to, "--dry-run", "--json"]).succeeds();
        let summary = run.json().as_array().unwrap().last().unwrap().clone();
        summary["files_restored"].as_u64().unwrap() + summary["files_unchanged"].as_u64().unwrap()
    };
    assert_eq!((count("/"), count("/."), count(&site.path("elsewhere"))), (2, 2, 3));
}

#[test]
fn what_is_wrong_is_told_before_anything_is_begun() {
    let site = Site::new();
    site.run(["backup", "shpo"]).fails(2, ["there is no project \"shpo\"", "shop"]);
    site.run(["backup", "shop", "--to", "usb"]).fails(2, ["\"usb\"", "offsite"]);
    site.run(["backup", "shop", "--tag", "x"]).fails(2, ["--tag", "./shop"]);
    site.run(["backup", "/etc", "--full"]).fails(2, ["--full", "directory"]);
    site.run(["backup", "shop", "/etc"]).fails(2, ["a command each"]);
    site.run(["backup", "shop", "--to", "gone"]).fails(10, ["repository \"gone\"", "repo init"]);
    site.configure("hooks = { before = [\"echo no >&2; exit 4\"] }");
    site.run(["backup", "shop"]).fails(1, ["no\n", "ended with exit status: 4", "was not begun"]);
    assert!(site.shop.list().is_empty());
    // One that fails does not stop the other, and the exit code tells.
    site.configure("");
    let both = site.run(["backup", "shop", "--to", "gone", "--to", "offsite"]).fails(10, ["\"gone\""]);
    assert!(both.stdout.contains("shop → offsite"), "{both:?}");
}

#[test]
fn a_hook_hears_of_the_job_and_of_no_password() {
    let site = Site::new();
    let heard = site.path("heard");
    site.configure(&format!("hooks = {{ after = [\"env > {heard}\"] }}"));
    let mut command = site.shop.environment.command();
    command.env("SNAPBACK_CONFIG", site.path("snapback.toml")).args(["backup", "shop"]);
    Run::from(command.output().unwrap()).succeeds();
    let heard = fs::read_to_string(heard).unwrap();
    assert!(heard.contains("SNAPBACK_PROJECT=shop\n") && heard.contains("SNAPBACK_OUTCOME=succeeded\n"), "{heard}");
    assert!(!heard.contains("correct horse"), "{heard}");
}

#[test]
fn snapshots_of_a_project_are_taken_together() {
    let site = Site::new();
    let shop = site.shop.name();
    let uploads = site.shop.directory().with_file_name("uploads");
    run("btrfs", ["subvolume", "create", uploads.to_str().unwrap()]);
    let text = fs::read_to_string(site.path("snapback.toml")).unwrap();
    let both = text.replace(&format!("[\"{shop}\"]"), &format!("[\"{shop}\", \"{}\"]", uploads.display()));
    fs::write(site.path("snapback.toml"), both).unwrap();
    let made = site.run(["snapshot", "create", "shop", "--json", "--note", "before lunch"]).succeeds().json();
    assert_eq!((&made[0]["project"], &made[1]["note"]), (&"shop".into(), &"before lunch".into()));
    assert!(made[0]["group"].is_string() && made[0]["group"] == made[1]["group"], "{made}");
    assert_eq!(made[1]["directory"], uploads.to_str().unwrap());
}

#[test]
fn what_a_killed_backup_leaves_goes_with_the_next_one_which_is_whole() {
    let site = Site::new();
    let text = fs::read_to_string(site.path("snapback.toml")).unwrap();
    // It would take days.
    let slow = text.replacen("password-file", "limit-upload = \"10B/s\"\npassword-file", 1);
    fs::write(site.path("slow.toml"), slow).unwrap();
    let mut command = site.shop.environment.command();
    command.env("SNAPBACK_CONFIG", site.path("slow.toml")).args(["backup", "shop"]);
    let mut child = Killed(command.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
    let made = || site.shop.environment.path("state/snapshots").read_dir().is_ok_and(|entries| entries.count() == 2);
    while !made() {
        assert!(child.0.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(Duration::from_millis(10));
    }
    site.run(["backup", "shop"]).fails(11, ["a job of shop is under way: backup, process"]);
    child.0.kill().unwrap();
    child.0.wait().unwrap();
    let left: Vec<_> = site.shop.list().iter().map(|snapshot| snapshot["id"].clone()).collect();
    site.run(["backup", "shop"]).succeeds();
    let now = site.shop.list();
    assert_eq!(now.len(), 2, "{now:?}");
    assert!(now.iter().all(|snapshot| !left.contains(&snapshot["id"])), "{now:?}");
    site.shop.run(["repo", "check", "--read-data"]).succeeds();
}

/// Ends with the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
