//! The promises of watching, one test each: hazards that hit systems like this one, and a model of all guarantees.

mod hazards;
mod index;
mod install;
mod model;
mod progress;
mod slow;
mod streams;
pub(crate) mod support;
mod threads;
mod wire;
