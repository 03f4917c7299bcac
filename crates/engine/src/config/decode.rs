//! From the text of a file to a [`Config`], or to all that is wrong with it.

use std::cell::RefCell;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use policy::{Keep, Span};
use toml_edit::Document;

use super::check::{Places, check};
use super::database::database;
use super::issue::{ConfigError, Issue, Place};
use super::keys::TOP;
use super::section::{Section, Source, absolute};
use super::value::Wrong;
use super::words::split_words;
use super::{
    BackupPlan, CheckPlan, Config, Hooks, PasswordSource, Plan, Project, Repository, SnapshotOptions, SnapshotPlan,
    Timing,
};

/// Below this a schedule would do nothing else.
const LEAST_EVERY: Duration = Duration::from_secs(60);
/// What no rule removes, unless a plan says otherwise.
const MIN_DEPTH: Span = Span { years: 0, months: 0, days: 7, hours: 0 };

impl Config {
    /// Reads the text of a configuration file. `home` is what `~/` stands for, `path` is for messages alone.
    ///
    /// # Errors
    /// Everything that does not fit, with its place and what would mend it.
    pub fn parse(path: &Path, text: &str, home: Option<&Path>) -> Result<Config, ConfigError> {
        let invalid = |issues| ConfigError::Invalid { path: path.to_owned(), issues };
        let document = Document::parse(text).map_err(|error| invalid(vec![syntax(path, text, &error)]))?;
        let source = Source { path, text, home, issues: RefCell::default(), warnings: RefCell::default() };
        let config = decode(&document, &source);
        let sorted = |issues: RefCell<Vec<Issue>>| {
            let mut issues = issues.into_inner();
            issues.sort_by_key(|issue| issue.place);
            issues
        };
        let issues = sorted(source.issues);
        if issues.is_empty() {
            Ok(Config { warnings: sorted(source.warnings), ..config })
        } else {
            Err(invalid(issues))
        }
    }

    /// Reads a configuration file; see [`Config::parse`].
    ///
    /// # Errors
    /// That there is none, that it cannot be read, or what does not fit.
    pub fn load(path: &Path, home: Option<&Path>) -> Result<Config, ConfigError> {
        let text = std::fs::read(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => ConfigError::Missing { path: path.to_owned() },
            _ => ConfigError::Unreadable { path: path.to_owned(), source },
        })?;
        let text = String::from_utf8(text).map_err(|error| {
            let valid = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]).into_owned();
            let issue = Issue {
                path: path.to_owned(),
                place: Some(Place::of(&valid, valid.len())),
                message: "here is a byte that is no UTF-8".to_owned(),
                fix: Some("save the file as UTF-8".to_owned()),
            };
            ConfigError::Invalid { path: path.to_owned(), issues: vec![issue] }
        })?;
        Self::parse(path, &text, home)
    }
}

/// What the parser says, which stops at the first.
fn syntax(path: &Path, text: &str, error: &toml_edit::TomlError) -> Issue {
    let message = error.message().lines().collect::<Vec<_>>().join("; ");
    let fix = if message.contains("duplicate key") {
        "write it once"
    } else {
        "see https://toml.io; texts stand in quotes, lists in [ ], tables in one line in { }"
    };
    Issue {
        path: path.to_owned(),
        place: error.span().map(|span| Place::of(text, span.start)),
        message,
        fix: Some(fix.to_owned()),
    }
}

fn decode(document: &Document<&str>, source: &Source<'_>) -> Config {
    let mut config = Config { path: source.path.to_owned(), ..Config::default() };
    let mut places = Places::default();
    let Some(top) = Section::open(source, document.as_item(), &TOP, String::new(), 0..0) else { return config };
    for (name, section) in top.named("repository") {
        let repository = repository(&name, &section, &mut places);
        config.repositories.insert(name, repository);
    }
    for (name, section) in top.named("plan") {
        let plan = plan(&name, &section, &mut places);
        config.plans.insert(name, plan);
    }
    for (name, section) in top.named("project") {
        let project = project(&name, &section, &mut places);
        config.projects.insert(name, project);
    }
    config.net_directory = top.table("net").and_then(|section| section.path("directory"));
    check(&config, &places, source);
    config
}

fn repository(name: &str, section: &Section<'_>, places: &mut Places) -> Repository {
    let url = section.text("url").map(|url| {
        places.urls.push((name.to_owned(), url.span.clone()));
        match location(&url.value, section.source.home) {
            Ok(url) => url,
            Err(wrong) => {
                section.source.wrong(&url.span, wrong);
                String::new()
            }
        }
    });
    Repository {
        name: name.to_owned(),
        url: url.unwrap_or_default(),
        password: password(name, section),
        limit_upload: section.rate("limit-upload"),
        limit_download: section.rate("limit-download"),
        low_priority: section.flag("low-priority", true),
        retries: section.count("retries", 3),
        append_only: section.flag("append-only", false),
        offline: section.flag("offline", false),
    }
}

