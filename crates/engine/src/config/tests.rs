//! The configuration as a person writes it, and what is said where it does not fit.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::civil::time;
use policy::{Count, Keep, Span};

use super::keys::{Key, Kind, TOP};
use super::*;

const WHOLE: &str = r#"
[repository.offsite]
url = "/mnt/backup/repo"
password-file = "/etc/snapback/offsite.password"

[plan.nightly]                     # attached to projects by name
backup   = { at = "02:30", spread = "30m", to = ["offsite"] }
snapshot = { every = "4h", keep = "24h" }
keep     = { daily = 14, weekly = 8, monthly = 6 }
check    = { every = "7d", read-data = "10%" }

[project.shop]
paths   = ["/srv/shop"]
exclude = ["cache/", "*.tmp"]
units   = ["shop.service"]         # stopped and started around a rollback
probe   = "curl -fsS http://localhost:8080/health"
plans   = ["nightly"]
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("/etc/snapback.toml"), text, Some(Path::new("/home/me")))
}

/// `LINE:COLUMN MESSAGE | FIX`, one a line.
fn issues(text: &str) -> Vec<String> {
    match parse(text) {
        Err(ConfigError::Invalid { issues, .. }) => issues.iter().map(told).collect(),
        other => panic!("{other:?}"),
    }
}

fn warnings(text: &str) -> Vec<String> {
    parse(text).unwrap().warnings.iter().map(told).collect()
}

fn told(issue: &Issue) -> String {
    let place = issue.place.unwrap();
    format!("{}:{} {} | {}", place.line, place.column, issue.message, issue.fix.as_deref().unwrap())
}

/// What is said of one line of a plan that is otherwise fine.
fn of_plan(line: &str) -> Vec<String> {
    issues(&WHOLE.replace("keep     = { daily = 14, weekly = 8, monthly = 6 }", line))
}

#[test]
fn a_whole_file_is_read() {
    let config = parse(WHOLE).unwrap();
    assert_eq!(config.warnings, []);
    let repository = &config.repositories["offsite"];
    assert_eq!(repository.url, "/mnt/backup/repo");
    assert_eq!(repository.password, PasswordSource::File("/etc/snapback/offsite.password".into()));
    assert_eq!((repository.low_priority, repository.retries, repository.limit_upload), (true, 3, None));

    let plan = &config.plans["nightly"];
    let backup = plan.backup.as_ref().unwrap();
    let Timing::At(at) = &backup.timing else { panic!("{backup:?}") };
    assert_eq!((at.len(), at[0].days.len(), at[0].time), (1, 7, time(2, 30, 0, 0)));
    assert_eq!((backup.spread, &*backup.to), (Duration::from_secs(1800), &["offsite".to_owned()][..]));
    let four_hours = Timing::Every(Duration::from_secs(4 * 3600));
    assert_eq!(plan.snapshot, Some(SnapshotPlan { timing: four_hours, keep: Duration::from_secs(86_400) }));
    let count = |number| Some(Count::AtMost(number));
    assert_eq!(plan.keep, Keep { daily: count(14), weekly: count(8), monthly: count(6), ..Keep::default() });
    assert_eq!(plan.check.as_ref().unwrap().read_data.unwrap().percent(), 10.0);
    assert_eq!(plan.min_depth, Span { days: 7, ..Span::default() });

    let project = &config.projects["shop"];
    assert_eq!(project.paths, [PathBuf::from("/srv/shop")]);
    assert_eq!(
        (&*project.exclude, &*project.units),
        (&["cache/".into(), "*.tmp".into()][..], &["shop.service".into()][..])
    );
    assert_eq!(project.probe.as_deref(), Some("curl -fsS http://localhost:8080/health"));
    assert_eq!(project.snapshot.expire, Duration::from_secs(4 * 3600));
    assert_eq!(project.plans, ["nightly"]);
}

#[test]
fn an_empty_file_is_a_configuration_of_nothing() {
    assert_eq!(parse("# nothing yet\n").unwrap().projects.len(), 0);
}

