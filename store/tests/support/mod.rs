//! What the store's tests share.
//!
//! ```text
//!   generate ─▶ History ◀─▶ script (text)         model: etcd's rules, said plainly
//!                  │                                 │
//!                  └──▶ run: store and model, step by step, compared by `probe` ──▶ Err(text) ─▶ shrink ─▶ script
//! ```

#![allow(dead_code, reason = "every test file uses a part of it")]

pub(crate) mod build;
pub(crate) mod chance;
pub(crate) mod counting;
pub(crate) mod generate;
pub(crate) mod history;
pub(crate) mod install;
pub(crate) mod model;
pub(crate) mod physical;
pub(crate) mod print;
pub(crate) mod probe;
pub(crate) mod run;
pub(crate) mod script;
pub(crate) mod shrink;
pub(crate) mod subject;
pub(crate) mod wild;
