//! What is added to the text of a configuration so that a directory is protected. A pure function of the text.

use std::path::{Path, PathBuf};

use toml_edit::{Array, DocumentMut, Item, Value};
use workload::address::Address;

use super::{ProtectError, project_of};
use crate::config::{Config, Project};

/// What shall be protected, and what to take where the configuration says nothing.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// Absolute, without symbolic links.
    pub directory: &'a Path,
    /// The project's name; nothing for the directory's.
    pub name: Option<&'a str>,
    /// Where backups go if there is no plan yet that says so, or if `is_chosen`.
    pub repository: NewRepository,
    /// Somebody named the repository.
    pub is_chosen: bool,
    /// What the project has besides, if it is new.
    pub databases: &'a [NewDatabase],
}

/// A database that was found and could be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDatabase {
    /// Such as `app`; with a number behind it if it is taken.
    pub name: String,
    /// Where.
    pub address: Address,
    /// Every one of the server.
    pub all: bool,
}

/// A repository that may have to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRepository {
    /// A directory.
    pub url: String,
    /// Where its password is, or will be.
    pub password_file: PathBuf,
}

/// The configuration as it shall be.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// Its text; the very same if nothing is to be added.
    pub text: String,
    /// What it says.
    pub config: Config,
    /// The project's name.
    pub project: String,
    /// The tables that were added, and those to which something was: `project.shop`.
    pub added: Vec<String>,
    /// The repository that was added.
    pub repository: Option<NewRepository>,
}

/// What the text becomes.
///
/// # Errors
/// If the text makes no sense, before or after, or if a name is taken.
pub fn plan(path: &Path, text: &str, home: Option<&Path>, wanted: &Wanted<'_>) -> Result<Planned, ProtectError> {
    let config = Config::parse(path, text, home)?;
    let mut adding = Adding { config: &config, wanted, blocks: String::new(), added: Vec::new(), repository: None };
    let found = project_of(&config, wanted.directory);
    let has_backup = |project: &Project| {
        let plans = project.plans.iter().filter_map(|plan| config.plans.get(plan));
        plans.filter_map(|plan| plan.backup.as_ref()).any(|backup| !backup.to.is_empty())
    };
    let mut edited = text.to_owned();
    let project = match found {
        Some(project) if has_backup(project) => project.name.clone(),
        Some(project) => {
            let plan = adding.plan()?;
            edited = with_plan(path, &edited, &project.name, &plan)?;
            adding.added.push(format!("project.{}", project.name));
            project.name.clone()
        }
        None => {
            let plan = adding.plan()?;
            adding.project(&plan)?
        }
    };
    let Adding { blocks, added, repository, .. } = adding;
    if !blocks.is_empty() {
        if !edited.is_empty() {
            edited.push_str(if edited.ends_with('\n') { "\n" } else { "\n\n" });
        }
        edited.push_str(&blocks);
    }
    // Whatever was added must be read as it was meant.
    let config = Config::parse(path, &edited, home)?;
    Ok(Planned { text: edited, config, project, added, repository })
}

struct Adding<'a> {
    config: &'a Config,
    wanted: &'a Wanted<'a>,
    blocks: String,
    added: Vec<String>,
    repository: Option<NewRepository>,
}

