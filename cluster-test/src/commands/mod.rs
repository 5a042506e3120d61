//! Verbs with so many flags that they would hide the others in `main.rs`.

pub(crate) mod bench;
pub(crate) mod diff;
