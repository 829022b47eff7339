//! `inference.GRPCInferenceService`: inference, and queries about the server.

use std::collections::VecDeque;
use std::sync::Arc;

use penstock_core::{Rejection, RequestContext};
use penstock_proto::inference::grpc_inference_service_server::GrpcInferenceService;
use penstock_proto::inference::{
    CudaSharedMemoryRegisterRequest, CudaSharedMemoryRegisterResponse, CudaSharedMemoryStatusRequest,
    CudaSharedMemoryStatusResponse, CudaSharedMemoryUnregisterRequest, CudaSharedMemoryUnregisterResponse,
    LogSettingsRequest, LogSettingsResponse, ModelConfigRequest, ModelConfigResponse, ModelInferRequest,
    ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse,
    ModelStatisticsRequest, ModelStatisticsResponse, ModelStreamInferResponse, RepositoryIndexRequest,
    RepositoryIndexResponse, RepositoryModelLoadRequest, RepositoryModelLoadResponse,
    RepositoryModelUnloadRequest, RepositoryModelUnloadResponse, ServerLiveRequest, ServerLiveResponse,
    ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
    SystemSharedMemoryRegisterRequest, SystemSharedMemoryRegisterResponse, SystemSharedMemoryStatusRequest,
    SystemSharedMemoryStatusResponse, SystemSharedMemoryUnregisterRequest,
    SystemSharedMemoryUnregisterResponse, TraceSettingRequest, TraceSettingResponse,
};
use tonic::{Request, Response, Status, Streaming};

use super::bidi_stream::{BidiStream, Order, Size, StreamHandler, WorkItem};
use super::inbound::Requests;
use super::response::infer_response;
use super::{deadline, models, wire};
use crate::control;
use crate::status::to_status;
use crate::v2::description::{EXTENSIONS, SERVER_NAME};
use crate::v2::request::{self as v2, Checked};
use crate::v2::response::Asked;
use penstock_config::ModelControl;
use penstock_engine::request::InferenceRequest;
use penstock_engine::served_model::WhenFull;
use penstock_engine::service::InferenceService;

/// The service.
pub struct KServe {
    service: Arc<InferenceService>,
    control: ModelControl,
}

impl KServe {
    /// The KServe service on `service`.
    pub fn new(service: Arc<InferenceService>, control: ModelControl) -> KServe {
        KServe { service, control }
    }

    /// Whether a request may load and unload models.
    fn check_control(&self) -> Result<(), Status> {
        match control::refusal(self.control) {
            None => Ok(()),
            Some(reason) => Err(Status::permission_denied(reason)),
        }
    }
}

/// Checks a request. A refused request is counted here, an accepted one in the service.
fn prepare(
    service: &InferenceService,
    message: ModelInferRequest,
    context: RequestContext,
    room: WhenFull,
) -> Result<(InferenceRequest, Asked), Rejection> {
    let mut served = None;
    let prepared = wire::request(message).and_then(|request| {
        let served = served.insert(service.repository().find(&request.model, &request.version)?);
        let Checked {
            inputs,
            context,
            asked,
        } = v2::read(request, &served.spec, service.limits(), context)?;
        let call = InferenceRequest {
            served: Arc::clone(served),
            inputs,
            context,
            room,
        };
        Ok((call, asked))
    });
    prepared.inspect_err(|rejection| service.refused(served.as_deref(), &context, rejection))
}

async fn infer(
    service: &InferenceService,
    call: InferenceRequest,
    asked: &Asked,
) -> Result<ModelInferResponse, Rejection> {
    let scored = service.score(call).await?;
    infer_response(asked, &scored)
}

/// A stream of v2 requests, answered in their order, as Triton does for models like these.
pub struct InferHandler {
    service: Arc<InferenceService>,
    /// Context of the whole stream.
    context: RequestContext,
}

impl StreamHandler for InferHandler {
    type Request = ModelInferRequest;
    type Response = ModelStreamInferResponse;
    type Done = ModelStreamInferResponse;

    fn begin(
        &mut self,
        request: ModelInferRequest,
        items: &mut VecDeque<WorkItem<Self::Done>>,
    ) -> Result<(), Status> {
        let id = request.id.clone();
        let context = self.context.again(self.service.clock().now());
        match prepare(&self.service, request, context, WhenFull::Block) {
            Ok((call, asked)) => {
                let service = Arc::clone(&self.service);
                let (size, backlog) = (Size::of(&call.inputs, [&id]), self.service.backlog());
                items.push_back(WorkItem::new(size, backlog, async move {
                    match infer(&service, call, &asked).await {
                        Ok(response) => answered(response),
                        Err(rejection) => failed(id, &rejection),
                    }
                }));
            }
            Err(rejection) => {
                let size = Size {
                    texts: 1,
                    bytes: id.len(),
                };
                let refused = async move { failed(id, &rejection) };
                items.push_back(WorkItem::new(size, self.service.backlog(), refused));
            }
        }
        Ok(())
    }

    fn order(&self) -> Order {
        Order::Input
    }

    fn finish(&mut self, done: ModelStreamInferResponse) -> ModelStreamInferResponse {
        done
    }
}

fn answered(response: ModelInferResponse) -> ModelStreamInferResponse {
    ModelStreamInferResponse {
        error_message: String::new(),
        infer_response: Some(response),
    }
}

fn failed(id: String, rejection: &Rejection) -> ModelStreamInferResponse {
    ModelStreamInferResponse {
        error_message: rejection.to_string(),
        infer_response: Some(ModelInferResponse {
            id,
            ..ModelInferResponse::default()
        }),
    }
}