impl Adding<'_> {
    fn block(&mut self, name: String, lines: &[String]) {
        if !self.blocks.is_empty() {
            self.blocks.push('\n');
        }
        self.blocks.push_str(&format!("[{name}]\n{}\n", lines.join("\n")));
        self.added.push(name);
    }

    /// A plan that backs up to where it shall be.
    fn plan(&mut self) -> Result<String, ProtectError> {
        let wanted = self.wanted;
        let known = self.config.repositories.values().find(|known| known.url == wanted.repository.url);
        let goes_there = |to: &[String]| match (wanted.is_chosen, known) {
            (false, _) => true,
            (true, Some(known)) => to.contains(&known.name),
            (true, None) => false,
        };
        let fits = |plan: &&crate::config::Plan| plan.backup.as_ref().is_some_and(|backup| goes_there(&backup.to));
        let nightly = self.config.plans.get("nightly").filter(fits);
        if let Some(plan) = nightly.or_else(|| self.config.plans.values().find(fits)) {
            return Ok(plan.name.clone());
        }
        let repository = match (known, self.config.repositories.values().next()) {
            (Some(known), _) => known.name.clone(),
            (None, Some(first)) if !wanted.is_chosen => first.name.clone(),
            _ => self.repository()?,
        };
        let name = free("nightly", |name| self.config.plans.contains_key(name));
        let lines = [
            format!("backup = {{ at = \"02:30\", spread = \"30m\", to = [{}] }}", quoted(&repository)),
            "keep   = { daily = 14, weekly = 8, monthly = 6 }".to_owned(),
            "check  = { every = \"7d\", read-data = \"10%\" }".to_owned(),
        ];
        self.block(format!("plan.{name}"), &lines);
        Ok(name)
    }

    fn repository(&mut self) -> Result<String, ProtectError> {
        let new = &self.wanted.repository;
        let password_file = text_of(&new.password_file)?;
        let base = if self.wanted.is_chosen { last_name(Path::new(&new.url)) } else { "local".to_owned() };
        let name = free(&base, |name| self.config.repositories.contains_key(name));
        let lines = [format!("url = {}", quoted(&new.url)), format!("password-file = {}", quoted(password_file))];
        self.repository = Some(new.clone());
        self.block(format!("repository.{name}"), &lines);
        Ok(name)
    }

    fn project(&mut self, plan: &str) -> Result<String, ProtectError> {
        let directory = self.wanted.directory;
        let is_taken = |name: &str| self.config.projects.contains_key(name);
        let name = match self.wanted.name {
            Some(name) => match self.config.projects.get(name) {
                Some(taken) => {
                    let paths: Vec<String> = taken.paths.iter().map(|path| path.display().to_string()).collect();
                    let reason = format!("the project {name} is there already, over {}", paths.join(", "));
                    return Err(ProtectError::refused(reason, "give another --name"));
                }
                None => name.to_owned(),
            },
            None => free(&last_name(directory), is_taken),
        };
        let mut lines = vec![format!("paths = [{}]", quoted(text_of(directory)?))];
        if directory == Path::new("/") {
            let names = ["/mnt/*", "/media/*", "/tmp/*", "/var/tmp/*", "/var/cache/", "lost+found/"];
            lines.push(format!("exclude = [{}]", names.map(quoted).join(", ")));
        }
        lines.push(format!("plans = [{}]", quoted(plan)));
        self.block(format!("project.{name}"), &lines);
        let mut names: Vec<String> = Vec::new();
        for database in self.wanted.databases {
            let free = free(&database.name, |name| names.iter().any(|taken| taken == name));
            let mut lines = vec![format!("url = {}", quoted(&database.address.to_string()))];
            if database.all {
                lines.push("all = true".to_owned());
            }
            self.block(format!("project.{name}.database.{free}"), &lines);
            names.push(free);
        }
        Ok(name)
    }
}

/// Adds a plan to a project that is there.
fn with_plan(path: &Path, text: &str, project: &str, plan: &str) -> Result<String, ProtectError> {
    let mut document: DocumentMut = text.parse().map_err(|_| {
        ProtectError::refused(format!("{} cannot be changed", path.display()), format!("add plans = [{plan:?}]"))
    })?;
    let plans = document["project"][project]
        .as_table_like_mut()
        .map(|table| table.entry("plans").or_insert(Item::Value(Value::Array(Array::new()))));
    let Some(plans) = plans.and_then(Item::as_array_mut) else {
        let reason = format!("project.{project} of {} cannot be changed", path.display());
        return Err(ProtectError::refused(reason, format!("add plans = [{plan:?}] to it")));
    };
    plans.push(plan);
    Ok(document.to_string())
}

/// As TOML writes it.
pub(crate) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn text_of(path: &Path) -> Result<&str, ProtectError> {
    path.to_str().ok_or_else(|| {
        let reason = format!("{} is no UTF-8, and a configuration has no other names", path.display());
        ProtectError::refused(reason, "rename it")
    })
}

/// The last name of a path, of letters that every name may have.
pub(crate) fn last_name(path: &Path) -> String {
    let Some(name) = path.file_name() else { return "system".to_owned() };
    let fit = |letter: char| if letter.is_ascii_alphanumeric() || "-_.".contains(letter) { letter } else { '-' };
    let name: String = name.to_string_lossy().chars().map(fit).take(60).collect();
    let name = name.trim_matches(['-', '_', '.']);
    match name {
        "" | "latest" => "project".to_owned(),
        name => name.to_owned(),
    }
}

