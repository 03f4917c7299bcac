//! What differs between two trees, and bringing back parts of one, on real file systems.

mod differing;
#[path = "../disk/mod.rs"]
mod disk;
mod undoing;