/// A URL whose path, if it is one, is whole.
fn location(url: &str, home: Option<&Path>) -> Result<String, Wrong> {
    let path = match url.split_once(':') {
        Some(("local", path)) => path,
        Some((scheme, _)) if !scheme.contains('/') && !scheme.is_empty() => {
            let message = format!("url: repositories at {scheme}: are not supported yet");
            return Err(Wrong::new(message, "write a directory, such as \"/mnt/backup/repo\""));
        }
        _ => url,
    };
    absolute(path, home)
        .map(|path| path.to_string_lossy().into_owned())
        .map_err(|wrong| Wrong { message: format!("url: {}", wrong.message), fix: wrong.fix })
}

pub(crate) const PASSWORDS: [&str; 4] = ["password-file", "password-command", "password-env", "password-credential"];

fn password(name: &str, section: &Section<'_>) -> PasswordSource {
    let given: Vec<&str> = PASSWORDS.into_iter().filter(|key| section.has(key)).collect();
    match given[..] {
        // One that was written down in the file itself has been told of.
        [] if !section.has("password") => {
            let fix = format!(
                "add password-file = \"/etc/snapback/{name}.password\", or one of {}",
                PASSWORDS[1..].join(", ")
            );
            section.source.wrong(&section.span, Wrong::new(format!("repository.{name} has no password"), fix));
        }
        [] | [_] => {}
        [_, second, ..] => {
            let message = format!("repository.{name} has its password twice: {}", given.join(", "));
            section.source.wrong(&section.span_of(second), Wrong::new(message, "leave one of them"));
        }
    }
    // All are read, so that each is checked.
    let file = section.path("password-file").map(PasswordSource::File);
    let command = section.text("password-command").and_then(|text| match split_words(&text.value) {
        Some(words) if !words.is_empty() => Some(PasswordSource::Command(words)),
        _ => {
            section.source.wrong(&text.span, Wrong::new("password-command: a quote is not closed", "close it"));
            None
        }
    });
    let variable = section.text("password-env").map(|text| PasswordSource::Environment(text.value));
    let credential = section.text("password-credential").and_then(|text| {
        let is_name = !text.value.contains('/') && text.value != "." && text.value != "..";
        if !is_name {
            let fix = "write the credential's name; for a path there is password-file";
            section.source.wrong(&text.span, Wrong::new("password-credential: it has a / in it", fix));
        }
        is_name.then_some(PasswordSource::Credential(text.value))
    });
    file.or(command).or(variable).or(credential).unwrap_or(PasswordSource::File(PathBuf::new()))
}

fn plan(name: &str, section: &Section<'_>, places: &mut Places) -> Plan {
    places.plan_names.insert(name.to_owned(), section.span.clone());
    let backup = section.table("backup").map(|section| {
        let (timing, span) = timing(&section);
        let spread = section.duration("spread").unwrap_or_default();
        let period = match &timing {
            Timing::Every(every) => *every,
            Timing::At(_) => Duration::from_secs(86_400),
        };
        if spread >= period && !period.is_zero() {
            let message = "spread is as long as the time between two runs, or longer";
            section.source.wrong(&section.span_of("spread"), Wrong::new(message, "write a shorter one, such as 30m"));
        }
        let to = section.texts("to");
        places.to.extend(to.iter().map(|to| (to.value.clone(), to.span.clone())));
        places.backups.insert(name.to_owned(), span);
        BackupPlan {
            timing,
            spread,
            to: to.into_iter().map(|to| to.value).collect(),
            full_walk: section.count("full-walk", 7),
        }
    });
    let snapshot = section.table("snapshot").map(|section| {
        let (timing, _) = timing(&section);
        let keep = section.duration("keep").unwrap_or_default();
        if let Timing::Every(every) = timing
            && !keep.is_zero()
            && keep < every
        {
            let message = "snapshots go before the next one is taken";
            section.source.warn(&section.span_of("keep"), Wrong::new(message, "keep them for longer than `every`"));
        }
        if section.has("keep") && keep.is_zero() {
            let fix = "write how long they live, such as 24h";
            section.source.wrong(&section.span_of("keep"), Wrong::new("keep: snapshots would go at once", fix));
        }
        SnapshotPlan { timing, keep }
    });
    let check = section
        .table("check")
        .map(|section| CheckPlan { timing: timing(&section).0, read_data: section.percentage("read-data") });
    let noted = section.source.issues.borrow().len();
    let keep = section.table("keep").map(|section| {
        let keep = keep(&section);
        places.keeps.insert(name.to_owned(), section.span.clone());
        // Rules that could not be read have been told of.
        if keep.is_empty() && section.source.issues.borrow().len() == noted {
            let fix = "write what stays, such as keep = { daily = 14 }, or leave it out to keep all";
            section.source.wrong(&section.span, Wrong::new(format!("plan.{name}.keep has no rule"), fix));
        }
        keep
    });
    if check.is_some() {
        places.checks.insert(name.to_owned(), section.span_of("check"));
    }
    Plan {
        name: name.to_owned(),
        backup,
        snapshot,
        keep: keep.unwrap_or_default(),
        check,
        min_depth: section.span("min-depth").unwrap_or(MIN_DEPTH),
    }
}

