//! Repositories that the real restic wrote: we check, prune, repair and copy them, and restic finds them whole; then
//! restic prunes what we wrote. `restic` must be on PATH; SNAPBACK_TEST_RESTIC names another program.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use repository::crypto::KeyCost;
use repository::progress::Unwatched;
use repository::storage::{FileKind, Local, StoredFile};
use repository::{InitOptions, Repository, copy, forget, prune, repair};
use support::{assert_clean, check_all, holder, lock, noise, text};

struct Restic {
    program: String,
    repository: PathBuf,
}

impl Restic {
    #[expect(clippy::disallowed_methods, reason = "`cargo xtask test` says where the newest restic is")]
    fn of(repository: PathBuf) -> Restic {
        let program = std::env::var("SNAPBACK_TEST_RESTIC").unwrap_or_else(|_| "restic".to_owned());
        Restic { program, repository }
    }

    fn try_run(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(&self.program)
            .args(["--no-cache", "--quiet"])
            .args(arguments)
            .env("RESTIC_REPOSITORY", &self.repository)
            .env("RESTIC_PASSWORD", "correct horse")
            .output()
            .unwrap_or_else(|error| {
                panic!("this test needs {}: {error}. Install Debian's package restic", self.program)
            });
        let messages = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(String::from_utf8_lossy(&output.stdout).into_owned()) } else { Err(messages) }
    }

    fn run(&self, arguments: &[&str]) -> String {
        self.try_run(arguments).unwrap_or_else(|messages| panic!("restic {arguments:?}: {messages}"))
    }

    fn open(&self) -> Arc<Repository> {
        let storage = Arc::new(Local::new(&self.repository));
        Arc::new(Repository::open(storage, b"correct horse").unwrap())
    }

    /// Restores the newest backup and compares it with what was backed up.
    fn assert_restores(&self, source: &Path) {
        let target = tempfile::tempdir().unwrap();
        self.run(&["restore", "latest", "--target", target.path().to_str().unwrap()]);
        let restored = target.path().join(source.strip_prefix("/").unwrap());
        let difference = Command::new("diff").arg("-r").args([source, &restored]).output().unwrap();
        assert!(difference.status.success(), "{}", String::from_utf8_lossy(&difference.stdout));
    }
}

/// Several backups, with files that come, go, change and stay.
fn sample(directory: &Path, version: &str) -> (Restic, PathBuf) {
    let restic = Restic::of(directory.join("repository"));
    restic.run(&["init", "--repository-version", version]);
    let source = directory.join("source");
    for round in 0..5_u64 {
        for part in 0..3 {
            let inner = source.join(format!("part {part}"));
            fs::create_dir_all(&inner).unwrap();
            fs::write(inner.join("stays"), noise(part, 1_500_000)).unwrap();
            fs::write(inner.join("changes"), text(round * 10 + part, 400_000)).unwrap();
            fs::write(inner.join(format!("only in {round}")), noise(round * 100 + part, 300_000)).unwrap();
            let _ = fs::remove_file(inner.join(format!("only in {}", round.wrapping_sub(1))));
        }
        restic.run(&["backup", source.to_str().unwrap()]);
    }
    (restic, source)
}

const THOROUGH: prune::Options = prune::Options {
    max_unused: prune::MaxUnused::Bytes(0),
    max_repack_bytes: None,
    repack_small: true,
    repack_uncompressed: true,
    remove_everything: false,
};

