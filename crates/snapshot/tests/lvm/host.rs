//! Starts the guest: a User Mode Linux that sees the host's files, with two empty disks, `/dev/ubda` and `/dev/ubdb`, and
//! runs this very test executable in it.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Set in the guest only.
const IN_GUEST: &str = "SNAPBACK_TEST_IN_GUEST";

/// Whether this is the guest.
#[expect(clippy::disallowed_methods, reason = "the guest is told by its environment")]
pub(crate) fn is_in_guest() -> bool {
    std::env::var_os(IN_GUEST).is_some()
}

/// Says something to the host.
#[expect(clippy::print_stdout, reason = "the host reads the guest's standard output")]
pub(crate) fn report(what: &str) {
    println!("{what}");
}

const PATIENCE: Duration = Duration::from_secs(600);

/// Its processes end with it.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        let group = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.0.wait();
    }
}

/// Runs the test of this name in a guest, and gives what it wrote, which ends with `RC=` and the exit code.
pub(crate) fn run_in_guest(test: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).into_os_string().into_string().unwrap();
    for disk in ["disk", "disk2"] {
        File::create(path(disk)).unwrap().set_len(1 << 30).unwrap();
    }
    let executable = std::env::current_exe().unwrap();
    let script =
        format!("export {IN_GUEST}=1 RUST_BACKTRACE=0\ncd /\n'{}' --exact {test} --nocapture\n", executable.display());
    fs::write(path("test"), script).unwrap();
    // From the crates beside, too.
    let init = Path::new(env!("CARGO_MANIFEST_DIR")).join("../snapshot/tests/uml/init.sh").canonicalize().unwrap();
    let mut kernel = Command::new("linux.uml");
    kernel.args(["mem=384M", "rootfstype=hostfs", "rootflags=/", "rw", "con=null", "con0=null,fd:1", "quiet"]);
    kernel.arg(format!("init={}", init.display())).arg(format!("ubd0={}", path("disk")));
    kernel.arg(format!("ubd1={}", path("disk2")));
    kernel.arg(format!("uml_dir={}", directory.path().display()));
    kernel.arg(format!("test={}", path("test"))).arg(format!("out={}", path("out")));
    let console = File::create(path("console")).unwrap();
    kernel.stdin(Stdio::null()).stdout(console).stderr(Stdio::null()).process_group(0);
    let mut guest = Guest(kernel.spawn().expect("Debian's package user-mode-linux is installed"));
    let deadline = Instant::now() + PATIENCE;
    while guest.0.try_wait().unwrap().is_none() && Instant::now() < deadline {
        sleep(Duration::from_millis(50));
    }
    drop(guest);
    let console = fs::read(path("console")).unwrap();
    let written = fs::read_to_string(path("out")).unwrap_or_default();
    format!("{written}\n[console] {}", String::from_utf8_lossy(&console))
}
