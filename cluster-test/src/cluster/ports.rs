//! Ports that nobody uses, below those that the kernel hands to outgoing connections: a member that is down keeps its port.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, bail};

const PORT_MIN: u32 = 12_000;
const PORT_MAX: u32 = 31_000;

/// A port of 127.0.0.1 that can be listened on now, and that this process has not given away before.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let span = PORT_MAX - PORT_MIN;
    // Test programs that run side by side start far from each other.
    let start = std::process::id().wrapping_mul(7_919) % span;
    for _ in 0..span {
        let port = PORT_MIN + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % span;
        let port = u16::try_from(port).expect("PORT_MAX fits");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between {PORT_MIN} and {PORT_MAX}")
}
