//! What tests of a whole member share.
//!
//! ```text
//!   member    a member in this process: memory or RocksDB, a real log, a real port      its clock can be moved
//!   process   the real binary, in a directory of its own                                it can be killed
//!   client    gRPC clients for either                raw    bytes to a port, as no library would send them
//!   gate      an engine that stops writing when told to
//!   life      log, engine and hooks of a member, which end at a chosen step
//!   past      what was asked and answered, and the state that follows from it
//! ```

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod client;
pub(crate) mod clock;
pub(crate) mod gate;
pub(crate) mod life;
pub(crate) mod member;
pub(crate) mod past;
pub(crate) mod process;
pub(crate) mod raw;
