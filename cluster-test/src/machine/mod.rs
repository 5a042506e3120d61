//! What tests need of the machine: a disk whose power can be cut, the proof that it is, and words for a machine without.

pub(crate) mod disk;
mod not_run;
pub(crate) mod proof;
pub(crate) mod tool;

pub(crate) use not_run::not_run;
pub use not_run::{EXIT_CODE_NOT_RUN, NotRun};
