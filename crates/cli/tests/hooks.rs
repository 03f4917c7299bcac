//! The hook of apt, called by the real apt-get with packages, a dpkg database and a configuration of its own.
#![allow(missing_docs)]

mod environment;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use environment::Run;
use environment::btrfs::{Shop, run};

/// An apt that knows nothing of the machine's packages, with the hook in its configuration.
struct Apt {
    shop: Shop,
}

impl Apt {
    fn new(options: &[&str]) -> Apt {
        let apt = Apt { shop: Shop::new() };
        for directory in ["apt/etc/apt.conf.d", "apt/state/lists/partial", "apt/cache/archives/partial", "apt/log"] {
            fs::create_dir_all(apt.path(directory)).unwrap();
        }
        for directory in
            ["apt/root/var/lib/dpkg/info", "apt/root/var/lib/dpkg/updates", "apt/root/var/lib/dpkg/triggers"]
        {
            fs::create_dir_all(apt.path(directory)).unwrap();
        }
        fs::write(apt.path("apt/root/var/lib/dpkg/status"), "").unwrap();
        let root = apt.path("apt");
        let root = root.to_str().unwrap();
        let configuration = format!(
            "Dir \"{root}\"; Dir::Etc \"etc\"; Dir::State \"state\"; Dir::Cache \"cache\"; Dir::Log \"log\";\n\
             Dir::State::status \"{root}/root/var/lib/dpkg/status\";\n\
             Dir::Bin::dpkg \"/usr/bin/dpkg\"; Dir::Bin::methods \"/usr/lib/apt/methods\";\n\
             DPkg::Options {{ \"--root={root}/root\"; \"--force-unsafe-io\"; }};\n\
             APT::Sandbox::User \"root\"; Dpkg::Use-Pty \"false\";\n"
        );
        fs::write(apt.path("apt/apt.conf"), configuration).unwrap();
        let mut install = vec!["hook", "install", "apt"];
        let (file, directory) = (apt.hook(), apt.shop.name());
        install.extend(["--file", file.to_str().unwrap(), "--directory", &directory]);
        install.extend(options);
        apt.shop.run(install).succeeds();
        apt
    }

    fn path(&self, name: &str) -> PathBuf {
        self.shop.environment.path(name)
    }

    fn hook(&self) -> PathBuf {
        self.path("apt/etc/apt.conf.d/80snapback")
    }