/// The name, or the first with a number that is not taken.
pub(crate) fn free(name: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let numbered = (2_u64..).map(|number| format!("{name}-{number}"));
    let all = std::iter::once(name.to_owned()).chain(numbered);
    all.into_iter().find(|name| !is_taken(name)).unwrap_or_else(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protect(text: &str, directory: &str) -> Result<Planned, ProtectError> {
        protect_with(text, directory, None, false)
    }

    fn protect_with(text: &str, directory: &str, name: Option<&str>, is_chosen: bool) -> Result<Planned, ProtectError> {
        let repository = NewRepository { url: "/var/b".into(), password_file: "/etc/snapback/local.password".into() };
        let wanted = Wanted { directory: Path::new(directory), name, repository, is_chosen, databases: &[] };
        plan(Path::new("/etc/snapback/snapback.toml"), text, None, &wanted)
    }

    const FIRST: &str = r#"[repository.local]
url = "/var/b"
password-file = "/etc/snapback/local.password"

[plan.nightly]
backup = { at = "02:30", spread = "30m", to = ["local"] }
keep   = { daily = 14, weekly = 8, monthly = 6 }
check  = { every = "7d", read-data = "10%" }

[project.shop]
paths = ["/srv/shop"]
plans = ["nightly"]
"#;

    #[test]
    fn the_first_directory_gets_a_repository_a_plan_and_a_project() {
        let planned = protect("", "/srv/shop").unwrap();
        assert_eq!(planned.text, FIRST);
        assert_eq!(planned.added, ["repository.local", "plan.nightly", "project.shop"]);
        assert!(planned.repository.is_some());
        assert_eq!(planned.config.warnings, []);
    }

    #[test]
    fn databases_come_with_a_new_project_and_are_not_forced_on_one_that_is_there() {
        let sqlite = |path: &str| NewDatabase { name: "app".into(), address: Address::Sqlite(path.into()), all: false };
        let server = Address::parse("postgres:///").unwrap();
        let server = NewDatabase { name: "all".to_owned(), address: server, all: true };
        let databases = [sqlite("/srv/shop/app.db"), sqlite("/srv/shop/\"old\"/app.db"), server];
        let repository = NewRepository { url: "/var/b".into(), password_file: "/etc/snapback/local.password".into() };
        let directory = Path::new("/srv/shop");
        let wanted = Wanted { directory, name: None, repository, is_chosen: false, databases: &databases };
        let path = Path::new("/etc/snapback/snapback.toml");
        let planned = plan(path, "", None, &wanted).unwrap();
        let databases: Vec<_> = planned.config.projects["shop"].databases.values().collect();
        let told: Vec<_> =
            databases.iter().map(|one| (one.name.as_str(), one.login.address.to_string(), one.all)).collect();
        assert_eq!(
            told,
            [
                ("all", "postgres:///".to_owned(), true),
                ("app", "sqlite:/srv/shop/app.db".to_owned(), false),
                ("app-2", "sqlite:/srv/shop/\"old\"/app.db".to_owned(), false),
            ]
        );
        assert_eq!(planned.added[2..4], ["project.shop", "project.shop.database.app"]);
        assert_eq!(plan(path, FIRST, None, &wanted).unwrap().text, FIRST);
    }

    #[test]
    fn one_that_is_protected_changes_nothing() {
        let planned = protect(FIRST, "/srv/shop").unwrap();
        assert_eq!((planned.text.as_str(), planned.project.as_str()), (FIRST, "shop"));
        assert!(planned.added.is_empty() && planned.repository.is_none());
    }

    #[test]
    fn another_one_shares_plan_and_repository_and_all_else_stays_as_it_was() {
        let commented = format!("# mine\n{FIRST}# the end, without a newline");
        let planned = protect(&commented, "/srv/old/shop").unwrap();
        let expected = format!("{commented}\n\n[project.shop-2]\npaths = [\"/srv/old/shop\"]\nplans = [\"nightly\"]\n");
        assert_eq!(planned.text, expected);
        assert_eq!(planned.added, ["project.shop-2"]);
    }

    #[test]
    fn a_project_without_a_plan_gets_one_and_keeps_its_comments() {
        let text = "[project.shop] # ours\npaths = [\"/srv/shop\"] # all of it\n";
        let planned = protect(text, "/srv/shop").unwrap();
        let start =
            "[project.shop] # ours\npaths = [\"/srv/shop\"] # all of it\nplans = [\"nightly\"]\n\n[repository.local]\n";
        assert!(planned.text.starts_with(start), "{}", planned.text);
        assert_eq!(planned.added, ["repository.local", "plan.nightly", "project.shop"]);
    }

    #[test]
    fn a_repository_that_was_named_gets_a_plan_of_its_own() {
        let other = FIRST.replace("/var/b", "/elsewhere");
        let planned = protect_with(&other, "/srv/blog", None, true).unwrap();
        assert_eq!(planned.added, ["repository.b", "plan.nightly-2", "project.blog"]);
        assert_eq!(planned.config.plans["nightly-2"].backup.as_ref().unwrap().to, ["b"]);
        // One that is known is not added once more.
        let planned = protect_with(FIRST, "/srv/blog", None, true).unwrap();
        assert_eq!(planned.added, ["project.blog"]);
    }

    #[test]
    fn names_are_made_fit_and_taken_ones_refused() {
        for (path, name) in [("/srv/my shop!", "my-shop"), ("/", "system"), ("/srv/ä", "project"), ("/srv/.git", "git")]
        {
            assert_eq!(last_name(Path::new(path)), name);
        }
        assert!(protect("", "/srv/a\"b\\c").unwrap().config.projects["a-b-c"].paths == [PathBuf::from("/srv/a\"b\\c")]);
        let error = protect_with(FIRST, "/srv/blog", Some("shop"), false).unwrap_err();
        assert_eq!(error.to_string(), "the project shop is there already, over /srv/shop");
        assert!(protect_with("", "/srv/blog", Some("a b"), false).is_err());
    }

    #[test]
    fn a_configuration_with_errors_is_left_alone() {
        assert!(matches!(protect("[project.shop]\n", "/srv/x"), Err(ProtectError::Config(_))));
        // What is closed cannot be added to.
        assert!(protect("project = {}\n", "/srv/x").is_err());
    }
}
