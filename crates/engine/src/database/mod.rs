//! A project's databases: held for the moment of a snapshot, dumped, brought back, and proven to be whole.
//!
//! What is known of a database in a snapshot is written into the snapshot's record ([`held::Around`]): where its files
//! lay, whether all of them are in it, and what was done to it. So a proof needs neither the configuration nor the server
//! of then. Production is only ever asked; what is brought back lies beside it until it is whole.
//!
//! Does not know of servers' own ways ([`workload`]), nor of terminals.

pub mod held;
mod layout;