    /// Builds a package.
    fn package(&self, name: &str, version: &str) -> String {
        let tree = self.path(&format!("build/{name}_{version}"));
        fs::create_dir_all(tree.join("DEBIAN")).unwrap();
        fs::create_dir_all(tree.join("opt")).unwrap();
        fs::set_permissions(tree.join("DEBIAN"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(tree.join("opt").join(name), version).unwrap();
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\n\
             Description: for a test\n"
        );
        fs::write(tree.join("DEBIAN/control"), control).unwrap();
        let file = self.path(&format!("build/{name}_{version}_all.deb"));
        run("dpkg-deb", ["--root-owner-group", "--build", tree.to_str().unwrap(), file.to_str().unwrap()]);
        file.to_str().unwrap().to_owned()
    }

    fn get(&self, arguments: &[&str]) -> Run {
        self.call(Command::new("apt-get"), arguments)
    }

    fn call(&self, mut command: Command, arguments: &[&str]) -> Run {
        command
            .env_clear()
            .env("PATH", std::env::join_paths(["/usr/sbin", "/usr/bin", "/sbin", "/bin"]).unwrap())
            .env("APT_CONFIG", self.path("apt/apt.conf"))
            .env("SNAPBACK_STATE_DIRECTORY", self.path("state"))
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("LC_ALL", "C")
            .args(["--quiet", "--yes"])
            .args(arguments);
        command.output().expect("apt-get is needed for this test").into()
    }

    fn installed(&self, name: &str) -> String {
        fs::read_to_string(self.path("apt/root/opt").join(name)).unwrap_or_default()
    }
}

#[test]
fn a_run_of_apt_has_one_snapshot_with_the_packages_as_its_note() {
    let apt = Apt::new(&["--grace", "1h"]);
    let (bread, butter) = (apt.package("bread", "1.0"), apt.package("butter", "2.0"));
    // As if apt ran dpkg, and with it the hook, twice: the file is read twice.
    fs::copy(apt.hook(), apt.path("apt/etc/apt.conf.d/81again")).unwrap();
    let run = apt.get(&["install", &bread, &butter, "-o", "Dpkg::MaxArgs=1"]).succeeds();
    assert_eq!(apt.installed("bread"), "1.0");
    let list = apt.shop.list();
    assert_eq!(list.len(), 1, "{run:?}");
    let note = list[0]["note"].as_str().unwrap();
    for words in ["apt-get --quiet --yes install", "bread 1.0 new", "butter 2.0 new"] {
        assert!(note.contains(words), "{words:?} is missing in {note}");
    }
    assert_eq!(list[0]["purpose"], "hook");
    assert!(list[0]["expires"].is_string() && run.stderr.contains("expires in 1 h"), "{run:?}");

    fs::remove_file(apt.path("apt/etc/apt.conf.d/81again")).unwrap();
    let butter = apt.package("butter", "3.0");
    apt.get(&["install", &butter]).succeeds();
    apt.get(&["remove", "bread"]).succeeds();
    let notes: Vec<_> = apt.shop.list().iter().map(|snapshot| snapshot["note"].as_str().unwrap().to_owned()).collect();
    assert_eq!(notes.len(), 3, "each run has its own");
    assert!(notes[1].ends_with("butter 2.0 → 3.0"), "{notes:?}");
    assert!(notes[2].ends_with("remove bread: bread 1.0 removed"), "{notes:?}");
}

#[test]
fn a_guard_around_apt_has_the_snapshot_already() {
    let apt = Apt::new(&[]);
    let bread = apt.package("bread", "1.0");
    let mut guard = Command::new(env!("CARGO_BIN_EXE_snapback"));
    guard.args(["guard", &apt.shop.name(), "--", "apt-get"]);
    apt.call(guard, &["install", &bread]).succeeds();
    assert_eq!(apt.installed("bread"), "1.0");
    let purposes: Vec<_> = apt.shop.list().iter().map(|snapshot| snapshot["purpose"].clone()).collect();
    assert_eq!(purposes, ["guard"]);
}

#[test]
fn apt_goes_on_without_a_snapshot_unless_it_shall_not() {
    let apt = Apt::new(&[]);
    let bread = apt.package("bread", "1.0");
    // Not a directory any more: no state, no snapshot.
    fs::remove_dir_all(apt.path("state")).ok();
    fs::write(apt.path("state"), "").unwrap();
    let run = apt.get(&["install", &bread]).succeeds();
    assert!(run.stderr.contains("no snapshot before this run"), "{run:?}");
    assert_eq!(apt.installed("bread"), "1.0");

    let (file, directory) = (apt.hook(), apt.shop.name());
    let strict = ["hook", "install", "apt", "--strict", "--file", file.to_str().unwrap(), "--directory", &directory];
    fs::remove_file(apt.path("state")).unwrap();
    apt.shop.run(strict).succeeds();
    fs::remove_dir_all(apt.path("state")).ok();
    fs::write(apt.path("state"), "").unwrap();
    let butter = apt.package("butter", "1.0");
    apt.get(&["install", &butter]).fails(100, []);
    assert_eq!(apt.installed("butter"), "", "nothing was installed");
}

#[test]
fn apt_goes_on_when_snapback_is_gone() {
    let apt = Apt::new(&[]);
    let text = fs::read_to_string(apt.hook()).unwrap();
    fs::write(apt.hook(), text.replace(env!("CARGO_BIN_EXE_snapback"), "/nowhere/snapback")).unwrap();
    let bread = apt.package("bread", "1.0");
    apt.get(&["install", &bread]).succeeds();
    assert_eq!(apt.installed("bread"), "1.0");
    assert!(apt.shop.list().is_empty());
}

#[test]
fn a_hook_is_uninstalled_and_a_strangers_file_is_left_alone() {
    let apt = Apt::new(&[]);
    let (file, directory) = (apt.hook(), apt.shop.name());
    let file = file.to_str().unwrap();
    apt.shop.run(["hook", "uninstall", "apt", "--file", file]).succeeds();
    assert!(!apt.hook().exists());
    fs::write(file, "// mine\n").unwrap();
    let strange = "was not written by Snapback";
    apt.shop.run(["hook", "uninstall", "apt", "--file", file]).fails(1, [strange]);
    apt.shop.run(["hook", "install", "apt", "--file", file, "--directory", &directory]).fails(1, [strange, "try:"]);
    assert_eq!(fs::read_to_string(file).unwrap(), "// mine\n");
}

/// What a plugin of dnf makes of the last line of a file: the variables are replaced for each package.
fn expanded(line: &str, package: &str) -> String {
    let (name, state) = package.split_once(' ').unwrap();
    let variables = [
        ("${name}-${ver}-${rel}.${arch}", name),
        ("${state}", state),
        ("${pkg.full_nevra}", name),
        ("${pkg.action}", state),
        ("${pid}", "$$"),
    ];
    variables.iter().fold(line.to_owned(), |line, (variable, value)| line.replace(variable, value))
}

/// Debian's dnf has no plugin that could call the hook: a shell does as the plugins' manuals say.
#[test]
fn a_transaction_of_dnf_has_one_snapshot_with_the_packages_as_its_note() {
    let shop = Shop::new();
    for (file, fields) in [("4.action", 2), ("5.actions", 4)] {
        let file = shop.environment.path(file);
        let (name, directory) = (file.to_str().unwrap(), shop.name());
        shop.run(["hook", "install", "dnf", "--file", name, "--directory", &directory]).succeeds();
        let text = fs::read_to_string(&file).unwrap();
        let line = text.lines().last().unwrap().splitn(fields + 1, ':').last().unwrap().to_owned();
        let before = shop.list().len();
        // The outer shell is dnf, and starts one shell for each package.
        let call = |package: &str| match fields {
            2 => format!("sh -c \"{}\"\n", expanded(&line, package).replace('$', "\\$")),
            _ => format!("{}\n", expanded(&line, package).replace("$$", "'$$'")),
        };
        let dnf = call("bread-1.0-1.noarch install") + &call("butter-2.0-1.noarch upgrade") + "true\n";
        let mut shell = Command::new("sh");
        shell.env("SNAPBACK_STATE_DIRECTORY", shop.environment.path("state")).args(["-c", &dnf]);
        let run = Run::from(shell.output().unwrap()).succeeds();
        assert_eq!(run.stdout, "", "dnf 5 takes what is printed for orders");
        let list = shop.list();
        assert_eq!(list.len(), before + 1, "{dnf}\n{run:?}");
        let note = list.last().unwrap()["note"].as_str().unwrap();
        assert!(note.ends_with("bread-1.0-1.noarch install, butter-2.0-1.noarch upgrade"), "{note}");
    }
}
