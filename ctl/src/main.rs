//! `quoratectl`, as far as it goes in this release: get, put, del, status, tune, and bench. etcd's own `etcdctl` does everything else.

mod args;
mod bench;
mod print;
mod tune;

use std::process::ExitCode;

use anyhow::Result;
use args::{Args, Verb};
use clap::Parser;
use quorate_client::Client;

/// `bench` asks for memory as often as the server does, on the server's processors.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quoratectl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<()> {
    let connect = || Client::connect(&args.endpoint);
    match args.verb {
        Verb::Get { key, prefix } if prefix => print::key_values(&connect().await?.get_prefix(&key).await?),
        Verb::Get { key, .. } => print::key_values(connect().await?.get(&key).await?.as_slice()),
        Verb::Put { key, value } => {
            connect().await?.put(&key, &value).await?;
            print::line("OK");
        }
        Verb::Del { key } => print::line(&connect().await?.delete(&key).await?.to_string()),
        Verb::Status => print::status(&args.endpoint, &connect().await?.status().await?),
        Verb::Tune(tune) => tune::run(&tune, &args.endpoint).await?.iter().for_each(|line| print::line(line)),
        Verb::Bench(bench) => bench::run(&bench, &args.endpoint).await?,
    }
    Ok(())
}
