//! `penstock.v1.TextService`: typed texts in, typed results out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use penstock_core::{Class, Nanos, Rejection};
use penstock_models::{ModelSpec, Task};
use penstock_proto::text;
use penstock_proto::text::text_service_server::TextService;
use penstock_proto::text::{
    ScoreBatchRequest, ScoreBatchResponse, ScoreOptions, ScoreRequest, ScoreResponse,
};
use tonic::{Request, Response, Status, Streaming};

use super::bidi_stream::{BidiStream, Order, Size, StreamHandler, WorkItem};
use super::inbound::Requests;
use super::response::{Wish, model, refused as refused_results, results};
use super::{deadline, refused};
use crate::status::to_status;
use penstock_engine::rows::Shape;
use penstock_engine::served_model::{ServedModel, WhenFull};
use penstock_engine::service::{InferenceRequest, InferenceService};
use penstock_telemetry::metrics::Source;

/// The service.
pub struct Text {
    service: Arc<InferenceService>,
}

impl Text {
    /// The text service on `service`.
    pub fn new(service: Arc<InferenceService>) -> Text {
        Text { service }
    }
}

/// Checked options.
#[derive(Clone, Debug, PartialEq)]
struct Plan {
    model: String,
    version: String,
    class: Class,
    order: Order,
    timeout: Option<Duration>,
    truncate: bool,
    wish: Wish,
}

impl Plan {
    fn call(
        &self,
        texts: Vec<String>,
        room: WhenFull,
        received: Nanos,
        timeout: Option<Duration>,
    ) -> InferenceRequest {
        InferenceRequest {
            model: self.model.clone(),
            version: self.version.clone(),
            texts,
            class: self.class,
            source: Source::Grpc,
            timeout: deadline::shorter(self.timeout, timeout),
            truncate: self.truncate,
            room,
            received,
        }
    }
}

/// Finds the model and checks the options against it; refusals are counted.
fn plan(
    service: &InferenceService,
    options: Option<ScoreOptions>,
    received: Nanos,
) -> Result<(Plan, Arc<ServedModel>), Rejection> {
    let mut found = None;
    let planned = options.ok_or_else(missing_options).and_then(|options| {
        let served = found.insert(service.repository().find(&options.model, &options.version)?);
        check(options, &served.spec)
    });
    match (planned, found) {
        (Ok(plan), Some(served)) => Ok((plan, served)),
        (Err(rejection), served) => {
            refused(
                service,
                served.as_deref(),
                service.clock().now().since(received),
                &rejection,
            );
            Err(rejection)
        }
        (Ok(_), None) => Err(Rejection::Lost),
    }
}

fn missing_options() -> Rejection {
    Rejection::Invalid("the first request has no options; they name the model".into())
}

fn check(options: ScoreOptions, spec: &ModelSpec) -> Result<Plan, Rejection> {
    let invalid = |message: String| Err(Rejection::Invalid(message));
    let class = match text::Class::try_from(options.class) {
        Ok(text::Class::Unspecified | text::Class::Interactive) => Class::Interactive,
        Ok(text::Class::Bulk) => Class::Bulk,
        Err(e) => return invalid(format!("unknown class {}", e.0)),
    };
    let order = match text::Order::try_from(options.order) {
        Ok(text::Order::Unspecified | text::Order::Completion) => Order::Completion,
        Ok(text::Order::Input) => Order::Input,
        Err(e) => return invalid(format!("unknown order {}", e.0)),
    };
    let timeout = match options.timeout.map(Duration::try_from).transpose() {
        Ok(timeout) => timeout,
        Err(e) => return invalid(format!("timeout is no positive duration: {e}")),
    };
    let embeds = spec.task == Task::Embedding;
    if !embeds && (options.normalize.is_some() || options.dimensions.is_some()) {
        return invalid(format!(
            "normalize and dimensions are for embedding models, the task of {} is {}",
            options.model,
            spec.task.name()
        ));
    }
    if embeds && options.logits {
        return invalid(format!(
            "logits are for classification models, {} gives embeddings",
            options.model
        ));
    }
    let dimensions = match options.dimensions.map(|d| d as usize) {
        Some(d) if !(1..=spec.hidden).contains(&d) => {
            return invalid(format!("dimensions is {d}, expected 1 to {}", spec.hidden));
        }
        dimensions => dimensions,
    };
    let shape = Shape {
        normalize: options.normalize.unwrap_or(spec.normalize),
        dimensions,
    };
    Ok(Plan {
        model: options.model,
        version: options.version,
        class,
        order,
        timeout,
        truncate: options.truncate.unwrap_or(true),
        wish: Wish {
            shape,
            logits: options.logits,
            timings: options.timings,
        },
    })
}

fn apart(texts: impl IntoIterator<Item = text::Text>) -> (Vec<String>, Vec<String>) {
    texts.into_iter().map(|text| (text.id, text.text)).unzip()
}

