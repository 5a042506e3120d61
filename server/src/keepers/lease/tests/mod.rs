//! The keeper against a seat that does what the test says, on a clock that stands still: no test takes any time.

mod checkpoints;
mod fake;
mod rules;
mod table;
mod two_leaders;
