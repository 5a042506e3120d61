//! What goes to the standard output; nowhere else does anything.

#![allow(clippy::print_stdout, reason = "printing is what this room is for")]

use quorate_client::{KeyValue, Status};

pub(crate) fn line(text: &str) {
    println!("{text}");
}

/// Key and value on a line each, as etcdctl prints them.
pub(crate) fn key_values(kvs: &[KeyValue]) {
    for kv in kvs {
        println!("{}\n{}", String::from_utf8_lossy(&kv.key), String::from_utf8_lossy(&kv.value));
    }
}

pub(crate) fn status(endpoint: &str, status: &Status) {
    let revision = status.header.as_ref().map_or(0, |header| header.revision);
    println!("{endpoint}: version {}, revision {revision}, {} bytes in use", status.version, status.db_size_in_use);
}
