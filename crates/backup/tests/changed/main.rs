//! Runs that go by what btrfs says of two snapshots store what full walks store, whatever was done in between.

mod deeds;
mod shop;

use shop::{Choice, Shop};

fn compare_rounds(seed: u64, rounds: usize, choice: Choice) {
    let mut random = deeds::Random::new(seed);
    let mut shop = Shop::new(choice);
    deeds::fill(&shop.directory(), &mut random);
    shop.start();
    let mut by_changes = 0;
    for round in 0..rounds {
        if round % 16 == 15 {
            // Only after a mount does btrfs give the numbers of inodes again.
            deeds::remove_newest(&shop.directory());
            shop.mount_again();
        }
        for _ in 0..1 + random.below(30) {
            deeds::perform(&shop.directory(), &mut random);
        }
        by_changes += usize::from(shop.assert_as_full_walk(&format!("seed {seed}, round {round}")));
    }
    assert!(by_changes * 10 >= rounds * 9, "only {by_changes} of {rounds} runs went by what changed");
}

#[test]
fn a_run_by_changes_stores_what_a_full_walk_stores() {
    compare_rounds(1, 60, Choice::default());
}

#[test]
fn so_it_does_with_excludes_and_caches() {
    compare_rounds(2, 60, Choice { excludes: true, ..Choice::default() });
}

#[test]
fn so_it_does_on_one_file_system_and_below_the_subvolume() {
    compare_rounds(3, 60, Choice { one_file_system: true, below: Some("a"), ..Choice::default() });
}

#[test]
fn what_is_looked_at_follows_the_change_and_not_the_size() {
    let mut shop = Shop::new(Choice::default());
    let directory = shop.directory();
    for one in 0..20 {
        for two in 0..10 {
            let directory = directory.join(format!("{one}/{two}"));
            std::fs::create_dir_all(&directory).unwrap();
            for file in 0..20 {
                std::fs::write(directory.join(format!("f{file}")), format!("{one} {two} {file}")).unwrap();
            }
        }
    }
    shop.start();
    let nothing = shop.run_by_changes();
    assert!(nothing.looked_at < 20, "{}", nothing.looked_at);
    for one in 0..5 {
        std::fs::write(directory.join(format!("{one}/3/f7")), "changed").unwrap();
    }
    std::fs::write(directory.join("7/7/new"), "new").unwrap();
    std::fs::remove_dir_all(directory.join("9/9")).unwrap();
    let run = shop.run_by_changes();
    let summary = &run.summary;
    assert_eq!((summary.files_new, summary.files_changed, summary.total_files_processed), (1, 5, 4000 + 1 - 20));
    // Of a directory that was not changed itself only the names that lead on, and of the others no file.
    assert!(run.looked_at < 60, "{} names and directories were looked at", run.looked_at);
    // A tree of each directory on the way, and those that are gone.
    let trees = shop.packs_read();
    assert!(trees < 40, "{trees} trees were read");
}

#[test]
fn more_changes_than_may_be_held_are_not_told() {
    let mut shop = Shop::new(Choice::default());
    shop.start();
    deeds::fill(&shop.directory(), &mut deeds::Random::new(5));
    assert!(shop.dirty_paths(1000).is_some());
    assert!(shop.dirty_paths(50).is_none());
    // The next one is told again.
    assert!(shop.run_by_changes().went_by_changes);
}

#[test]
fn changes_since_another_backup_or_of_another_choice_are_not_gone_by() {
    let mut shop = Shop::new(Choice::default());
    deeds::fill(&shop.directory(), &mut deeds::Random::new(4));
    shop.start();
    assert!(shop.run_by_changes().went_by_changes);
    assert!(!shop.run_with(|options| options.changed.as_mut().unwrap().base.tree.0[0] ^= 1).went_by_changes);
    assert!(!shop.run_with(|options| options.exclude_caches = true).went_by_changes);
    assert!(!shop.run_with(|options| options.exclude_larger_than = Some(1)).went_by_changes);
    assert!(!shop.run_with(|options| options.parent = None).went_by_changes);
    assert!(!shop.run_with(|options| options.paths.push("/etc/hostname".into())).went_by_changes);
    assert!(shop.run_with(|_| {}).went_by_changes);
}
