//! How a member that is to found a cluster learns who founds it with it, when nobody wrote it down.
//!
//! ```text
//!   --discovery-srv        SRV records of a domain ─▶ targets, resolved ─▶ which of them is this member
//!   --discovery-endpoints  an etcd v3 server: register there, wait for the others, take the first of them
//!                          └──▶ name=URL,name=URL: what --initial-cluster would say
//! ```
//!
//! Asked only while there is no cluster yet. Left out: TLS, and finding endpoints for clients.

mod service;
mod srv;

use anyhow::Context;

use crate::config::{ClusterState, Config, Discovery, resolve};
use crate::net::Dial;

/// The configuration with the initial cluster in it, wherever that comes from.
pub(crate) async fn with_initial_cluster(config: &Config, dial: &Dial) -> anyhow::Result<Config> {
    match &config.discovery {
        None => Ok(config.clone()),
        Some(Discovery::Srv(discovery)) => {
            let cluster = srv::find(discovery, &config.name, &config.initial_advertise_peer_urls).await;
            let found = cluster.and_then(|cluster| config.with_initial_cluster(&cluster));
            let found = found.map_err(anyhow::Error::msg).context("error setting up initial cluster")?;
            anyhow::ensure!(
                found.initial_cluster.contains_key(&config.name),
                "error setting up initial cluster: cannot find local etcd member {:?} in SRV records",
                config.name
            );
            Ok(found)
        }
        // Who joins a cluster finds it by its members.
        Some(Discovery::Service(_)) if config.initial_cluster_state == ClusterState::Existing => Ok(config.clone()),
        Some(Discovery::Service(discovery)) => {
            config.verify_bootstrap(&resolve).map_err(anyhow::Error::msg)?;
            let joined = service::join(discovery, config, dial).await;
            joined.inspect_err(|_| {
                tracing::warn!("do not reuse discovery token; generate a new one to bootstrap a cluster")
            })
        }
    }
}
