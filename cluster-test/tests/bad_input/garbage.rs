//! Bytes that are no request at all, on the port where requests are expected.

use anyhow::{Context as _, Result};
use cluster_test::cluster::Member;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::send::Sender;

const SEED: u64 = 7;
const CONNECTIONS: usize = 300;
const MESSAGES: usize = 3_000;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Whoever keeps a connection open after nonsense is left alone after this long.
const PATIENCE: std::time::Duration = std::time::Duration::from_millis(20);

pub async fn pour(member: &Member) -> Result<()> {
    let mut random = StdRng::seed_from_u64(SEED);
    for at in 0..CONNECTIONS {
        let mut bytes: Vec<u8> = if at % 2 == 0 { PREFACE.to_vec() } else { Vec::new() };
        let length = random.random_range(1..2_000);
        bytes.extend((0..length).map(|_| random.random::<u8>()));
        let mut stream = TcpStream::connect(member.endpoint()).await.context("connect")?;
        // Fails where the member has hung up already, which it may.
        let _ = stream.write_all(&bytes).await;
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
    }
    let sender = Sender::connect(&member.url()).await?;
    let paths = [
        "/etcdserverpb.KV/Range",
        "/etcdserverpb.KV/Put",
        "/etcdserverpb.KV/DeleteRange",
        "/etcdserverpb.KV/Txn",
        "/etcdserverpb.Lease/LeaseGrant",
        "/etcdserverpb.Lease/LeaseRevoke",
        "/etcdserverpb.Lease/LeaseTimeToLive",
        "/etcdserverpb.Maintenance/Alarm",
        "/etcdserverpb.Maintenance/HashKV",
        "/etcdserverpb.Cluster/MemberList",
        "/etcdserverpb.Auth/RoleGrantPermission",
        "/v3electionpb.Election/Leader",
    ];
    for at in 0..MESSAGES {
        let length = random.random_range(0..64);
        // Small numbers are field tags and lengths more often than random bytes are.
        let bytes: Vec<u8> =
            (0..length).map(|_| if random.random() { random.random_range(0..32) } else { random.random() }).collect();
        let _ = sender.raw(paths[at % paths.len()], bytes.into()).await;
    }
    Ok(())
}
