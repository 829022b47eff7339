//! `penstock.v1.TextService`: typed texts in, typed results out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use penstock_core::{Class, Rejection, RequestContext};
use penstock_models::{Form, ModelSpec};
use penstock_proto::text;
use penstock_proto::text::text_service_server::TextService;
use penstock_proto::text::{
    ScoreBatchRequest, ScoreBatchResponse, ScoreOptions, ScoreRequest, ScoreResponse,
};
use tonic::{Request, Response, Status, Streaming};

use super::bidi_stream::{BidiStream, Order, Size, StreamHandler, WorkItem};
use super::deadline;
use super::inbound::Requests;
use super::response::{Wish, model, refused as refused_results, results};
use crate::status::to_status;
use penstock_engine::request::{InferenceRequest, Input};
use penstock_engine::rows::Shape;
use penstock_engine::served_model::{ServedModel, WhenFull};
use penstock_engine::service::{InferenceResponse, InferenceService};

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
#[derive(Clone, Copy, Debug, PartialEq)]
struct Plan {
    class: Class,
    order: Order,
    timeout: Option<Duration>,
    truncate: bool,
    wish: Wish,
}

impl Plan {
    /// `context` with the options.
    fn apply(&self, context: RequestContext) -> RequestContext {
        let context = RequestContext {
            class: self.class,
            truncate: self.truncate,
            ..context
        };
        context.due(self.timeout.map(|timeout| context.received + timeout))
    }
}

/// Finds the model and checks the options against it; refusals are counted.
fn plan(
    service: &InferenceService,
    options: &ScoreOptions,
    context: &RequestContext,
) -> Result<(Plan, Arc<ServedModel>), Rejection> {
    let served = service.find(&options.model, &options.version, context)?;
    let plan = check(options, &served.spec)
        .inspect_err(|rejection| service.refused(Some(&served), context, rejection))?;
    Ok((plan, served))
}

/// Scores texts by the version that serves now. The options are checked against this version.
async fn score(
    service: &InferenceService,
    options: &ScoreOptions,
    texts: Vec<Input>,
    context: RequestContext,
    room: WhenFull,
) -> Result<(InferenceResponse, Wish), Rejection> {
    let (plan, served) = plan(service, options, &context)?;
    let request = InferenceRequest {
        served,
        inputs: texts,
        context: plan.apply(context),
        room,
    };
    Ok((service.score(request).await?, plan.wish))
}

/// The options of a first request; their absence is counted as a refusal.
fn needed(
    service: &InferenceService,
    options: Option<ScoreOptions>,
    context: &RequestContext,
) -> Result<ScoreOptions, Rejection> {
    options.ok_or_else(|| {
        let missing = Rejection::Invalid("the first request has no options; they name the model".into());
        service.refused(None, context, &missing);
        missing
    })
}

fn check(options: &ScoreOptions, spec: &ModelSpec) -> Result<Plan, Rejection> {
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
    let embeds = spec.task.has(Form::Vector);
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

fn apart(texts: impl IntoIterator<Item = text::Text>) -> (Vec<String>, Vec<Input>) {
    texts
        .into_iter()
        .map(|text| (text.id, Input::Text(text.text)))
        .unzip()
}

/// A `Score` stream.
pub struct ScoreHandler {
    service: Arc<InferenceService>,
    /// Options of the first request, and the order of the answers that they ask for.
    options: Option<(Arc<ScoreOptions>, Order)>,
    /// Context of the whole stream.
    context: RequestContext,
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
        let context = self.context.again(self.service.clock().now());
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
        let options = match (&self.options, options) {
            (Some((options, _)), None) => Arc::clone(options),
            (Some(_), Some(_)) => {
                return Err(Status::invalid_argument(
                    "options may stand in the first request only; open another stream for other ones",
                ));
            }
            (None, options) => {
                let options =
                    needed(&self.service, options, &context).map_err(|rejection| to_status(&rejection))?;
                let (plan, served) =
                    plan(&self.service, &options, &context).map_err(|rejection| to_status(&rejection))?;
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
                let options = Arc::new(options);
                self.options = Some((Arc::clone(&options), plan.order));
                options
            }
        };
        let mut texts = texts.into_iter();
        while texts.len() > 0 {
            let (ids, now) = apart(texts.by_ref().take(share));
            let (service, options, size) = (
                Arc::clone(&self.service),
                Arc::clone(&options),
                Size::of(&now, &ids),
            );
            items.push_back(WorkItem::new(size, self.service.backlog(), async move {
                // The version is chosen when the item starts: waiting items must not keep one from unloading.
                match score(&service, &options, now, context, WhenFull::Block).await {
                    Ok((mut scored, wish)) => {
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
        self.options
            .as_ref()
            .map_or(Order::Completion, |(_, order)| *order)
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
        let handler = ScoreHandler {
            service: Arc::clone(&self.service),
            options: None,
            context: deadline::context(&self.service, request.metadata()),
            told: None,
        };
        Ok(Response::new(BidiStream::new(&self.service, requests, handler)))
    }

    async fn score_batch(
        &self,
        request: Request<ScoreBatchRequest>,
    ) -> Result<Response<ScoreBatchResponse>, Status> {
        let context = deadline::context(&self.service, request.metadata());
        let ScoreBatchRequest { options, texts } = request.into_inner();
        let scored = async {
            let options = needed(&self.service, options, &context)?;
            let (ids, texts) = apart(texts);
            let (mut scored, wish) = score(&self.service, &options, texts, context, WhenFull::Reject).await?;
            let results = results(ids, &mut scored, wish);
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
