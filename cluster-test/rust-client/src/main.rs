//! Uses a server through the etcd-client crate, and prints what it answered: the same lines in every run, on every server that is
//! right. What differs from run to run (lease IDs, terms, sizes) is left out or named.

mod concurrency;
mod kv;
mod maintenance;
mod watch;

use std::time::Duration;

use etcd_client::{Client, Error, KeyValue, ResponseHeader};

// Long enough for a busy machine; nothing waits for it where all is well.
const WITHIN: Duration = Duration::from_secs(90);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let endpoint = std::env::args().nth(1).expect("usage: rust-client ENDPOINT");
    let run = async {
        let client = Client::connect([endpoint], None).await?;
        kv::run(&mut client.clone()).await?;
        watch::run(&mut client.clone()).await?;
        concurrency::run(&mut client.clone()).await?;
        maintenance::run(&mut client.clone()).await
    };
    tokio::time::timeout(WITHIN, run).await.expect("it is done in time")?;
    println!("done");
    Ok(())
}

fn step(name: &str) {
    println!("== {name}");
}

fn revision(header: Option<&ResponseHeader>) -> i64 {
    header.expect("an answer has a header").revision()
}

fn pair(kv: Option<&KeyValue>) -> String {
    let Some(kv) = kv else { return "none".to_owned() };
    let lease = if kv.lease() == 0 { "" } else { " leased" };
    format!(
        "{}={} created {} modified {} version {}{lease}",
        kv.key().escape_ascii(),
        kv.value().escape_ascii(),
        kv.create_revision(),
        kv.mod_revision(),
        kv.version()
    )
}

/// What an answer that should be a refusal says.
fn refusal<T>(answer: Result<T, Error>) -> String {
    match answer {
        Ok(_) => "no error".to_owned(),
        Err(Error::GRpcStatus(status)) => format!("{:?}: {}", status.code(), status.message()),
        Err(error) => error.to_string(),
    }
}
