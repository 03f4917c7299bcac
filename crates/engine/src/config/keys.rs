//! Every key of the file, once: from here the reader knows which are unknown, and the schema which there are.

/// A key of a table.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// As it stands in the file.
    pub(crate) example: &'static str,
    /// One sentence for editors.
    pub(crate) help: &'static str,
    /// As it would stand in the file; empty if there is none.
    pub(crate) default: &'static str,
    pub(crate) is_required: bool,
}

/// What a value may be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Text,
    /// An absolute path, or one that begins with `~/`.
    Path,
    Texts,
    Paths,
    /// A text or several.
    Commands,
    /// A time of day or several.
    Times,
    Flag,
    /// From the number given on.
    Count(u32),
    /// A number, or `all`.
    KeepCount,
    Duration,
    Span,
    Rate,
    Percentage,
    Table(&'static [Key]),
    /// Tables by name. The example is the head of one.
    Named(&'static [Key]),
}

impl Kind {
    /// What it should be, in a sentence.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Text | Self::Path => "a text in quotes",
            Self::Texts | Self::Paths => "a list of texts",
            Self::Commands | Self::Times => "a text in quotes, or a list of them",
            Self::Flag => "true or false",
            Self::Count(_) => "a number",
            Self::KeepCount => "a number, or \"all\"",
            Self::Duration | Self::Span => "a duration in quotes",
            Self::Rate => "a rate in quotes",
            Self::Percentage => "a percentage in quotes",
            Self::Table(_) | Self::Named(_) => "a table",
        }
    }
}

const fn key(name: &'static str, kind: Kind, example: &'static str, help: &'static str) -> Key {
    Key { name, kind, example, help, default: "", is_required: false }
}

impl Key {
    const fn required(self) -> Key {
        Key { is_required: true, ..self }
    }

    const fn default(self, default: &'static str) -> Key {
        Key { default, ..self }
    }
}

/// The tables at the top, most of them with one table a name.
pub(crate) static TOP: [Key; 4] = [
    key("repository", Kind::Named(&REPOSITORY), "[repository.offsite]", "Where backups lie, by name."),
    key("plan", Kind::Named(&PLAN), "[plan.nightly]", "When what is done, and how long it is kept, by name."),
    key("project", Kind::Named(&PROJECT), "[project.shop]", "What is protected, by name."),
    key(
        "net",
        Kind::Table(&NET),
        "{ directory = \"/var/backups/snapback-net\" }",
        "What stands in for snapshots where the file system has none.",
    ),
];

/// `[repository.NAME]`
pub(crate) static REPOSITORY: [Key; 11] = [
    key("url", Kind::Text, "\"/mnt/backup/repo\"", "Where it lies: a directory.").required(),
    key("password-file", Kind::Path, "\"/etc/snapback/offsite.password\"", "The file that has its password."),
    key("password-command", Kind::Text, "\"pass show offsite\"", "A command that prints its password."),
    key("password-env", Kind::Text, "\"OFFSITE_PASSWORD\"", "The environment variable that has its password."),
    key(
        "password-credential",
        Kind::Text,
        "\"offsite\"",
        "The systemd credential that has its password (LoadCredential= of the service).",
    ),
    key("limit-upload", Kind::Rate, "\"10MB/s\"", "No more than this is written to it."),
    key("limit-download", Kind::Rate, "\"10MB/s\"", "No more than this is read from it."),
    key(
        "low-priority",
        Kind::Flag,
        "false",
        "Whether jobs give way to whatever else wants the processor and the disk.",
    )
    .default("true"),
    key("retries", Kind::Count(0), "5", "How often a job that the repository failed is tried again.").default("3"),
    key(
        "append-only",
        Kind::Flag,
        "true",
        "Whether nobody on this machine can delete from it, because its other side sees to that. Jobs remove nothing then.",
    )
    .default("false"),
    key("offline", Kind::Flag, "true", "Whether it is connected only for a backup: a disk that lies in a drawer, say.")
        .default("false"),
];

/// `[net]`
pub(crate) static NET: [Key; 1] = [key(
    "directory",
    Kind::Path,
    "\"/var/backups/snapback-net\"",
    "Where local backups lie that stand in for snapshots, instead of in the state directory.",
)];

/// `[plan.NAME]`
pub(crate) static PLAN: [Key; 5] = [
    key(
        "backup",
        Kind::Table(&BACKUP),
        "{ at = \"02:30\", spread = \"30m\", to = [\"offsite\"] }",
        "Backups by the clock.",
    ),
    key("snapshot", Kind::Table(&PLAN_SNAPSHOT), "{ every = \"4h\", keep = \"24h\" }", "Snapshots by the clock."),
    key(
        "keep",
        Kind::Table(&KEEP),
        "{ daily = 14, weekly = 8, monthly = 6 }",
        "Which backups stay; without it, all do.",
    ),
    key(
        "check",
        Kind::Table(&CHECK),
        "{ every = \"7d\", read-data = \"10%\" }",
        "Looking through the repositories that its backups go to, by the clock.",
    ),
    key("min-depth", Kind::Span, "\"14d\"", "No rule of `keep` removes a younger backup: hours, days, months, years.")
        .default("\"7d\""),
];

const AT_HELP: &str = "When, in local time: \"02:30\", \"sun 04:00\", or a list of them.";
const EVERY_HELP: &str = "How long after the last one, instead of `at`.";

