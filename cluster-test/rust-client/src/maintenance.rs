//! Status, hashes, snapshot, members, users and roles.

use etcd_client::{AlarmAction, AlarmType, Client, Error, Permission};

use crate::{refusal, step};

pub async fn run(client: &mut Client) -> Result<(), Error> {
    member(client).await?;
    users(client).await
}

async fn member(client: &mut Client) -> Result<(), Error> {
    step("maintenance");
    let status = client.status().await?;
    let itself = status.header().is_some_and(|header| header.member_id() == status.leader());
    println!(
        "version {}, leads {itself}, learner {}, errors {:?}",
        status.version(),
        status.is_learner(),
        status.errors()
    );
    println!("sizes {}", status.raft_used_db_size() > 0 && status.raft_used_db_size() <= status.db_size());
    let (now, again) = (client.hash_kv(0).await?, client.hash_kv(0).await?);
    println!("hash equal {}, compacted {}", now.hash() == again.hash(), now.compact_version() > 0);
    println!("hash of the future: {}", refusal(client.hash_kv(1 << 40).await));
    println!("hash of all: {}", client.hash().await?.hash() != 0);
    let alarms = client.alarm(AlarmAction::Get, AlarmType::None, None).await?;
    println!("alarms {}", alarms.alarms().len());
    client.defragment().await?;
    let mut stream = client.snapshot().await?;
    let (mut bytes, mut left) = (0, 0);
    while let Some(part) = stream.message().await? {
        bytes += part.blob().len();
        left = part.remaining_bytes();
    }
    println!("snapshot of whole blocks and a digest {}, left {left}", bytes % 512 == 32);
    step("members");
    let members = client.member_list().await?;
    let me = members.members()[0].id();
    println!("{} member, {}", members.members().len(), members.members()[0].name());
    println!("remove nobody: {}", refusal(client.member_remove(12345).await));
    println!("update nobody: {}", refusal(client.member_update(12345, ["http://127.0.0.1:1".to_owned()]).await));
    println!("promote nobody: {}", refusal(client.member_promote(12345).await));
    println!("promote a voter: {}", refusal(client.member_promote(me).await));
    println!("add nonsense: {}", refusal(client.member_add(["nonsense"], None).await));
    println!("move the lead to nobody: {}", refusal(client.move_leader(12345).await));
    Ok(())
}

async fn users(client: &mut Client) -> Result<(), Error> {
    step("users");
    client.role_add("reader").await?;
    println!("again: {}", refusal(client.role_add("reader").await));
    client.role_grant_permission("reader", Permission::read("a").with_prefix()).await?;
    client.role_grant_permission("reader", Permission::read_write("c")).await?;
    for permission in client.role_get("reader").await?.permissions() {
        let (key, end) = (permission.key().escape_ascii(), permission.range_end().escape_ascii());
        println!("may {:?} {key} to {end}", permission.get_type());
    }
    client.user_add("alice", "secret", None).await?;
    println!("again: {}", refusal(client.user_add("alice", "secret", None).await));
    client.user_grant_role("alice", "reader").await?;
    println!("no such role: {}", refusal(client.user_grant_role("alice", "writer").await));
    println!("alice has {:?}", client.user_get("alice").await?.roles());
    println!("users {:?}, roles {:?}", client.user_list().await?.users(), client.role_list().await?.roles());
    println!("enable without root: {}", refusal(client.auth_enable().await));
    client.user_change_password("alice", "other").await?;
    client.user_revoke_role("alice", "reader").await?;
    println!("again: {}", refusal(client.user_revoke_role("alice", "reader").await));
    client.user_delete("alice").await?;
    client.role_delete("reader").await?;
    println!("no such user: {}", refusal(client.user_get("alice").await));
    println!("no such role: {}", refusal(client.role_get("reader").await));
    Ok(())
}
