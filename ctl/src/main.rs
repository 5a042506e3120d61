//! `quoratectl`, as far as it goes in this release: get, put, del and status. etcd's own `etcdctl` does everything else.

mod args;
mod print;

use anyhow::Result;
use args::{Args, Verb};
use clap::Parser;
use quorate_client::Client;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let client = Client::connect(&args.endpoint).await?;
    match args.verb {
        Verb::Get { key, prefix } if prefix => print::key_values(&client.get_prefix(&key).await?),
        Verb::Get { key, .. } => print::key_values(client.get(&key).await?.as_slice()),
        Verb::Put { key, value } => {
            client.put(&key, &value).await?;
            print::line("OK");
        }
        Verb::Del { key } => print::line(&client.delete(&key).await?.to_string()),
        Verb::Status => print::status(&args.endpoint, &client.status().await?),
    }
    Ok(())
}