/// `backup = { ... }` of a plan.
pub(crate) static BACKUP: [Key; 5] = [
    key("at", Kind::Times, "\"02:30\"", AT_HELP),
    key("every", Kind::Duration, "\"6h\"", EVERY_HELP),
    key("spread", Kind::Duration, "\"30m\"", "Up to this much later, so that not all machines come at once.")
        .default("\"0s\""),
    key("to", Kind::Texts, "[\"offsite\"]", "Names of repositories.").required(),
    key("full-walk", Kind::Count(1), "1", "After so many backups one looks at every file; 1 is every time.")
        .default("7"),
];

/// `snapshot = { ... }` of a plan.
pub(crate) static PLAN_SNAPSHOT: [Key; 3] = [
    key("at", Kind::Times, "\"12:00\"", AT_HELP),
    key("every", Kind::Duration, "\"4h\"", EVERY_HELP),
    key("keep", Kind::Duration, "\"24h\"", "How long each lives.").required(),
];

/// `keep = { ... }` of a plan.
pub(crate) static KEEP: [Key; 13] = [
    key("last", Kind::KeepCount, "3", "So many of the newest."),
    key("hourly", Kind::KeepCount, "24", "The newest of each of so many hours."),
    key("daily", Kind::KeepCount, "14", "The newest of each of so many days."),
    key("weekly", Kind::KeepCount, "8", "The newest of each of so many weeks."),
    key("monthly", Kind::KeepCount, "6", "The newest of each of so many months."),
    key("yearly", Kind::KeepCount, "\"all\"", "The newest of each of so many years."),
    key("within", Kind::Span, "\"2d\"", "All of this time: hours, days, months, years."),
    key("within-hourly", Kind::Span, "\"3d\"", "The newest of each hour of this time."),
    key("within-daily", Kind::Span, "\"14d\"", "The newest of each day of this time."),
    key("within-weekly", Kind::Span, "\"2m\"", "The newest of each week of this time."),
    key("within-monthly", Kind::Span, "\"1y\"", "The newest of each month of this time."),
    key("within-yearly", Kind::Span, "\"10y\"", "The newest of each year of this time."),
    key("tag", Kind::Texts, "[\"release\"]", "All with one of these tags; \"a,b\" stands for both together."),
];

/// `check = { ... }` of a plan.
pub(crate) static CHECK: [Key; 3] = [
    key("at", Kind::Times, "\"sun 04:00\"", AT_HELP),
    key("every", Kind::Duration, "\"7d\"", EVERY_HELP),
    key("read-data", Kind::Percentage, "\"10%\"", "So much of the data is read too, another part each time."),
];

/// `[project.NAME]`
pub(crate) static PROJECT: [Key; 10] = [
    key("paths", Kind::Paths, "[\"/srv/shop\"]", "The directories it consists of.").required(),
    key("exclude", Kind::Texts, "[\"cache/\", \"*.tmp\"]", "What backups leave out."),
    key("one-file-system", Kind::Flag, "true", "Whether backups stay on the file systems of the paths.")
        .default("false"),
    key("units", Kind::Texts, "[\"shop.service\"]", "Units of systemd, stopped and started around a rollback."),
    key("probe", Kind::Text, "\"curl -fsS http://localhost:8080/health\"", "A shell command: does it work?"),
    key("probe-limit", Kind::Duration, "\"1m\"", "How long it may take until the probe succeeds.").default("\"30s\""),
    key("plans", Kind::Texts, "[\"nightly\"]", "Names of plans."),
    key("hooks", Kind::Table(&HOOKS), "{ before = \"sync-mail\", after = \"tell\" }", "Commands around each job."),
    key("snapshot", Kind::Table(&SNAPSHOT), "{ expire = \"2h\" }", "How its snapshots are made."),
    key("database", Kind::Named(&DATABASE), "[project.shop.database.orders]", "Its databases, by name."),
];

/// `hooks = { ... }` of a project.
pub(crate) static HOOKS: [Key; 2] = [
    key("before", Kind::Commands, "\"sync-mail\"", "Shell commands; one that fails stops the job."),
    key("after", Kind::Commands, "[\"tell\", \"log\"]", "Shell commands, run however the job ended."),
];

/// `snapshot = { ... }` of a project.
pub(crate) static SNAPSHOT: [Key; 2] = [
    key("expire", Kind::Duration, "\"2h\"", "How long those live that were asked for.").default("\"4h\""),
    key(
        "keep-base",
        Kind::Flag,
        "false",
        "Whether the snapshot of a backup stays until the next, which then looks only at what changed.",
    )
    .default("true"),
];

/// `[project.NAME.database.NAME]`
pub(crate) static DATABASE: [Key; 6] = [
    key(
        "url",
        Kind::Text,
        "\"postgres:///orders\"",
        "Where it is: postgres://USER@HOST:PORT/DATABASE, mysql://..., or sqlite:/FILE; without a host, the local socket.",
    )
    .required(),
    key("password-file", Kind::Path, "\"/etc/snapback/orders.password\"", "The file that has its password."),
    key("dump", Kind::Flag, "false", "Whether every backup has a dump of it.").default("true"),
    key("all", Kind::Flag, "true", "Every database of the server, with roles and grants; the url then names none.")
        .default("false"),
    key(
        "query",
        Kind::Text,
        "\"SELECT count(*) FROM orders\"",
        "What proves that it is whole: the first value of the first row must be there and not be 0, false or empty.",
    ),
    key("quiesce", Kind::Flag, "false", "Whether its writes are held for the moment of a snapshot.").default("true"),
];