#[test]
fn all_that_is_wrong_is_told_at_once_with_its_place_and_the_fix() {
    let text = r#"
[repository.offsite]
url = "backup/repo"
pasword-file = "/etc/snapback/offsite.password"

[plan.nightly]
backup = { at = "25:30", to = ["ofsite"] }
keep = { dayly = 14 }

[project.shop]
path = ["/srv/shop"]
plans = ["nigthly"]
"#;
    let expected = [
        r#"2:13 repository.offsite has no password | add password-file = "/etc/snapback/offsite.password", or one of password-command, password-env, password-credential"#,
        r#"3:7 url: "backup/repo" does not begin with / | write the whole path, such as "/srv/backup/repo""#,
        r#"4:1 repository.offsite has no key "pasword-file" | write password-file"#,
        r#"7:17 at: "25:30" is no time of day | write a time such as 02:30, or days before it, such as "sun 04:00" or "mon-fri 22:15""#,
        r#"7:32 there is no repository "ofsite" | write "offsite""#,
        r#"8:10 plan.nightly.keep has no key "dayly" | write daily"#,
        r#"10:10 project.shop has no paths | add paths = ["/srv/shop"]"#,
        r#"11:1 project.shop has no key "path" | write paths"#,
        r#"12:10 there is no plan "nigthly" | write "nightly""#,
    ];
    assert_eq!(issues(text), expected);
}

#[test]
fn what_is_no_toml_is_told_with_its_place() {
    for (text, place) in [("[project.shop\n", "1:14"), ("a = 1\na = 2\n", "2:1"), ("x = yes\n", "1:5")] {
        let told = issues(text);
        assert!(told.len() == 1 && told[0].starts_with(place), "{text:?}: {told:?}");
    }
}

