//! gRPC: `KServe` v2, `penstock.v1`, health and reflection on one port.

mod bidi_stream;
mod deadline;
mod health;
pub(crate) mod inbound;
mod kserve;
mod messages;
mod models;
mod response;
mod text;
pub(crate) mod wire;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use penstock_proto::inference::grpc_inference_service_server::GrpcInferenceServiceServer;
use penstock_proto::text::text_service_server::TextServiceServer;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tower::ServiceExt;

use self::inbound::Receiver;
use crate::listen::http2::{self, Http2Bounds};
use crate::listen::{BoundedListener, DRAIN_SILENCE_MAX};
use crate::status::to_status;
use penstock_config::ModelControl;
use penstock_engine::service::InferenceService;

/// Longest time from the connect to the end of the HTTP/2 handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves gRPC until `shutdown`, then lets accepted calls finish. Streams end by themselves when the service
/// begins to drain.
pub async fn serve(
    service: Arc<InferenceService>,
    control: ModelControl,
    listener: BoundedListener,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let routes = routes(&service, control)?;
    let limits = service.limits();
    let receiver = Receiver::new(limits);
    let routes = routes.map_request(move |request| receiver.receive(request));
    let bounds = Http2Bounds {
        streams_max: limits.streams_max,
        handshake_timeout: HANDSHAKE_TIMEOUT,
        drain_silence_max: DRAIN_SILENCE_MAX,
    };
    http2::accept(
        listener,
        routes,
        bounds,
        |full| to_status(full).into_http(),
        shutdown,
    )
    .await;
    Ok(())
}

fn routes(service: &Arc<InferenceService>, control: ModelControl) -> io::Result<Routes> {
    let limit = service.limits().max_request_bytes;
    let kserve = GrpcInferenceServiceServer::new(kserve::KServe::new(Arc::clone(service), control))
        .max_decoding_message_size(limit)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip);
    let text = TextServiceServer::new(text::Text::new(Arc::clone(service)))
        .max_decoding_message_size(limit)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(penstock_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let routes = Routes::new(kserve)
        .add_service(text)
        .add_service(HealthServer::new(health::Readiness::new(Arc::clone(service))))
        .add_service(reflection().build_v1().map_err(io::Error::other)?)
        // Older clients, such as grpcurl 1.8, use this version.
        .add_service(reflection().build_v1alpha().map_err(io::Error::other)?);
    Ok(routes.prepare())
}
