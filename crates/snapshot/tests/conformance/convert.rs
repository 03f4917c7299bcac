//! A directory on btrfs becomes a subvolume of its own.

use std::path::{Path, PathBuf};

use snapshot::btrfs::convert::Conversion;
use snapshot::id::Id;
use snapshot::mounts::mounts;
use snapshot::provider::{Kind, Provider as _};
use snapshot::{btrfs, detect};

use crate::storage::{Image, run};
use crate::suite::assert_in_place;
use crate::tree::{assert_same, change, describe, fill};

fn conversion(directory: &Path) -> Conversion {
    Conversion::open(directory, &mounts().unwrap()).unwrap().expect("it is on a btrfs")
}

/// A directory two levels down in a subvolume that is mounted, with a nested subvolume and mounts in it.
fn furnished(image: &Image) -> (PathBuf, Vec<PathBuf>) {
    let top = image.mount("top", "");
    run("btrfs", ["-q", "subvolume", "create", &top.join("@").to_string_lossy()]);
    rustix::mount::unmount(&top, rustix::mount::UnmountFlags::empty()).unwrap();
    let directory = image.mount("root", "subvol=@").join("srv/shop");
    std::fs::create_dir_all(directory.join("data")).unwrap();
    fill(&directory);
    run("btrfs", ["-q", "subvolume", "create", &directory.join("data/nested").to_string_lossy()]);
    let apart: Vec<PathBuf> = ["data/nested", "data/nested/mounted", "mounted"].map(PathBuf::from).into();
    for path in &apart[1..] {
        std::fs::create_dir(directory.join(path)).unwrap();
        run("mount", ["-t", "tmpfs", "none", &directory.join(path).to_string_lossy()]);
    }
    for path in &apart {
        std::fs::write(directory.join(path).join("stays"), path.to_str().unwrap()).unwrap();
    }
    (directory, apart)
}

#[test]
fn a_directory_becomes_a_subvolume_in_place_and_each_step_can_be_taken_back() {
    let image = Image::new("2G", &["mkfs.btrfs", "-q"]);
    let (directory, apart) = furnished(&image);
    let before = describe(&directory, &apart);
    let id = Id::random();
    let steps = conversion(&directory).plan(id).unwrap();
    for performed in 0..=steps.len() {
        for step in steps.iter().take(performed).flat_map(|step| [step, step]) {
            conversion(&directory).perform(step).unwrap_or_else(|error| panic!("{}: {error}", step.name));
        }
        for step in steps.iter().rev().flat_map(|step| [step, step]) {
            conversion(&directory).revert(step).unwrap_or_else(|error| panic!("not {}: {error}", step.name));
        }
        let which = format!("after {performed} steps were reverted");
        assert_same(&describe(&directory, &apart), &before, &which);
        assert_in_place(&directory, &apart, &which);
        assert!(!conversion(&directory).old(id).exists());
    }
    conversion(&directory).remove_old(id).expect_err("nothing was converted");
    for step in steps.iter().flat_map(|step| [step, step]) {
        conversion(&directory).perform(step).unwrap();
    }
    assert_same(&describe(&directory, &apart), &before, "after the conversion");
    assert_in_place(&directory, &apart, "after the conversion");
    let converted = conversion(&directory);
    assert_same(&describe(&converted.old(id), &apart), &before, "the old directory");
    converted.remove_old(id).unwrap();
    converted.remove_old(id).expect("what is gone already is success");
    assert!(!converted.old(id).exists());
    assert!(converted.plan(Id::random()).unwrap_err().to_string().ends_with("is a subvolume already"));
    let Ok(Some(btrfs::Place::Subvolume(provider))) = btrfs::open(&directory, &mounts().unwrap()) else {
        panic!("it is a subvolume");
    };
    let handle = provider.create(Id::random()).unwrap();
    change(&directory);
    let steps = provider.plan_switch(&handle, Id::random()).unwrap();
    steps.iter().for_each(|step| provider.perform(step).unwrap());
    assert_same(&describe(&directory, &apart), &before, "after a rollback");
    assert_in_place(&directory, &apart, "after a rollback");
}

#[test]
fn what_was_written_while_a_directory_was_cloned_is_not_lost() {
    let image = Image::new("1G", &["mkfs.btrfs", "-q"]);
    let directory = image.mount("top", "").join("shop");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("file"), "then").unwrap();
    let conversion = conversion(&directory);
    let steps = conversion.plan(Id::random()).unwrap();
    conversion.perform(&steps[0]).unwrap();
    std::fs::write(directory.join("file"), "later").unwrap();
    let error = conversion.perform(&steps[1]).unwrap_err();
    assert!(error.to_string().contains("shop/file was changed while"), "{error}");
    steps.iter().rev().for_each(|step| conversion.revert(step).unwrap());
    assert_eq!(std::fs::read_to_string(directory.join("file")).unwrap(), "later");
    assert_eq!(std::fs::read_dir(image.place("top")).unwrap().count(), 1, "nothing is left of the try");
    let found = detect::provider(&directory, &mounts().unwrap(), std::sync::Arc::new(snapshot::runner::System));
    assert_ne!(found.map(|found| found.kind()).ok(), Some(Kind::Btrfs));
}

#[test]
fn what_is_mounted_itself_is_not_converted() {
    let image = Image::new("1G", &["mkfs.btrfs", "-q"]);
    let top = image.mount("top", "");
    std::fs::create_dir_all(top.join("shop/web")).unwrap();
    let bound = image.place("bound");
    run("mount", [Path::new("--bind"), &top.join("shop/web"), &bound]);
    let error = conversion(&top.join("shop")).plan(Id::random()).unwrap_err();
    assert!(error.to_string().ends_with(&format!("is also mounted at {}", bound.display())), "{error}");
    let error = Conversion::open(&top, &mounts().unwrap()).map(drop).unwrap_err();
    assert!(error.to_string().ends_with("is a mount point"), "{error}");
}
