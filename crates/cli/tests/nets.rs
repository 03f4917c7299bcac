//! Where the storage has no snapshots, a local backup is the net: guards, rollbacks and single files brought back, on a
//! real ext4, an XFS without reflink, and the machine's own file system.
#![allow(missing_docs)]

mod environment;

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use environment::Run;
use environment::btrfs::{Shop, run};

/// On a file system without copy-on-write, with `index`, which holds `one`.
fn shop(make: &[&str]) -> Shop {
    let shop = Shop::on(make);
    fs::create_dir(shop.directory()).unwrap();
    shop.write("index", "one");
    shop
}

fn ext4() -> Shop {
    shop(&["mkfs.ext4", "-q"])
}

fn guard(shop: &Shop, options: &[&str], script: &str) -> Run {
    let mut command = shop.environment.command();
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("SHOP", shop.directory());
    command.args(["guard", &shop.name()]).args(options).args(["--", "sh", "-c", script]);
    command.output().unwrap().into()
}

/// A tree in one text: everything but times of access and of change.
fn look(directory: &Path) -> String {
    let script = "find . -printf '%P %y %m %U:%G %s %T@ %l %n\\n' | grep -v ' d ' | sort; find . -type d -printf '%P %m %U:%G %T@\\n' | sort; \
                  find . -type f | sort | xargs -d '\\n' sha256sum; getfattr -Rdm- . 2>/dev/null; \
                  find . -links +1 -type f -printf '%i %P\\n' | sort -k2 | awk '{ if (!($1 in n)) n[$1] = $2; print n[$1], $2 }'";
    let output = Command::new("sh").args(["-euc", script]).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Something of every kind.
fn fill(directory: &Path) {
    for below in ["bin", "etc/deep", "lib", "gone"] {
        fs::create_dir_all(directory.join(below)).unwrap();
    }
    for number in 0..30 {
        fs::write(directory.join(format!("lib/{number}.so")), format!("library {number}").repeat(100)).unwrap();
    }
    fs::write(directory.join("bin/tool"), "#!/bin/sh\necho old\n").unwrap();
    fs::set_permissions(directory.join("bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(directory.join("bin/tool"), directory.join("bin/tool2")).unwrap();
    fs::hard_link(directory.join("bin/tool"), directory.join("etc/deep/tool3")).unwrap();
    fs::write(directory.join("gone/file"), "gone").unwrap();
    symlink("../lib/1.so", directory.join("etc/link")).unwrap();
    run(
        "mknod",
        ["-m", "640"].map(Path::new).into_iter().chain([
            &*directory.join("etc/null"),
            Path::new("c"),
            Path::new("1"),
            Path::new("3"),
        ]),
    );
    run("mkfifo", [directory.join("etc/pipe")]);
    run(
        "setfattr",
        ["-n", "user.note", "-v", "kept"].map(PathBuf::from).into_iter().chain([directory.join("lib/3.so")]),
    );
    run("chown", [PathBuf::from("123:456"), directory.join("lib/4.so")]);
}

/// What an upgrade may do, and worse.
const CHANGES: &str = "cd $SHOP
    echo new > lib/1.so.new && mv lib/1.so.new lib/1.so
    printf X | dd of=lib/2.so conv=notrunc bs=1 seek=3 status=none
    setfattr -x user.note lib/3.so; chown 0:0 lib/4.so; chmod 600 lib/5.so; touch -d 2001-01-01 lib/6.so
    printf '#!/bin/sh\\necho new\\n' > bin/tool
    rm etc/deep/tool3; rm -r gone; echo file > gone
    rm etc/link; mkdir etc/link; echo below > etc/link/below
    rm etc/null etc/pipe; ln -s nowhere etc/pipe
    mkdir -p new/er; echo new > new/er/file; ln lib/7.so lib/7-linked.so; ln -f lib/8.so lib/9.so
    mv lib/10.so lib/moved.so; mv lib/11.so tmp; mv lib/12.so lib/11.so; mv tmp lib/12.so
    echo two > index";

#[test]
fn a_command_that_fails_leaves_no_trace_and_it_is_said_that_the_net_is_slower() {
    for shop in [ext4(), shop(&["mkfs.xfs", "-q", "-m", "reflink=0"])] {
        fill(&shop.directory());
        let before = look(&shop.directory());
        let run = guard(&shop, &["--yes"], &format!("{CHANGES}; false"));
        assert_eq!(run.code, 1, "{run:?}");
        for said in ["using a local backup as net; slower and not atomic", "taken as net in", "snapback adopt"] {
            assert_eq!(run.stderr.matches(said).count(), 1, "{said}: {run:?}");
        }
        assert_eq!(look(&shop.directory()), before, "{}", run.stderr);
        assert!(
            fs::read_dir(shop.directory()).unwrap().all(|entry| !entry
                .unwrap()
                .file_name()
                .to_str()
                .unwrap()
                .starts_with('.'))
        );
        // And forward again.
        shop.run(["rollback", "--undo", "--yes"]).succeeds();
        assert_eq!(shop.read("index"), "two\n");
        assert_eq!(shop.read("etc/link/below"), "below\n");
    }
}

#[test]
fn a_check_that_fails_goes_back_and_one_that_passes_does_not() {
    let shop = ext4();
    let run = guard(
        &shop,
        &["--yes", "--check", "grep -q better $SHOP/index", "--check-limit", "0s"],
        "echo bad > $SHOP/index",
    );
    assert_eq!((run.code, shop.read("index").as_str()), (1, "one"), "{run:?}");
    guard(&shop, &["--check", "grep -q better $SHOP/index"], "echo better > $SHOP/index").succeeds();
    assert_eq!(shop.read("index"), "better\n");
    let list = shop.list();
    assert!(list.iter().all(|one| one["kind"] == "backup"), "{list:?}");
}

#[test]
fn without_a_confirmation_the_watchdog_takes_it_back() {
    let shop = ext4();
    let run = guard(&shop, &["--confirm", "1s"], "echo broken > $SHOP/index");
    assert_eq!((run.code, shop.read("index").as_str()), (1, "one"), "{run:?}");
}

#[test]
fn snapshots_of_both_kinds_are_named_listed_compared_and_expire_alike() {
    let shop = ext4();
    fill(&shop.directory());
    let (first, _) = (shop.snapshot(), shop.write("index", "two"));
    let second = shop.snapshot();
    shop.write("index", "three");
    fs::remove_file(shop.directory().join("lib/1.so")).unwrap();
    let text = shop.run(["snapshot", "list"]).succeeds();
    assert!(text.stdout.contains(&first) && text.stdout.contains("backup"), "{text:?}");
    let changed = shop.run(["snapshot", "diff", "latest"]).succeeds();
    assert!(changed.stdout.contains("M  ") && changed.stdout.contains("lib/1.so"), "{changed:?}");
    let between = shop.run(["snapshot", "diff", &first, &second]).succeeds();
    assert!(between.stdout.contains("index") && !between.stdout.contains("lib/1.so"), "{between:?}");
    // A single file, the rest stays.
    shop.run(["snapshot", "undo", "latest~1", "lib/1.so"]).succeeds();
    assert_eq!((shop.read("index").as_str(), &shop.read("lib/1.so")[..9]), ("three", "library 1"));
    let planned = shop.run(["rollback", &first, "--dry-run"]).succeeds();
    assert!(planned.stderr.contains("1 file changed since"), "{planned:?}");
    shop.edit("snapshots", &first, |record| record["expires"] = "2020-01-01T00:00:00Z".into());
    shop.run(["snapshot", "expire"]).succeeds();
    assert_eq!(shop.list().len(), 1);
    shop.run(["rollback", "latest", "--yes"]).succeeds();
    assert_eq!(shop.read("index"), "two");
    shop.run(["snapshot", "delete", &second]).succeeds();
    assert_eq!(shop.list().len(), 1, "what the rollback left is there");
}

#[test]
fn the_next_net_reads_what_changed_alone_even_when_the_last_has_expired() {
    let shop = ext4();
    let large: Vec<u8> = (0..30_000_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    fs::write(shop.directory().join("large"), large).unwrap();
    let id = shop.snapshot();
    shop.run(["snapshot", "delete", &id]).succeeds();
    let repository = shop.environment.path("state/net/repository");
    let size = || {
        run("du", ["-sb".as_ref(), repository.as_os_str()]).split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    let before = size();
    shop.snapshot();
    assert!(size() < before + 100_000, "{} after {before}", size());
}

#[test]
fn what_others_use_is_left_alone() {
    let shop = ext4();
    // The state directory in the tree, as on a server whose root is guarded.
    let mut command = shop.environment.command();
    let state = shop.directory().join("var/snapback");
    command.env("SNAPBACK_STATE_DIRECTORY", &state).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let below = shop.directory().join("mounted");
    fs::create_dir(&below).unwrap();
    run("mount", ["-t", "tmpfs", "none", below.to_str().unwrap()]);
    fs::write(below.join("stays"), "theirs").unwrap();
    let image = shop.directory().join("image");
    fs::File::create(&image).unwrap().set_len(1 << 20).unwrap();
    let device = run("losetup", ["--find", "--show", image.to_str().unwrap()]);
    let inode = image.metadata().unwrap().ino();
    let socket = shop.directory().join("socket");
    let script =
        format!("echo two > {0}/index; echo x >> {0}/image; mkdir {0}/new; mv {0}/index {0}/new/", shop.name());
    let listener = UnixListener::bind(&socket).unwrap();
    let ran: Run = command
        .args(["guard", &shop.name(), "--yes", "--", "sh", "-c", &format!("{script}; false")])
        .output()
        .unwrap()
        .into();
    run("losetup", ["--detach", device.trim()]);
    run("umount", ["-l", below.to_str().unwrap()]);
    assert_eq!((ran.code, shop.read("index").as_str()), (1, "one"), "{ran:?}");
    assert!(!shop.directory().join("new").exists() && state.join("net/repository/config").exists());
    assert_eq!(image.metadata().unwrap().ino(), inode, "what a loop device writes to is the same file");
    assert!(socket.exists(), "a socket belongs to whoever listens");
    drop(listener);
}

#[test]
fn a_program_that_runs_from_a_file_goes_on_when_it_is_replaced() {
    let shop = ext4();
    let program = shop.directory().join("sleep");
    fs::copy("/bin/sleep", &program).unwrap();
    let id = shop.snapshot();
    fs::remove_file(&program).unwrap();
    fs::copy("/bin/cat", &program).unwrap();
    let mut running = Command::new(&program).stdin(std::process::Stdio::piped()).spawn().unwrap();
    let rolled = shop.run(["rollback", &id, "--yes"]);
    let goes_on = running.try_wait().unwrap().is_none();
    running.kill().unwrap();
    running.wait().unwrap();
    assert!(goes_on && rolled.code == 0, "{rolled:?}");
    assert!(rolled.stderr.contains("in use by"), "{rolled:?}");
    assert_eq!(fs::read(&program).unwrap(), fs::read("/bin/sleep").unwrap());
}

#[test]
fn on_the_machines_own_file_system_it_works_without_a_mount_of_its_own() {
    let environment = environment::Environment::empty();
    let directory = environment.files();
    fill(&directory);
    let before = look(&directory);
    let mut command = environment.command();
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("SHOP", &directory);
    let run: Run = command
        .arg("guard")
        .arg(&directory)
        .args(["--yes", "--", "sh", "-c", &format!("{CHANGES}; false")])
        .output()
        .unwrap()
        .into();
    assert_eq!(run.code, 1, "{run:?}");
    assert_eq!(look(&directory), before, "{}", run.stderr);
}

#[test]
fn a_lost_password_and_a_damaged_repository_are_told_before_anything_begins() {
    let shop = ext4();
    let id = shop.snapshot();
    shop.write("index", "two");
    let net = shop.environment.path("state/net");
    assert_eq!(fs::metadata(net.join("password")).unwrap().permissions().mode() & 0o777, 0o600);
    fs::rename(net.join("password"), net.join("elsewhere")).unwrap();
    for run in [guard(&shop, &["--yes"], "echo three > $SHOP/index"), shop.run(["rollback", &id, "--yes"])] {
        assert!(run.code != 0 && run.stderr.contains("password") && run.stderr.contains("is lost"), "{run:?}");
        assert_eq!(shop.read("index"), "two");
    }
    fs::write(net.join("password"), "wrong\n").unwrap();
    let wrong = shop.run(["rollback", &id, "--yes"]);
    assert!(wrong.stderr.contains("wrong password") && shop.read("index") == "two", "{wrong:?}");
    fs::rename(net.join("elsewhere"), net.join("password")).unwrap();
    for pack in walk(&net.join("repository/data")) {
        fs::write(pack, "nothing").unwrap();
    }
    let damaged = shop.run(["rollback", &id, "--yes"]);
    assert!(damaged.code != 0 && damaged.stderr.contains("repo check"), "{damaged:?}");
    assert_eq!(shop.read("index"), "two");
    fs::remove_dir_all(net.join("repository")).unwrap();
    let gone = shop.run(["rollback", &id, "--yes"]);
    assert!(gone.code != 0 && gone.stderr.contains("is gone"), "{gone:?}");
}

fn walk(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn a_full_disk_refuses_the_net_or_the_way_back_and_changes_nothing() {
    let shop = ext4();
    let state = shop.directory().join("state");
    let run_with = |arguments: &[&str]| -> Run {
        let mut command = shop.environment.command();
        command.env("SNAPBACK_STATE_DIRECTORY", &state).args(arguments).output().unwrap().into()
    };
    let mut noise = Vec::new();
    fs::File::open("/dev/urandom").unwrap().take(60_000_000).read_to_end(&mut noise).unwrap();
    fs::write(shop.directory().join("noise"), &noise).unwrap();
    let fill_to = |left: u64| {
        let all = rustix::fs::statvfs(shop.directory()).unwrap();
        let size = (all.f_bavail * all.f_frsize).saturating_sub(left);
        run("fallocate", ["-l", &size.to_string(), shop.directory().join("filler").to_str().unwrap()]);
    };
    fill_to(30_000_000);
    let refused = run_with(&["snapshot", "create", &shop.name()]);
    assert!(refused.code != 0 && refused.stderr.contains("too little room"), "{refused:?}");
    let all = rustix::fs::statvfs(shop.directory()).unwrap();
    assert!(all.f_bavail * all.f_frsize > 20_000_000, "what was stored of it is removed again");
    fs::remove_file(shop.directory().join("filler")).unwrap();
    run_with(&["snapshot", "create", &shop.name()]).succeeds();
    fs::remove_file(shop.directory().join("noise")).unwrap();
    fill_to(40_000_000);
    let refused = run_with(&["rollback", "latest", "--yes"]);
    assert!(refused.code != 0 && refused.stderr.contains("room"), "{refused:?}");
    assert!(!shop.directory().join("noise").exists() && shop.read("index") == "one");
    fs::remove_file(shop.directory().join("filler")).unwrap();
    run_with(&["rollback", "latest", "--yes"]).succeeds();
    assert_eq!(fs::read(shop.directory().join("noise")).unwrap(), noise);
}

#[test]
fn the_root_of_a_system_is_guarded_while_it_runs_from_it() {
    let shop = ext4();
    let root = shop.directory();
    // Programs with what they are linked to, as small a system as there can be.
    let script = "for program in \"$SNAPBACK\" /bin/sh /bin/mv /bin/rm; do
        for file in $(ldd \"$program\" | grep -o '/[^ ]*'); do mkdir -p .$(dirname $file); cp -Ln $file .$file; done
        mkdir -p bin; cp -L $program bin/
    done; mkdir -p etc proc run tmp var/lib; mount -t proc none proc; echo root:x:0:0::/:/bin/sh > etc/passwd; ln -s /proc/self/mounts etc/mtab";
    let made = Command::new("sh")
        .args(["-euc", script])
        .env("SNAPBACK", env!("CARGO_BIN_EXE_snapback"))
        .current_dir(&root)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    fs::write(root.join("tmp/theirs"), "kept").unwrap();
    let breaks = "echo two > /index; echo lost > /etc/mtab.new; mv /etc/mtab.new /etc/mtab; echo > /bin/new; mv /bin/new /bin/snapback; \
                  echo new > /tmp/theirs; rm /bin/rm; false";
    let snapback = root.join("bin/snapback");
    let program = fs::read(&snapback).unwrap();
    let ran: Run = Command::new("chroot")
        .arg(&root)
        .args(["/bin/snapback", "guard", "/", "--yes", "--", "/bin/sh", "-c", breaks])
        .env_clear()
        .env("PATH", "/usr/bin:/bin:/usr/sbin")
        .output()
        .unwrap()
        .into();
    run("umount", ["-l", root.join("proc").to_str().unwrap()]);
    assert_eq!((ran.code, shop.read("index").as_str()), (1, "one"), "{ran:?}");
    assert_eq!(fs::read_link(root.join("etc/mtab")).unwrap(), Path::new("/proc/self/mounts"));
    assert!(root.join("bin/rm").exists() && fs::read(&snapback).unwrap() == program);
    assert_eq!(shop.read("tmp/theirs"), "new\n", "what each boot makes anew is neither kept nor taken back");
    assert!(ran.stderr.contains("a root file system on btrfs"), "{ran:?}");
}

#[test]
fn nets_lie_where_the_configuration_says_and_those_before_stay_usable() {
    let shop = ext4();
    let config = shop.environment.path("snapback.toml");
    let run = |arguments: &[&str]| -> Run {
        let mut command = shop.environment.command();
        command.env("SNAPBACK_CONFIG", &config).args(arguments).output().unwrap().into()
    };
    fs::write(&config, "").unwrap();
    run(&["snapshot", "create", &shop.name()]).succeeds();
    let before = shop.list()[0]["id"].as_str().unwrap().to_owned();
    // Within what it is a net of, where it is spared.
    let place = shop.directory().join("nets");
    fs::write(&config, format!("[net]\ndirectory = {place:?}\n")).unwrap();
    shop.write("index", "two");
    run(&["snapshot", "create", &shop.name()]).succeeds();
    assert!(place.join("repository/config").exists());
    assert!(!place.join("password").exists(), "it stays in the state directory");
    shop.write("index", "three");
    run(&["rollback", "latest", "--yes"]).succeeds();
    assert_eq!(shop.read("index"), "two");
    run(&["rollback", &before, "--yes"]).succeeds();
    assert_eq!(shop.read("index"), "one");
    // Nothing is lost of the other place by it, nor is a mistake in the file in the way.
    fs::write(&config, "[net]\ndirectroy = 1\n").unwrap();
    run(&["rollback", "--undo", "--yes"]).succeeds();
    assert_eq!(shop.read("index"), "two");
}
