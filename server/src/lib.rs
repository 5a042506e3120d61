//! A Quorate member: everything that has to do with time, chance, disks and networks around the replicated state.
//!
//! ```text
//!   rpc  http                    who asks, in which words
//!     └─┬──┘
//!   keepers  node  watch         what is proposed, read, followed
//!            │
//!          raft                  what order it has
//!            │
//!      quorate_store             what it means
//! ```

mod bootstrap;
pub mod config;
pub mod directory;
mod discovery;
pub mod fault;
pub mod history;
pub mod http;
pub mod identity;
pub mod keepers;
pub mod net;
pub mod node;
mod observe;
pub mod raft;
pub mod rpc;
pub mod server;
pub mod telemetry;
pub mod watch;
