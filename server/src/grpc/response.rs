//! Rows as gRPC messages: v2 tensors, and the typed results of `penstock.v1`.

use std::time::Duration;

use penstock_core::{Outcome, Rejection, Reply, Stages};
use penstock_models::{Classified, ModelSpec, classified};
use penstock_proto::inference::infer_parameter::ParameterChoice;
use penstock_proto::inference::model_infer_response::InferOutputTensor;
use penstock_proto::inference::{InferParameter, ModelInferResponse};
use penstock_proto::text::{self, Classification, Embedding, Error, Timings, result};

use crate::status;
use crate::v2::response::{self as v2, Asked};
use penstock_engine::rows::Shape;
use penstock_engine::served_model::ServedModel;
use penstock_engine::service::InferenceResponse;

/// Parameter that marks the last response of a request, for clients of decoupled models.
const FINAL: &str = "triton_final_response";

/// The answer to a v2 request; the first rejected row rejects the whole request.
pub fn infer_response(asked: &Asked, scored: &InferenceResponse) -> Result<ModelInferResponse, Rejection> {
    let replies = scored.all().map_err(Clone::clone)?;
    let ServedModel {
        name, version, spec, ..
    } = scored.served.as_ref();
    let tensors = v2::tensors(asked, spec, &replies)?;
    let raw_output_contents = tensors.iter().map(|tensor| tensor.values.to_raw()).collect();
    let outputs = tensors.into_iter().map(|tensor| InferOutputTensor {
        name: tensor.name.to_owned(),
        datatype: tensor.values.datatype().to_owned(),
        shape: tensor.shape.iter().map(|&d| d as i64).collect(),
        ..InferOutputTensor::default()
    });
    let mut response = ModelInferResponse {
        model_name: name.clone(),
        model_version: version.clone(),
        id: asked.id.clone(),
        outputs: outputs.collect(),
        raw_output_contents,
        ..ModelInferResponse::default()
    };
    if asked.mark_final {
        let value = InferParameter {
            parameter_choice: Some(ParameterChoice::BoolParam(true)),
        };
        response.parameters.insert(FINAL.to_owned(), value);
    }
    Ok(response)
}

/// Requested contents of the results of a `penstock.v1` stream or batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Form of an embedding.
    pub shape: Shape,
    /// Whether a classification carries its logits.
    pub logits: bool,
    /// Whether a result carries its stages' times.
    pub timings: bool,
}

/// The model that gave the results.
pub fn model(served: &ServedModel) -> text::Model {
    text::Model {
        name: served.name.clone(),
        version: served.version.clone(),
        labels: served.spec.labels.clone(),
    }
}

/// One result per id, from the rows of one call. The rows' vectors are moved into the results.
pub fn results(ids: Vec<String>, scored: &mut InferenceResponse, wish: Wish) -> Vec<text::Result> {
    let timings = wish.timings.then(|| timings(&scored.stages));
    let spec = &scored.served.spec;
    ids.into_iter()
        .zip(&mut scored.rows)
        .map(|(id, row)| text::Result {
            id,
            outcome: Some(outcome(row, spec, wish)),
            timings,
        })
        .collect()
}

/// The same refusal for every id.
pub fn refused(ids: Vec<String>, rejection: &Rejection) -> Vec<text::Result> {
    let outcome = result::Outcome::Error(error(rejection));
    ids.into_iter()
        .map(|id| text::Result {
            id,
            outcome: Some(outcome.clone()),
            timings: None,
        })
        .collect()
}

fn outcome(row: &mut Outcome, spec: &ModelSpec, wish: Wish) -> result::Outcome {
    match typed(row, spec, wish) {
        Ok(outcome) => outcome,
        Err(rejection) => result::Outcome::Error(error(&rejection)),
    }
}

