//! The real restic.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{PASSWORD, skip};

/// A restic and the repository it works with.
pub(crate) struct Restic {
    program: PathBuf,
    repository: PathBuf,
}

impl Restic {
    /// Each restic that is there: the one named by SNAPBACK_TEST_RESTIC or else on PATH, and another named by
    /// SNAPBACK_TEST_RESTIC_OLD.
    #[expect(clippy::disallowed_methods, reason = "`cargo xtask test` says where the real parts are")]
    pub(crate) fn programs() -> Vec<PathBuf> {
        let given = ["SNAPBACK_TEST_RESTIC", "SNAPBACK_TEST_RESTIC_OLD"].map(std::env::var_os);
        let mut programs: Vec<PathBuf> = given.into_iter().flatten().map(PathBuf::from).collect();
        if programs.is_empty() {
            programs.push("restic".into());
        }
        programs.retain(|program| {
            let is_there = Command::new(program).arg("version").output().is_ok_and(|said| said.status.success());
            if !is_there {
                skip(&format!("no {}: install Debian's package restic", program.display()));
            }
            is_there
        });
        programs
    }

    pub(crate) fn with(program: &Path, repository: &Path) -> Self {
        Restic { program: program.to_owned(), repository: repository.to_owned() }
    }

    /// Whether it keeps where links point if that is not UTF-8, as it does since 0.16.
    pub(crate) fn keeps_odd_links(&self) -> bool {
        let version = self.run(&["version"]);
        let minor = version.strip_prefix("restic 0.").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
        minor.unwrap_or_else(|| panic!("what version is {version:?}?")) >= 16
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--no-cache", "--quiet"]).args(arguments);
        command.env("RESTIC_REPOSITORY", &self.repository).env("RESTIC_PASSWORD", PASSWORD);
        command.stdin(Stdio::null());
        command
    }

    /// Runs it to a good end, and gives what it said.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let said = self.command(arguments).output().unwrap();
        let (out, messages) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
        assert!(said.status.success(), "{} {arguments:?}: {out}{messages}", self.program.display());
        out.into_owned()
    }

    /// Mounts the repository; `None` if this machine cannot.
    pub(crate) fn mount(&self, on: &Path) -> Option<Mounted> {
        if !Path::new("/dev/fuse").exists() {
            skip("no /dev/fuse");
            return None;
        }
        let child = self.command(&["mount"]).arg(on).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut mounted = Mounted { child, on: on.to_owned() };
        for _ in 0..200 {
            if on.join("snapshots").exists() {
                return Some(mounted);
            }
            assert!(mounted.child.try_wait().unwrap().is_none(), "restic mount ended");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("restic mount does not come up");
    }
}

/// A mounted repository.
pub(crate) struct Mounted {
    child: Child,
    on: PathBuf,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.on).status();
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = Command::new("umount").arg("--lazy").arg(&self.on).stderr(Stdio::null()).status();
    }
}