fn absent<T>(what: &str) -> Result<Response<T>, Status> {
    Err(Status::unimplemented(format!("penstock has no {what}")))
}

const SHARED_MEMORY: &str = "shared memory; send tensors in the request";
const TRACE: &str = "trace settings to change at run time; stage times are in its metrics";
const LOG: &str = "log settings to change at run time; they stand in its configuration";

fn respond<T>(result: Result<T, Rejection>) -> Result<Response<T>, Status> {
    result
        .map(Response::new)
        .map_err(|rejection| to_status(&rejection))
}

#[tonic::async_trait]
impl GrpcInferenceService for KServe {
    type ModelStreamInferStream = BidiStream<Requests<ModelInferRequest>, InferHandler>;

    async fn model_infer(
        &self,
        request: Request<ModelInferRequest>,
    ) -> Result<Response<ModelInferResponse>, Status> {
        let context = deadline::context(&self.service, request.metadata());
        let (call, asked) = prepare(&self.service, request.into_inner(), context, WhenFull::Reject)
            .map_err(|rejection| to_status(&rejection))?;
        respond(infer(&self.service, call, &asked).await)
    }

    async fn model_stream_infer(
        &self,
        mut request: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        let requests = Requests::of(request.extensions_mut())?;
        let handler = InferHandler {
            service: Arc::clone(&self.service),
            context: deadline::context(&self.service, request.metadata()),
        };
        Ok(Response::new(BidiStream::new(&self.service, requests, handler)))
    }

    async fn server_live(
        &self,
        _: Request<ServerLiveRequest>,
    ) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse {
            live: self.service.is_live(),
        }))
    }

    async fn server_ready(
        &self,
        _: Request<ServerReadyRequest>,
    ) -> Result<Response<ServerReadyResponse>, Status> {
        Ok(Response::new(ServerReadyResponse {
            ready: self.service.is_ready(),
        }))
    }

    async fn model_ready(
        &self,
        request: Request<ModelReadyRequest>,
    ) -> Result<Response<ModelReadyResponse>, Status> {
        let ModelReadyRequest { name, version } = request.into_inner();
        // An unknown model is not ready, as in Triton; an error would make a client's poll fail.
        Ok(Response::new(ModelReadyResponse {
            ready: self.service.repository().find(&name, &version).is_ok(),
        }))
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(Response::new(ServerMetadataResponse {
            name: SERVER_NAME.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: EXTENSIONS.map(str::to_owned).to_vec(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let ModelMetadataRequest { name, version } = request.into_inner();
        respond(models::metadata(self.service.repository(), &name, &version))
    }

    async fn model_config(
        &self,
        request: Request<ModelConfigRequest>,
    ) -> Result<Response<ModelConfigResponse>, Status> {
        let ModelConfigRequest { name, version } = request.into_inner();
        respond(models::config(self.service.repository(), &name, &version))
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Result<Response<ModelStatisticsResponse>, Status> {
        let ModelStatisticsRequest { name, version } = request.into_inner();
        respond(models::statistics(self.service.repository(), &name, &version))
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Result<Response<RepositoryIndexResponse>, Status> {
        respond(models::index(self.service.repository(), &request.into_inner()))
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Result<Response<RepositoryModelLoadResponse>, Status> {
        self.check_control()?;
        respond(models::load(self.service.repository(), request.into_inner()).await)
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Result<Response<RepositoryModelUnloadResponse>, Status> {
        self.check_control()?;
        respond(models::unload(self.service.repository(), request.into_inner()).await)
    }

    async fn system_shared_memory_status(
        &self,
        _: Request<SystemSharedMemoryStatusRequest>,
    ) -> Result<Response<SystemSharedMemoryStatusResponse>, Status> {
        absent(SHARED_MEMORY)
    }

    async fn system_shared_memory_register(
        &self,
        _: Request<SystemSharedMemoryRegisterRequest>,
    ) -> Result<Response<SystemSharedMemoryRegisterResponse>, Status> {
        absent(SHARED_MEMORY)
    }

    async fn system_shared_memory_unregister(
        &self,
        _: Request<SystemSharedMemoryUnregisterRequest>,
    ) -> Result<Response<SystemSharedMemoryUnregisterResponse>, Status> {
        absent(SHARED_MEMORY)
    }

    async fn cuda_shared_memory_status(
        &self,
        _: Request<CudaSharedMemoryStatusRequest>,
    ) -> Result<Response<CudaSharedMemoryStatusResponse>, Status> {
        absent(SHARED_MEMORY)
    }

    async fn cuda_shared_memory_register(
        &self,
        _: Request<CudaSharedMemoryRegisterRequest>,
    ) -> Result<Response<CudaSharedMemoryRegisterResponse>, Status> {
        absent(SHARED_MEMORY)
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _: Request<CudaSharedMemoryUnregisterRequest>,
    ) -> Result<Response<CudaSharedMemoryUnregisterResponse>, Status> {
        absent(SHARED_MEMORY)
    }

    async fn trace_setting(
        &self,
        _: Request<TraceSettingRequest>,
    ) -> Result<Response<TraceSettingResponse>, Status> {
        absent(TRACE)
    }

    async fn log_settings(
        &self,
        _: Request<LogSettingsRequest>,
    ) -> Result<Response<LogSettingsResponse>, Status> {
        absent(LOG)
    }
}
