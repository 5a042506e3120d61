//! Promises of the log. Most run on the disk in memory ([`super::sim`]), which loses what was not synced.

mod crash;
mod damage;
mod fault;
mod format;
mod purge;
mod suite;
mod threads;
mod types;
mod world;
