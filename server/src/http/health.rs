//! Health as etcd tells it: `/health` for old probes, `/livez` and `/readyz` with named checks for new ones.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use quorate_proto::etcdserverpb::AlarmType;

use super::{Shared, plain};
use crate::node::{Consistency, Node};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

const LIVEZ: [Check; 1] = [Check::SerializableRead];
const READYZ: [Check; 4] = [Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner];

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }

    async fn run(self, node: &Node) -> Result<(), String> {
        match self {
            Self::DataCorruption if node.reader().alarm_raised(AlarmType::Corrupt) => {
                Err("alarm activated: CORRUPT".into())
            }
            Self::NonLearner if node.status().is_learner => Err("not supported for learner".into()),
            Self::DataCorruption | Self::NonLearner => Ok(()),
            Self::SerializableRead => read(node, Consistency::Serializable).await,
            Self::LinearizableRead => read(node, Consistency::Linearizable).await,
        }
    }
}

async fn read(node: &Node, consistency: Consistency) -> Result<(), String> {
    node.read_view(consistency).await.map(|_| ()).map_err(|error| error.to_string())
}

/// Values of every `key=value` in a query.
fn values(query: Option<&str>, key: &str) -> BTreeSet<String> {
    let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs.filter(|(name, _)| name == key).map(|(_, value)| value.into_owned()).collect()
}

fn asked(query: Option<&str>, key: &str) -> bool {
    url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()).any(|(name, _)| name == key)
}

pub(super) async fn health(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Response {
    let node = &shared.node;
    let excluded = values(query.as_deref(), "exclude");
    let serializable = values(query.as_deref(), "serializable").contains("true");
    let mut reason = String::new();
    for (kind, name) in [(AlarmType::Nospace, "NOSPACE"), (AlarmType::Corrupt, "CORRUPT")] {
        if reason.is_empty() && !excluded.contains(name) && node.reader().alarm_raised(kind) {
            reason = format!("ALARM {name}");
        }
    }
    if reason.is_empty() && !serializable && node.status().leader.is_none() {
        reason = "RAFT NO LEADER".into();
    }
    if reason.is_empty() {
        let consistency = if serializable { Consistency::Serializable } else { Consistency::Linearizable };
        if let Err(error) = node.read_view(consistency).await {
            reason = format!("RANGE ERROR:{error}");
        }
    }
    let healthy = reason.is_empty();
    let text = serde_json::json!({ "health": healthy.to_string(), "reason": reason }).to_string();
    if healthy {
        shared.metrics.health_success.inc();
        return ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response();
    }
    shared.metrics.health_failures.inc();
    plain(StatusCode::SERVICE_UNAVAILABLE, format!("{text}\n"))
}

pub(super) async fn livez(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Response {
    run_all(&shared.node, &LIVEZ, query.as_deref()).await
}

pub(super) async fn readyz(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Response {
    run_all(&shared.node, &READYZ, query.as_deref()).await
}

pub(super) async fn livez_check(state: State<Shared>, name: Path<String>, query: RawQuery) -> Response {
    run_one(&state.node, &LIVEZ, &name, query.0.as_deref()).await
}

pub(super) async fn readyz_check(state: State<Shared>, name: Path<String>, query: RawQuery) -> Response {
    run_one(&state.node, &READYZ, &name, query.0.as_deref()).await
}

async fn run_one(node: &Node, checks: &[Check], name: &str, query: Option<&str>) -> Response {
    match checks.iter().find(|check| check.name() == name) {
        Some(check) => run_all(node, std::slice::from_ref(check), query).await,
        None => super::not_found().await,
    }
}

async fn run_all(node: &Node, checks: &[Check], query: Option<&str>) -> Response {
    let excluded = values(query, "exclude");
    let (mut lines, mut failed) = (String::new(), false);
    for check in checks.iter().filter(|check| !excluded.contains(check.name())) {
        let name = check.name();
        let _ = match check.run(node).await {
            Ok(()) => writeln!(lines, "[+]{name} ok"),
            Err(reason) => {
                failed = true;
                writeln!(lines, "[-]{name} failed: {reason}")
            }
        };
    }
    if failed {
        return plain(StatusCode::SERVICE_UNAVAILABLE, format!("{lines}\n"));
    }
    let text = if asked(query, "verbose") { format!("{lines}ok\n") } else { "ok\n".into() };
    plain(StatusCode::OK, text)
}
