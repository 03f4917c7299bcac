//! A database file brought back.