/// A `Score` stream.
pub struct ScoreHandler {
    service: Arc<InferenceService>,
    /// Plan from the first request's options.
    plan: Option<Plan>,
    /// Deadline of the whole stream.
    deadline: Option<Nanos>,
    /// Version named to the client.
    told: Option<String>,
}

/// The results of one call.
pub struct Done {
    /// The model that gave them; `None` if the call was refused. A name rather than the served model, because
    /// a slow client must not keep a version from unloading.
    who: Option<text::Model>,
    results: Vec<text::Result>,
}

impl StreamHandler for ScoreHandler {
    type Request = ScoreRequest;
    type Response = ScoreResponse;
    type Done = Done;

    fn begin(&mut self, request: ScoreRequest, items: &mut VecDeque<WorkItem<Done>>) -> Result<(), Status> {
        let received = self.service.clock().now();
        let ScoreRequest { options, texts } = request;
        let limits = self.service.limits();
        if texts.len() > limits.max_request_texts {
            return Err(Status::invalid_argument(format!(
                "the request holds {} texts, more than max_request_texts = {}; send several requests",
                texts.len(),
                limits.max_request_texts
            )));
        }
        // A message larger than the stream's bound is cut into calls within it.
        let share = limits.stream_in_flight_max.max(1);
        let plan = match (&mut self.plan, options) {
            (Some(plan), None) => plan,
            (Some(_), Some(_)) => {
                return Err(Status::invalid_argument(
                    "options may stand in the first request only; open another stream for other ones",
                ));
            }
            (none, options) => {
                let (plan, served) =
                    plan(&self.service, options, received).map_err(|rejection| to_status(&rejection))?;
                // Tells the client at once that the stream is accepted, and by which model.
                let hello = Done {
                    who: Some(model(&served)),
                    results: Vec::new(),
                };
                items.push_back(WorkItem::new(
                    Size::default(),
                    self.service.backlog(),
                    async move { hello },
                ));
                none.insert(plan)
            }
        };
        let timeout = self.deadline.map(|deadline| deadline.since(received));
        let mut texts = texts.into_iter();
        while texts.len() > 0 {
            let (ids, now) = apart(texts.by_ref().take(share));
            let (service, wish, size) = (Arc::clone(&self.service), plan.wish, Size::of(&now));
            let call = plan.call(now, WhenFull::Block, received, timeout);
            items.push_back(WorkItem::new(size, self.service.backlog(), async move {
                match service.score(call).await {
                    Ok(mut scored) => {
                        let results = results(ids, &mut scored, wish);
                        Done {
                            who: Some(model(&scored.served)),
                            results,
                        }
                    }
                    Err(rejection) => Done {
                        who: None,
                        results: refused_results(ids, &rejection),
                    },
                }
            }));
        }
        Ok(())
    }

    fn order(&self) -> Order {
        self.plan.as_ref().map_or(Order::Completion, |plan| plan.order)
    }

    fn finish(&mut self, Done { who, results }: Done) -> ScoreResponse {
        let model = who.filter(|who| self.told.as_ref() != Some(&who.version));
        if let Some(news) = &model {
            self.told = Some(news.version.clone());
        }
        ScoreResponse { model, results }
    }
}

#[tonic::async_trait]
impl TextService for Text {
    type ScoreStream = BidiStream<Requests<ScoreRequest>, ScoreHandler>;

    async fn score(
        &self,
        mut request: Request<Streaming<ScoreRequest>>,
    ) -> Result<Response<Self::ScoreStream>, Status> {
        let requests = Requests::of(request.extensions_mut())?;
        let timeout = deadline::timeout(request.metadata());
        let deadline = timeout.map(|timeout| self.service.clock().now() + timeout);
        let handler = ScoreHandler {
            service: Arc::clone(&self.service),
            plan: None,
            deadline,
            told: None,
        };
        Ok(Response::new(BidiStream::new(&self.service, requests, handler)))
    }

    async fn score_batch(
        &self,
        request: Request<ScoreBatchRequest>,
    ) -> Result<Response<ScoreBatchResponse>, Status> {
        let received = self.service.clock().now();
        let timeout = deadline::timeout(request.metadata());
        let ScoreBatchRequest { options, texts } = request.into_inner();
        let scored = async {
            let (plan, _) = plan(&self.service, options, received)?;
            let (ids, texts) = apart(texts);
            let mut scored = self
                .service
                .score(plan.call(texts, WhenFull::Reject, received, timeout))
                .await?;
            let results = results(ids, &mut scored, plan.wish);
            Ok(ScoreBatchResponse {
                model: Some(model(&scored.served)),
                results,
            })
        };
        scored
            .await
            .map(Response::new)
            .map_err(|rejection: Rejection| to_status(&rejection))
    }
}

#[cfg(test)]
mod tests;
