//! Leases, and the lock and election services, which run in the server.

use etcd_client::{
    CampaignResponse, Client, Error, GetOptions, LeaderKey, LeaseGrantOptions, LeaseTimeToLiveOptions, LockOptions,
    ProclaimOptions, PutOptions, ResignOptions,
};

use crate::{pair, refusal, revision, step};

pub async fn run(client: &mut Client) -> Result<(), Error> {
    leases(client).await?;
    locks(client).await?;
    elections(client).await
}

fn named(text: &[u8], lease: i64) -> String {
    String::from_utf8_lossy(text).replace(&format!("{lease:x}"), "<lease>")
}

async fn leases(client: &mut Client) -> Result<(), Error> {
    step("leases");
    let chosen = client.lease_grant(600, Some(LeaseGrantOptions::new().with_id(77))).await?;
    println!("granted {} with ID {}, error {:?}", chosen.ttl(), chosen.id(), chosen.error());
    println!("again: {}", refusal(client.lease_grant(600, Some(LeaseGrantOptions::new().with_id(77))).await));
    println!("too long: {}", refusal(client.lease_grant(9_000_000_001, None).await));
    let free = client.lease_grant(600, None).await?;
    println!("granted {}, ID positive {}", free.ttl(), free.id() > 0);
    client.put("l/1", "1", Some(PutOptions::new().with_lease(77))).await?;
    let left = client.lease_time_to_live(77, Some(LeaseTimeToLiveOptions::new().with_keys())).await?;
    let about = (590..=600).contains(&left.ttl());
    println!("granted {}, left about that {about}, keys {}", left.granted_ttl(), left.keys().len());
    println!("none: {}", client.lease_time_to_live(78, None).await?.ttl());
    println!("leases {}", client.leases().await?.leases().len());
    let (mut keeper, mut answers) = client.lease_keep_alive(77).await?;
    keeper.keep_alive().await?;
    println!("kept alive: {}", answers.message().await?.map_or(-1, |answer| answer.ttl()));
    println!("revoked at {}", revision(client.lease_revoke(77).await?.header()));
    println!("left {}", client.get("l/1", None).await?.count());
    println!("again: {}", refusal(client.lease_revoke(77).await));
    keeper.keep_alive().await?;
    println!("kept alive: {}", answers.message().await?.map_or(-1, |answer| answer.ttl()));
    client.lease_revoke(free.id()).await?;
    Ok(())
}

async fn locks(client: &mut Client) -> Result<(), Error> {
    step("locks");
    let (one, two) = (client.lease_grant(600, None).await?.id(), client.lease_grant(600, None).await?.id());
    let held = client.lock("m", Some(LockOptions::new().with_lease(one))).await?;
    println!("locked {}", named(held.key(), one));
    let again = client.lock("m", Some(LockOptions::new().with_lease(one))).await?;
    println!("locked again {}", named(again.key(), one));
    let mut other = client.clone();
    let waiting = tokio::spawn(async move { other.lock("m", Some(LockOptions::new().with_lease(two))).await });
    while client.get("m/", Some(GetOptions::new().with_prefix().with_count_only())).await?.count() < 2 {}
    println!("waits {}", !waiting.is_finished());
    client.unlock(held.key()).await?;
    let won = waiting.await.expect("it does not panic")?;
    println!("then locked {}", named(won.key(), two));
    client.lease_revoke(two).await?;
    println!("keys left {}", client.get("m/", Some(GetOptions::new().with_prefix())).await?.count());
    println!("unlock nothing: {}", refusal(client.unlock("m/none").await));
    println!("no such lease: {}", refusal(client.lock("m", Some(LockOptions::new().with_lease(12345))).await));
    client.lease_revoke(one).await?;
    Ok(())
}

fn leads(answer: &CampaignResponse) -> LeaderKey {
    answer.leader().expect("who campaigns comes to lead").clone()
}

async fn elections(client: &mut Client) -> Result<(), Error> {
    step("elections");
    let (one, two) = (client.lease_grant(600, None).await?.id(), client.lease_grant(600, None).await?.id());
    println!("nobody: {}", refusal(client.leader("e").await));
    let key = leads(&client.campaign("e", "one", one).await?);
    println!("{} {} leads", String::from_utf8_lossy(key.name()), named(key.key(), one));
    let mut observed = client.observe("e").await?;
    let mut see = async || -> Result<String, Error> {
        let seen = observed.message().await?.expect("the stream stays");
        Ok(seen.kv().map_or("none".to_owned(), |kv| kv.value_str().unwrap_or("?").to_owned()))
    };
    println!("observed {}", see().await?);
    client.proclaim("one again", Some(ProclaimOptions::new().with_leader(key.clone()))).await?;
    println!("observed {}", see().await?);
    let mut other = client.clone();
    let waiting = tokio::spawn(async move { other.campaign("e", "two", two).await });
    while client.get("e/", Some(GetOptions::new().with_prefix().with_count_only())).await?.count() < 2 {}
    let leader = client.leader("e").await?;
    println!("leads {}", leader.kv().map_or("none".to_owned(), |kv| kv.value_str().unwrap_or("?").to_owned()));
    client.resign(Some(ResignOptions::new().with_leader(key.clone()))).await?;
    let next = leads(&waiting.await.expect("it does not panic")?);
    println!("observed {}", see().await?);
    println!(
        "proclaim too late: {}",
        refusal(client.proclaim("x", Some(ProclaimOptions::new().with_leader(key))).await)
    );
    println!("proclaim as nobody: {}", refusal(client.proclaim("x", None).await));
    println!("resign as nobody: {}", refusal(client.resign(None).await));
    println!("campaign without a lease: {}", refusal(client.campaign("e2", "x", 12345).await));
    client.resign(Some(ResignOptions::new().with_leader(next))).await?;
    println!("left: {}", pair(client.get("e/", Some(GetOptions::new().with_prefix())).await?.kvs().first()));
    Ok(())
}
