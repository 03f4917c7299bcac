//! `cargo xtask demo`: the product's main job from beginning to end, on a site made for it.
//!
//! Every command is printed as a person would type it, with its real output below. Everything lies in one temporary
//! directory, which is gone afterwards, also if a step fails.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::random::{Random, Vocabulary};
use crate::shell;

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    if !arguments.is_empty() {
        bail!("demo takes no arguments");
    }
    shell::run(shell::cargo().args(["build", "--release", "--package", "cli"]))?;
    let stage = Stage::new()?;
    write_site(&stage.directory.join("site")).context("writing the sample site")?;
    write_password(&stage.directory.join("password"))?;
    play(&stage)
}

fn play(stage: &Stage) -> Result<()> {
    let here = stage.directory.display();
    println!("\nA sample site lies in {here}/site, a password in {here}/password.");

    stage.heading("Set up: where the backups lie, and the first of them");
    println!("$ cd {here}\n$ export SNAPBACK_REPOSITORY=repository");
    stage.snapback("repo init --password-file password")?;
    stage.snapback("backup site --password-file password")?;

    stage.heading("Something goes wrong: a page is overwritten, another deleted, a stranger's file appears");
    stage.shell("cp -a site site.good")?;
    stage.shell("echo 'Hacked.' > site/index.html")?;
    stage.shell("rm site/articles/article-007.html")?;
    stage.shell("echo '<?php system($_GET[0]);' > site/uploads/shell.php")?;

    stage.heading("The next backup stores only what changed");
    stage.snapback("backup site --password-file password")?;
    stage.snapback("list --password-file password")?;
    stage.snapback("diff latest~1 latest --password-file password")?;

    stage.heading("The site as it was before, beside the present one");
    stage.snapback("restore latest~1 --to restored --password-file password")?;
    stage.shell(&format!("diff -r site.good restored{here}/site && echo 'no difference'"))?;

    stage.heading("The repository is whole: all of it is read, decrypted and hashed");
    stage.snapback("repo check --read-data --password-file password")?;
    println!("\nThe demo is done; {here} is removed.");
    Ok(())
}

/// The directory the demo plays in, removed at the end.
struct Stage {
    directory: PathBuf,
    program: PathBuf,
}

impl Stage {
    fn new() -> Result<Stage> {
        let program = shell::target_dir()?.join("release/snapback");
        let directory = std::env::temp_dir()
            .canonicalize()
            .context("the directory of temporary files")?
            .join(format!("snapback-demo-{}", std::process::id()));
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .with_context(|| format!("creating {}", directory.display()))?;
        Ok(Stage { directory, program })
    }

    fn heading(&self, text: &str) {
        println!("\n# {text}");
    }

    fn snapback(&self, arguments: &str) -> Result<()> {
        println!("$ snapback {arguments}");
        self.run(Command::new(&self.program).args(arguments.split(' ')))
    }

    fn shell(&self, line: &str) -> Result<()> {
        println!("$ {line}");
        self.run(Command::new("sh").args(["-c", line]))
    }

    /// In the stage, and with none of the person's own settings.
    fn run(&self, command: &mut Command) -> Result<()> {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SNAPBACK_") {
                command.env_remove(name);
            }
        }
        command
            .current_dir(&self.directory)
            .env("SNAPBACK_REPOSITORY", "repository")
            .env("XDG_CACHE_HOME", self.directory.join("cache"))
            .stdin(Stdio::null());
        shell::run(command)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            eprintln!("xtask: removing {}: {error}", self.directory.display());
        }
    }
}

/// Pages, pictures, uploads, a configuration only its owner may read, and a link.
fn write_site(site: &Path) -> Result<()> {
    let vocabulary = Vocabulary::new(3000);
    let mut random = Random::new(7);
    for directory in ["articles", "pictures", "uploads"] {
        fs::create_dir_all(site.join(directory))?;
    }
    for number in 0..60 {
        fs::write(site.join(format!("articles/article-{number:03}.html")), page(&vocabulary, &mut random, 600))?;
    }
    for number in 0..12 {
        let mut picture = Vec::new();
        let size = random.between(200_000, 900_000);
        random.bytes(&mut picture, size);
        fs::write(site.join(format!("pictures/picture-{number:02}.jpg")), picture)?;
    }
    fs::write(site.join("index.html"), page(&vocabulary, &mut random, 80))?;
    fs::write(site.join("config.ini"), "database = shop\nuser = shop\n")?;
    fs::set_permissions(site.join("config.ini"), PermissionsExt::from_mode(0o600))?;
    symlink("picture-00.jpg", site.join("pictures/newest.jpg"))?;
    Ok(())
}

fn page(vocabulary: &Vocabulary, random: &mut Random, words: usize) -> Vec<u8> {
    let mut page = b"<!doctype html>\n<title>".to_vec();
    vocabulary.words(random, &mut page, 4);
    page.extend_from_slice(b"</title>\n");
    for _ in 0..words / 40 {
        page.extend_from_slice(b"<p>");
        vocabulary.words(random, &mut page, 40);
        page.extend_from_slice(b"</p>\n");
    }
    page
}

/// A password from the system's randomness, in a file only we may read.
fn write_password(path: &Path) -> Result<()> {
    let mut random = [0; 16];
    fs::File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut random)).context("/dev/urandom")?;
    let password: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("creating {}", path.display()))?;
    writeln!(file, "{password}").with_context(|| format!("writing {}", path.display()))
}
