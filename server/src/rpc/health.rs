//! gRPC health (`grpc.health.v1`): serving, for the whole server, until the member stops.
//!
//! etcd reports NOT_SERVING during defragmentation where a gate asks for it; ours has no defragmentation to report.

use std::pin::Pin;

use futures::{FutureExt, Stream, StreamExt, stream};
use quorate_proto::health as pb;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use pb::health_check_response::ServingStatus;

/// The server as a whole; no other service is known by name (etcd's rule).
const WHOLE_SERVER: &str = "";

pub(super) struct HealthService {
    pub(super) shutdown: CancellationToken,
}

fn answer(status: ServingStatus) -> pb::HealthCheckResponse {
    pb::HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl pb::health_server::Health for HealthService {
    async fn check(
        &self,
        request: Request<pb::HealthCheckRequest>,
    ) -> Result<Response<pb::HealthCheckResponse>, Status> {
        match request.into_inner().service.as_str() {
            WHOLE_SERVER => Ok(Response::new(answer(ServingStatus::Serving))),
            _ => Err(Status::not_found("unknown service")),
        }
    }

    async fn list(&self, _: Request<pb::HealthListRequest>) -> Result<Response<pb::HealthListResponse>, Status> {
        let statuses = [(WHOLE_SERVER.to_owned(), answer(ServingStatus::Serving))].into();
        Ok(Response::new(pb::HealthListResponse { statuses }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<pb::HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<pb::HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let status = match request.into_inner().service.as_str() {
            WHOLE_SERVER => ServingStatus::Serving,
            _ => ServingStatus::ServiceUnknown,
        };
        // The first answer at once; after it nothing changes until the member stops.
        let stopped = self.shutdown.clone().cancelled_owned();
        let end = stream::once(stopped.map(|()| Err(Status::unavailable("etcdserver: server stopped"))));
        Ok(Response::new(Box::pin(stream::iter([Ok(answer(status))]).chain(end))))
    }
}

#[cfg(test)]
mod tests {
    use pb::health_server::Health;
    use tonic::Code;

    use super::*;

    fn of(service: &str) -> Request<pb::HealthCheckRequest> {
        Request::new(pb::HealthCheckRequest { service: service.into() })
    }

    #[tokio::test]
    async fn knows_the_whole_server_only() {
        let health = HealthService { shutdown: CancellationToken::new() };
        assert_eq!(health.check(of("")).await.unwrap().into_inner(), answer(ServingStatus::Serving));
        let refused = health.check(of("etcdserverpb.KV")).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::NotFound, "unknown service"));
        let list = health.list(Request::new(pb::HealthListRequest {})).await.unwrap().into_inner();
        assert_eq!(list.statuses.into_iter().collect::<Vec<_>>(), [(String::new(), answer(ServingStatus::Serving))]);
    }

    #[tokio::test]
    async fn a_watch_answers_at_once_and_stays_open_until_the_member_stops() {
        let health = HealthService { shutdown: CancellationToken::new() };
        for (service, status) in [("", ServingStatus::Serving), ("x", ServingStatus::ServiceUnknown)] {
            let mut watch = health.watch(of(service)).await.unwrap().into_inner();
            assert_eq!(watch.next().await.unwrap().unwrap(), answer(status));
            assert!(watch.next().now_or_never().is_none());
        }
        let mut watch = health.watch(of("")).await.unwrap().into_inner();
        health.shutdown.cancel();
        assert!(watch.next().await.unwrap().is_ok());
        assert_eq!(watch.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
        assert!(watch.next().await.is_none());
    }
}
