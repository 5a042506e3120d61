//! gRPC health (`grpc.health.v1`): serving, for the whole server, until the member stops.
//!
//! etcd reports NOT_SERVING during defragmentation where a gate asks for it; ours has no defragmentation to report.

use std::pin::Pin;

use futures::{Stream, StreamExt, stream};
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
        // The first answer at once; after it nothing changes until the member stops, and then the stream ends.
        let stopped = self.shutdown.clone().cancelled_owned();
        let open = stream::once(async move { stopped.await }).filter_map(|()| async { None });
        Ok(Response::new(Box::pin(stream::iter([Ok(answer(status))]).chain(open))))
    }
}