fn typed(row: &mut Outcome, spec: &ModelSpec, wish: Wish) -> Result<result::Outcome, Rejection> {
    let reply = row.as_mut().map_err(|rejection| rejection.clone())?;
    if let Reply::Embedding(vector) = reply {
        let mut values = std::mem::take(vector);
        wish.shape.apply(&mut values);
        return Ok(result::Outcome::Embedding(Embedding { values }));
    }
    let Classified { label, score, .. } = classified(spec, reply)?;
    let mut classification = Classification {
        label: label.to_owned(),
        score,
        ..Classification::default()
    };
    if let Reply::Classes {
        logits,
        probabilities,
    } = reply
    {
        classification.probabilities = std::mem::take(probabilities);
        if wish.logits {
            classification.logits = std::mem::take(logits);
        }
    }
    Ok(result::Outcome::Classification(classification))
}

fn error(rejection: &Rejection) -> Error {
    Error {
        // The codes of `penstock.v1` are gRPC's own.
        code: status::grpc_code(rejection) as i32,
        message: rejection.to_string(),
        retry_after: status::retry_after(rejection)
            .map(|seconds| wire_duration(Duration::from_secs(seconds))),
    }
}

fn timings(stages: &Stages) -> Timings {
    Timings {
        tokenize: Some(wire_duration(stages.tokenize)),
        queue: Some(wire_duration(stages.queue)),
        execute: Some(wire_duration(stages.execute)),
    }
}

fn wire_duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: duration.subsec_nanos() as i32,
    }
}

#[cfg(test)]
mod tests {
    use penstock_models::Task;
    use penstock_proto::text::Code;

    use super::*;
    use penstock_models::testing::spec;

    const WISH: Wish = Wish {
        shape: Shape {
            normalize: true,
            dimensions: Some(2),
        },
        logits: false,
        timings: false,
    };

    #[test]
    fn a_classification_holds_its_logits_only_on_request() {
        let spec = spec(Task::SequenceClassification, &["bad", "good"]);
        for logits in [false, true] {
            let mut row = Ok(Reply::Classes {
                logits: vec![-1.0, 1.0],
                probabilities: vec![0.125, 0.875],
            });
            let result::Outcome::Classification(got) = outcome(&mut row, &spec, Wish { logits, ..WISH })
            else {
                panic!("not a classification")
            };
            assert_eq!((got.label.as_str(), got.score), ("good", 0.875));
            assert_eq!(got.probabilities, [0.125, 0.875]);
            assert_eq!(got.logits.len(), if logits { 2 } else { 0 });
            assert!(row.is_ok(), "the metrics still see a success");
        }
    }

    #[test]
    fn an_embedding_is_shaped_in_place() {
        let mut row = Ok(Reply::Embedding(vec![3.0, 4.0, 12.0, 0.0]));
        let got = outcome(&mut row, &spec(Task::Embedding, &[]), WISH);
        assert_eq!(
            got,
            result::Outcome::Embedding(Embedding {
                values: vec![0.6, 0.8]
            })
        );
    }

    #[test]
    fn every_rejection_has_a_code_of_the_protocol() {
        let all = [
            Rejection::Invalid("x".into()),
            Rejection::NotFound("x".into()),
            Rejection::NotReady("x".into()),
            Rejection::Overloaded {
                what: "queue",
                used: 1,
                bound: 1,
                unit: "texts",
            },
            Rejection::DeadlineExceeded("x"),
            Rejection::Cancelled,
            Rejection::ShuttingDown,
            Rejection::NotFinite { model: "m".into() },
            Rejection::Model("x".into()),
            Rejection::Lost,
        ];
        for rejection in all {
            let error = error(&rejection);
            let code = Code::try_from(error.code);
            assert!(
                code.is_ok_and(|c| c != Code::Unspecified),
                "{rejection:?} has code {}",
                error.code
            );
            assert_eq!(
                error.retry_after.is_some(),
                code == Ok(Code::Unavailable),
                "{rejection:?}"
            );
        }
    }
}
