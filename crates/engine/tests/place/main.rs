//! Where things lie: on machines that exist on paper, on real loop devices, and in a guest with a real device mapper
//! and real RAID.
#![allow(missing_docs)]

mod guest;
mod machine;
mod paper;
mod real;