/// Exactly one of `at` and `every`, and where it stands.
fn timing(section: &Section<'_>) -> (Timing, Range<usize>) {
    let stand_in = Timing::Every(Duration::ZERO);
    let (at, every) = (section.times("at"), section.duration("every"));
    match (section.has("at"), section.has("every")) {
        (true, true) => {
            let wrong = Wrong::new("at and every cannot both be", "leave one of them out");
            section.source.wrong(&section.span_of("every"), wrong);
            (stand_in, section.span_of("every"))
        }
        (false, false) => {
            let fix = "add at = \"02:30\", or every = \"6h\"";
            section.source.wrong(&section.span, Wrong::new("it is not said when", fix));
            (stand_in, section.span.clone())
        }
        (true, false) if at.is_empty() => {
            let span = section.span_of("at");
            if section.has_empty_list("at") {
                section.source.wrong(&span, Wrong::new("at has no time", "write one, such as at = \"02:30\""));
            }
            (stand_in, span)
        }
        (true, false) => (Timing::At(at), section.span_of("at")),
        (false, true) => {
            let span = section.span_of("every");
            if every.is_some_and(|every| every < LEAST_EVERY) {
                section.source.wrong(&span, Wrong::new("every is less than a minute", "write at least 1m"));
            }
            (Timing::Every(every.unwrap_or_default()), span)
        }
    }
}

fn keep(section: &Section<'_>) -> Keep {
    Keep {
        last: section.keep_count("last"),
        hourly: section.keep_count("hourly"),
        daily: section.keep_count("daily"),
        weekly: section.keep_count("weekly"),
        monthly: section.keep_count("monthly"),
        yearly: section.keep_count("yearly"),
        within: section.span("within"),
        within_hourly: section.span("within-hourly"),
        within_daily: section.span("within-daily"),
        within_weekly: section.span("within-weekly"),
        within_monthly: section.span("within-monthly"),
        within_yearly: section.span("within-yearly"),
        tags: section
            .texts("tag")
            .into_iter()
            .map(|text| text.value.split(',').map(|tag| tag.trim().to_owned()).collect())
            .collect(),
    }
}

fn project(name: &str, section: &Section<'_>, places: &mut Places) -> Project {
    let paths = section.paths("paths");
    places.paths.extend(paths.iter().map(|path| (name.to_owned(), path.value.clone(), path.span.clone())));
    let exclude = section.texts("exclude");
    for pattern in &exclude {
        if let Err(error) = backup::patterns::Patterns::new([pattern.value.as_str()]) {
            let fix = "write a path from / on, or a name with * and ?, such as \"*.tmp\"";
            section.source.wrong(&pattern.span, Wrong::new(format!("exclude: {error}"), fix));
        }
    }
    let units = section.texts("units");
    for unit in &units {
        if unit.value.contains(|letter: char| letter.is_whitespace() || letter == '/') || unit.value.starts_with('-') {
            let message = format!("units: {:?} is no name of a unit", unit.value);
            let fix = "write one unit in each pair of quotes, such as [\"shop.service\", \"php8.2-fpm.service\"]";
            section.source.wrong(&unit.span, Wrong::new(message, fix));
        }
    }
    let plans = section.texts("plans");
    places.plans.extend(plans.iter().map(|plan| (plan.value.clone(), plan.span.clone())));
    places.projects.insert(name.to_owned(), section.span.clone());
    let hooks = section
        .table("hooks")
        .map(|section| Hooks { before: section.commands("before"), after: section.commands("after") });
    let snapshot = section.table("snapshot").map(|section| SnapshotOptions {
        expire: section.duration("expire").unwrap_or(SnapshotOptions::default().expire),
        keep_base: section.flag("keep-base", true),
    });
    let databases = section.named("database");
    let databases = databases.iter().filter_map(|(database, section)| self::database(name, database, section, places));
    let strings = |list: Vec<super::section::Spanned<String>>| list.into_iter().map(|text| text.value).collect();
    Project {
        name: name.to_owned(),
        paths: paths.into_iter().map(|path| path.value).collect(),
        exclude: strings(exclude),
        one_file_system: section.flag("one-file-system", false),
        units: strings(units),
        probe: section.text("probe").map(|probe| probe.value),
        probe_limit: section.duration("probe-limit").unwrap_or(Duration::from_secs(30)),
        plans: strings(plans),
        hooks: hooks.unwrap_or_default(),
        snapshot: snapshot.unwrap_or_default(),
        databases: databases.map(|database| (database.name.clone(), database)).collect(),
    }
}
