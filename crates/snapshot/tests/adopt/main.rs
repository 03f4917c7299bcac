//! A directory on ext4, moved onto a volume and back. Needs root.

#[path = "../disk/mod.rs"]
mod disk;
mod kill;
mod moving;
mod site;