#[test]
fn restic_finds_its_repository_whole_after_our_forget_and_prune_and_prunes_after_us() {
    for version in ["1", "2"] {
        let directory = tempfile::tempdir().unwrap();
        let (restic, source) = sample(directory.path(), version);
        let repository = restic.open();
        assert_clean(&repository);
        let backups = repository.backups().unwrap().0;
        assert_eq!(backups.len(), 5);
        {
            let held = lock(&repository, true).unwrap();
            assert!(restic.try_run(&["prune"]).is_err(), "restic honours our lock");
            forget(&repository, &held, &[backups[0].0, backups[2].0, backups[3].0], &Unwatched).unwrap();
            let plan = prune::plan(&repository, &THOROUGH, &Unwatched).unwrap();
            assert!(!plan.repack.is_empty());
            prune::execute(&repository, &held, plan, &Unwatched).unwrap();
        }
        let report = check_all(&repository);
        assert!(report.is_clean() && report.hints.is_empty(), "{report:?}");
        restic.run(&["check", "--read-data"]);
        restic.assert_restores(&source);

        fs::write(source.join("new"), noise(77, 500_000)).unwrap();
        restic.run(&["backup", source.to_str().unwrap()]);
        restic.run(&["forget", "--keep-last", "1", "--prune"]);
        restic.run(&["check", "--read-data"]);
        assert_clean(&restic.open());
        restic.assert_restores(&source);
    }
}

#[test]
fn restic_finds_its_repository_whole_after_our_repairs() {
    let directory = tempfile::tempdir().unwrap();
    let (restic, source) = sample(directory.path(), "2");
    let repository = restic.open();
    let storage = repository.storage();
    for (id, _) in storage.list(FileKind::Index).unwrap() {
        storage.remove(&StoredFile::new(FileKind::Index, id)).unwrap();
    }
    assert!(restic.try_run(&["check"]).is_err());
    let held = lock(&repository, true).unwrap();
    let plan = repair::index::plan(&repository, false, &Unwatched).unwrap();
    repair::index::execute(&repository, &held, &plan, &Unwatched).unwrap();
    drop(held);
    restic.run(&["check", "--read-data"]);
    restic.assert_restores(&source);

    // Now data is damaged.
    let (pack, _) = storage.list(FileKind::Pack).unwrap().into_iter().max_by_key(|(_, size)| *size).unwrap();
    let path = restic.repository.join(StoredFile::new(FileKind::Pack, pack).path());
    let mut bytes = fs::read(&path).unwrap();
    bytes[1000] ^= 1;
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();
    assert!(restic.try_run(&["check", "--read-data"]).is_err());
    let held = lock(&repository, true).unwrap();
    let plan = repair::packs::plan(&repository, &[pack], &Unwatched).unwrap();
    assert!(!plan.packs[0].saved.is_empty());
    repair::packs::execute(&repository, &held, plan, &Unwatched).unwrap();
    let plan = repair::backups::plan(&repository, None, &Unwatched).unwrap();
    assert!(!plan.repairs.is_empty());
    repair::backups::execute(&repository, &held, &plan, true, &Unwatched).unwrap();
    drop(held);
    restic.run(&["check", "--read-data"]);
    assert_clean(&repository);
}

#[test]
fn restic_reads_our_copy_of_its_backups_and_copies_nothing_twice() {
    let directory = tempfile::tempdir().unwrap();
    let (restic, source) = sample(directory.path(), "2");
    let from = restic.open();
    let copied = Restic::of(directory.path().join("copy"));
    let options = InitOptions { polynomial: Some(from.polynomial()), key_cost: KeyCost::NONE };
    let storage = Arc::new(Local::new(&copied.repository));
    let to = Arc::new(Repository::init(storage, b"correct horse", &options, &holder()).unwrap());
    let backups: Vec<_> = from.backups().unwrap().0.into_iter().map(|(id, _)| id).collect();
    let held = lock(&to, false).unwrap();
    let plan = copy::plan(&from, &to, &backups, &Unwatched).unwrap();
    copy::execute(&from, &to, &held, plan, &Unwatched).unwrap();
    drop(held);
    copied.run(&["check", "--read-data"]);
    copied.assert_restores(&source);
    // restic knows our copies for copies.
    let password = directory.path().join("password");
    fs::write(&password, "correct horse").unwrap();
    let from_repository = restic.repository.to_str().unwrap();
    copied.run(&["copy", "--from-repo", from_repository, "--from-password-file", password.to_str().unwrap()]);
    assert_eq!(to.backups().unwrap().0.len(), backups.len());
}
