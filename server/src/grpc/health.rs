//! `grpc.health.v1`: readiness, for the whole server (`""`) and for each service by its name.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, stream};
use penstock_proto::inference::grpc_inference_service_server::SERVICE_NAME as INFERENCE;
use penstock_proto::text::text_service_server::SERVICE_NAME as TEXT;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use penstock_engine::service::InferenceService;

/// Names with a health status.
const NAMES: [&str; 3] = ["", INFERENCE, TEXT];

/// Longest delay until a watcher learns of a loaded or unloaded model. A shutdown is reported at once.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Answers from the service's present state, so that the answer cannot lag behind.
pub struct Readiness {
    service: Arc<InferenceService>,
}

impl Readiness {
    /// Health of `service`.
    pub fn new(service: Arc<InferenceService>) -> Readiness {
        Readiness { service }
    }
}

fn known(service: &str) -> Result<(), Status> {
    if NAMES.contains(&service) {
        return Ok(());
    }
    // SERVING for an unknown name would keep a wrong probe green for ever.
    Err(Status::not_found(format!(
        "unknown service {service:?}; known are {NAMES:?}"
    )))
}

fn serving(service: &InferenceService) -> ServingStatus {
    if service.is_ready() {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

#[tonic::async_trait]
impl Health for Readiness {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        known(&request.get_ref().service)?;
        Ok(Response::new(answer(serving(&self.service))))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        known(&request.get_ref().service)?;
        let told = Told {
            service: Arc::clone(&self.service),
            last: None,
            draining: false,
        };
        Ok(Response::new(Box::pin(stream::unfold(told, Told::next))))
    }
}

/// State last sent to a watcher.
struct Told {
    service: Arc<InferenceService>,
    last: Option<ServingStatus>,
    draining: bool,
}

impl Told {
    async fn next(mut self) -> Option<(Result<HealthCheckResponse, Status>, Told)> {
        loop {
            let now = serving(&self.service);
            if self.last != Some(now) {
                self.last = Some(now);
                return Some((Ok(answer(now)), self));
            }
            // A watch that continued would hold the connection, and with it the shutdown.
            if self.draining {
                return None;
            }
            tokio::select! {
                () = self.service.draining() => self.draining = true,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }
}