#[test]
fn a_key_of_another_table_is_sent_home() {
    let told = issues(&WHOLE.replace("plans   = ", "retries = 3\nplans   = "));
    assert_eq!(told, [r#"17:1 project.shop has no key "retries" | it belongs to [repository.NAME]"#]);
    let told = issues("[projects.shop]\npaths = [\"/srv\"]\n");
    assert_eq!(told, [r#"1:2 the file has no key "projects" | write project"#]);
    let told = issues("[project]\npaths = [\"/srv\"]\n");
    assert_eq!(
        told,
        ["2:1 paths stands in [project], which has no name | write [project.NAME] above it, with a name of yours"]
    );
}

#[test]
fn a_password_in_the_file_is_refused_and_not_repeated() {
    let told = issues("[repository.a]\nurl = \"/r\"\npassword = \"hunter2\"\n");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("3:1 a password does not belong into this file"), "{told:?}");
    assert!(!told[0].contains("hunter2"));
}

#[test]
fn values_with_wrong_units_say_how_they_are_written() {
    let starts = |line: &str, start: &str| {
        let told = of_plan(line);
        assert!(told.len() == 1 && told[0].starts_with(start), "{line}: {told:?}");
    };
    starts(
        "min-depth = \"7\"",
        "9:13 min-depth: duration \"7\": expected y, m, d or h after 7 | write numbers and h, d",
    );
    starts(
        "min-depth = 7",
        "9:13 min-depth is a number, and should be a duration in quotes | such as min-depth = \"14d\"",
    );
    starts("keep = { daily = \"14\" }", "9:18 daily cannot be \"14\" | write a number without quotes");
    starts("keep = { daily = -1 }", "9:18 daily cannot be -1 | write a number");
    starts("keep = { within = \"1w\" }", "9:19 within: duration \"1w\": expected y, m, d or h after 1 |");
    starts("keep = { daily = 0 }", "9:1 plan.nightly.keep has no rule |");
    starts("keep = 14", "9:8 keep is a number, and should be a table | such as keep = { daily = 14,");
    let snapshot = |value: &str| issues(&WHOLE.replace("{ every = \"4h\", keep = \"24h\" }", value));
    assert!(
        snapshot("{ every = \"4\", keep = \"24h\" }")[0]
            .starts_with("8:22 every: \"4\" has no unit | write a number and")
    );
    assert!(snapshot("{ every = \"30s\", keep = \"24h\" }")[0].starts_with("8:14 every is less than a minute |"));
    assert!(snapshot("{ keep = \"24h\" }")[0].starts_with("8:1 it is not said when | add at = "));
    assert!(snapshot("{ at = [], keep = \"24h\" }")[0].starts_with("8:14 at has no time |"));
    assert!(snapshot("{ at = \"1:00\", every = \"4h\", keep = \"24h\" }")[0].contains("at and every cannot both be"));
    assert!(snapshot("{ every = \"4h\", keep = \"0s\" }")[0].contains("snapshots would go at once"));
}

#[test]
fn two_projects_over_one_path_are_refused() {
    let text = format!("{WHOLE}\n[project.other]\npaths = [\"/srv/x\", \"/srv/./shop/\"]\nplans = [\"nightly\"]\n");
    let told = issues(&text);
    let expected = "20:20 /srv/shop belongs to the projects shop and other | leave it in one of them; several plans can \
                    be in one project: plans = [...] of shop";
    assert_eq!(told, [expected]);
}

#[test]
fn what_was_hardly_meant_is_a_warning() {
    let text = format!("{WHOLE}\n[plan.idle]\n[project.root]\npaths = [\"/\"]\n");
    let text = text.replace("keep = \"24h\"", "keep = \"1h\"");
    let told = warnings(&text);
    let expected = [
        "3:7 the repository offsite lies in the project root, and is lost with it",
        "8:28 snapshots go before the next one is taken",
        "19:7 the plan idle does nothing",
        "19:7 no project has the plan idle",
        "20:10 the project root has no plan: nothing is done by the clock",
        "20:10 the project root takes in /proc and /sys, which are no files",
    ];
    assert_eq!(told.iter().map(|told| told.split(" | ").next().unwrap()).collect::<Vec<_>>(), expected);
}

#[test]
fn tildes_stand_for_the_home_of_whoever_reads() {
    let text = WHOLE.replace("\"/srv/shop\"", "\"~/www\"").replace("/etc/snapback/", "~/.config/snapback/");
    let config = parse(&text).unwrap();
    assert_eq!(config.projects["shop"].paths, [PathBuf::from("/home/me/www")]);
    let file = "/home/me/.config/snapback/offsite.password".into();
    assert_eq!(config.repositories["offsite"].password, PasswordSource::File(file));
}

#[test]
fn names_are_fit_for_files_and_tags() {
    for name in ["a b", "-x", "ä", "a/b", "latest", ""] {
        let told = issues(&WHOLE.replace("project.shop", &format!("project.{name:?}")));
        assert!(told[0].contains("cannot be the name of a project"), "{name}: {told:?}");
    }
}

#[test]
fn passwords_come_from_one_place() {
    let with = |line: &str| parse(&WHOLE.replace("password-file = \"/etc/snapback/offsite.password\"", line));
    let source = |line: &str| with(line).unwrap().repositories["offsite"].password.clone();
    let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    assert_eq!(source("password-command = \"pass 'a b'\""), PasswordSource::Command(words(&["pass", "a b"])));
    assert_eq!(source("password-env = \"PW\""), PasswordSource::Environment("PW".into()));
    assert_eq!(source("password-credential = \"offsite\""), PasswordSource::Credential("offsite".into()));
    let errors = [
        "password-command = \"pass 'a\"",
        "password-credential = \"../x\"",
        "password-env = \"A\"\npassword-file = \"/p\"",
    ];
    for line in errors {
        assert!(with(line).is_err(), "{line}");
    }
}

/// What is said of a database whose table has these lines.
fn of_database(lines: &str) -> Vec<String> {
    issues(&format!("{WHOLE}[project.shop.database.orders]\n{lines}\n"))
}

#[test]
fn databases_are_read_with_what_goes_without_saying() {
    let text = format!(
        "{WHOLE}[project.shop.database.orders]\nurl = \"postgres://shop@db:5433/orders\"\npassword-file = \"~/p\"\n\
         query = \"SELECT 1\"\n[project.shop.database.everything]\nurl = \"mysql:///\"\nall = true\n\
         [project.shop.database.app]\nurl = \"sqlite:/srv/./shop/app.db\"\ndump = false\n"
    );
    let config = parse(&text).unwrap();
    assert_eq!(config.warnings, []);
    let databases = &config.projects["shop"].databases;
    let orders = &databases["orders"];
    assert_eq!(orders.login.address.to_string(), "postgres://shop@db:5433/orders");
    assert_eq!(orders.login.password_file, Some("/home/me/p".into()));
    assert_eq!(
        (orders.dump, orders.all, orders.quiesce, orders.query.as_deref()),
        (true, false, true, Some("SELECT 1"))
    );
    assert!(databases["everything"].all && databases["everything"].login.address.database().is_none());
    assert_eq!(databases["app"].login.address, workload::address::Address::Sqlite("/srv/shop/app.db".into()));
    assert!(!databases["app"].dump);
}

#[test]
fn a_database_that_makes_no_sense_is_told_of_with_the_way_out() {
    let first = |lines: &str, start: &str| {
        let told = of_database(lines);
        assert!(told.len() == 1 && told[0].starts_with(start), "{lines}: {told:?}");
    };
    first("dump = true", "18:24 project.shop.database.orders has no url | add url = \"postgres:///orders\"");
    first(
        "url = \"oracle:///x\"",
        "19:7 url: \"oracle:///x\" is not the address of a database | known are postgres://, mysql://,",
    );
    first("url = \"postgres:///\"", "19:7 url: it names no database | write \"postgres:///NAME\" with your database's");
    first("url = \"mysql:///shop\"\nall = true", "20:1 all: the url names one database, shop | leave the name out");
    first("url = \"mysql:///\"\nall = true\nquery = \"SELECT 1\"", "21:1 query: it is asked of one database, and");
    first(
        "url = \"sqlite:app.db\"",
        "19:7 url: \"sqlite:app.db\" is not the address of a database | after sqlite: comes",
    );
    first("url = \"sqlite:/srv/../a\"", "19:7 url: \"/srv/../a\" has .. in it | write the path");
    first("url = \"sqlite:/srv/a\"\nall = true", "20:1 all: a file of SQLite is one database | leave it out");
    first("url = \"sqlite:/srv/a\"\npassword-file = \"/p\"", "20:1 password-file: SQLite knows no passwords |");
    first(
        "url = \"mysql:///shop\"\nqery = \"SELECT 1\"",
        "20:1 project.shop.database.orders has no key \"qery\" | write query",
    );
    for lines in ["url = \"postgres://me:hunter2@h/x\"", "url = \"postgres:///x\"\npassword = \"hunter2\""] {
        let told = of_database(lines);
        assert!(
            told.len() == 1 && told[0].contains("password does not belong into") && !told[0].contains("hunter2"),
            "{told:?}"
        );
    }
    let told = issues(&format!("{WHOLE}[project.shop.database]\nurl = \"postgres:///x\"\n"));
    let fix = "write [project.shop.database.NAME] above it, with a name of yours";
    assert_eq!(told, [format!("19:1 url stands in [project.shop.database], which has no name | {fix}")]);
    let told = issues(&format!("{WHOLE}database = \"orders\"\n"));
    let fix = "write [project.shop.database.orders] and its keys below it";
    assert_eq!(told, [format!("18:12 database is a text, and should be a table | {fix}")]);
}

#[test]
fn databases_that_are_dumped_twice_or_for_nothing_are_a_warning() {
    let table = |name: &str, lines: &str| format!("[project.shop.database.{name}]\nurl = \"mysql:///x\"\n{lines}");
    let told = warnings(&format!("{WHOLE}{}{}", table("a", ""), table("b", "")));
    let fix = "leave one of them out, or add dump = false to it";
    assert_eq!(told, [format!("21:1 the databases a and b of the project shop are the same | {fix}")]);
    let told = warnings(&format!("{WHOLE}{}", table("a", "dump = false\nquiesce = false\n")));
    assert!(told.len() == 1 && told[0].starts_with("18:24 nothing is done with the database a |"), "{told:?}");
}

/// Every table with all of its keys, as the examples have them, except `left_out`.
fn example(keys: &'static [Key], left_out: &[&str], replaced: Option<(&str, &str)>) -> String {
    let mut text = String::new();
    // Of a server all of whose databases are meant, the address names none.
    let is_all = !left_out.contains(&"all") && replaced != Some(("all", "false"));
    for key in keys.iter().filter(|key| !left_out.contains(&key.name)) {
        let example = match key.kind {
            Kind::Named(_) => "{ orders = { url = \"postgres:///orders\" } }",
            _ if std::ptr::eq(keys, &super::keys::DATABASE) && key.name == "url" && is_all => "\"postgres:///\"",
            _ => key.example,
        };
        let value = replaced.filter(|(name, _)| *name == key.name).map_or(example, |(_, value)| value);
        text.push_str(&format!("{} = {value}\n", key.name));
    }
    text
}

/// A file in which one table has all of its keys.
fn file(place: &str, table: &str) -> String {
    let inline = |text: &str| format!("{{ {} }}", text.trim().replace('\n', ", "));
    let of = |name: &str, usual: &str| if place == name { table.to_owned() } else { usual.to_owned() };
    let nested = |name: &str, usual: &str| if place == name { inline(table) } else { usual.to_owned() };
    let plan = of(
        "plan",
        &format!(
            "backup = {}\nsnapshot = {}\nkeep = {}\ncheck = {}\n",
            nested("backup", "{ at = \"2:30\", to = [\"offsite\"] }"),
            nested("plan.snapshot", "{ every = \"4h\", keep = \"24h\" }"),
            nested("keep", "{ daily = 14 }"),
            nested("check", "{ every = \"7d\" }"),
        ),
    );
    let project = of(
        "project",
        &format!(
            "paths = [\"/srv/shop\"]\nplans = [\"nightly\"]\nhooks = {}\nsnapshot = {}\ndatabase = {{ orders = {} }}\n",
            nested("hooks", "{}"),
            nested("project.snapshot", "{}"),
            nested("database", "{ url = \"postgres:///orders\" }"),
        ),
    );
    let repository = of("repository", "url = \"/r\"\npassword-env = \"P\"\n");
    let net = of("net", "");
    format!("[repository.offsite]\n{repository}[plan.nightly]\n{plan}[project.shop]\n{project}[net]\n{net}")
}

/// A table's place, its keys, and for each of its alternatives the keys to leave out.
type Table = (&'static str, &'static [Key], Vec<Vec<&'static str>>);

fn tables() -> Vec<Table> {
    use super::keys::{BACKUP, CHECK, DATABASE, HOOKS, KEEP, NET, PLAN, PLAN_SNAPSHOT, PROJECT, REPOSITORY, SNAPSHOT};
    let timing = || vec![vec!["at"], vec!["every"]];
    let passwords = super::decode::PASSWORDS;
    let but = |kept: &str| passwords.into_iter().filter(|name| *name != kept).collect::<Vec<_>>();
    vec![
        ("repository", &REPOSITORY, passwords.into_iter().map(but).collect()),
        ("plan", &PLAN, vec![vec![]]),
        ("backup", &BACKUP, timing()),
        ("plan.snapshot", &PLAN_SNAPSHOT, timing()),
        ("keep", &KEEP, vec![vec![]]),
        ("check", &CHECK, timing()),
        ("net", &NET, vec![vec![]]),
        ("project", &PROJECT, vec![vec![]]),
        ("hooks", &HOOKS, vec![vec![]]),
        ("project.snapshot", &SNAPSHOT, vec![vec![]]),
        ("database", &DATABASE, vec![vec!["all"], vec!["query"]]),
    ]
}

#[test]
fn every_declared_key_is_read() {
    for (place, keys, alternatives) in tables() {
        for left_out in &alternatives {
            let text = file(place, &example(keys, left_out, None));
            parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        }
        for key in keys {
            let left_out = alternatives.iter().find(|left_out| !left_out.contains(&key.name)).unwrap();
            // No key takes a date.
            let text = file(place, &example(keys, left_out, Some((key.name, "1979-05-27"))));
            let told = issues(&text);
            let start = format!("{} is a time without quotes", key.name);
            assert!(told.iter().any(|told| told.contains(&start)), "{place}.{}: {told:?}", key.name);
        }
    }
}

#[test]
fn every_default_is_a_value_of_its_key() {
    for (place, keys, alternatives) in tables() {
        for key in keys.iter().filter(|key| !key.default.is_empty()) {
            let left_out = alternatives.iter().find(|left_out| !left_out.contains(&key.name)).unwrap();
            let text = |value| file(place, &example(keys, left_out, Some((key.name, value))));
            let without = file(place, &example(keys, &[&left_out[..], &[key.name]].concat(), None));
            assert_eq!(parse(&text(key.default)).unwrap(), parse(&without).unwrap(), "{place}.{}", key.name);
            assert_ne!(parse(&text(key.example)).unwrap(), parse(&without).unwrap(), "{place}.{}", key.name);
        }
    }
}

#[test]
fn the_schema_knows_the_keys_that_the_reader_knows() {
    fn compare(keys: &[Key], schema: &serde_json::Value) {
        let properties = schema["properties"].as_object().unwrap();
        let names: std::collections::BTreeSet<&str> = keys.iter().map(|key| key.name).collect();
        assert_eq!(properties.keys().map(String::as_str).collect::<std::collections::BTreeSet<_>>(), names);
        for key in keys {
            match key.kind {
                Kind::Table(keys) => compare(keys, &properties[key.name]),
                Kind::Named(keys) => compare(keys, &properties[key.name]["additionalProperties"]),
                _ => assert!(properties[key.name]["examples"].is_array(), "{}", key.name),
            }
        }
    }
    compare(&TOP, &schema());
}
