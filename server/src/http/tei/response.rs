//! Answers in the form of text-embeddings-inference, with its timing headers.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode};
use penstock_models::{Device, Dtype, Form, Format, classified, embedded};
use serde::Serialize;
use serde_json::{Value, json};

use crate::http::response::{Refusal, Turns, bytes_with, push_json};
use penstock_engine::rows::Shape;
use penstock_engine::served_model::ServedModel;
use penstock_engine::service::InferenceResponse;
use penstock_engine::settings::Limits;

/// The answer to `/embed`: an array of vectors, with one vector for a single text.
pub async fn embeddings(
    scored: &InferenceResponse,
    shape: Shape,
    characters: usize,
) -> Result<Response<Body>, Refusal> {
    let replies = scored.all().map_err(Clone::clone)?;
    let mut out = vec![b'['];
    let (mut turns, mut vector) = (Turns::default(), Vec::new());
    for (index, reply) in replies.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        vector.clear();
        shape.append(embedded(&scored.served.spec, reply)?, &mut vector);
        push_json(&mut out, &vector)?;
        turns.give(out.len()).await;
    }
    out.push(b']');
    Ok(timed(scored, characters, out))
}

#[derive(Debug, Serialize, PartialEq)]
struct Prediction<'a> {
    score: f32,
    label: &'a str,
}

/// The answer to `/predict`: every label of every text, the best first.
pub async fn predictions(
    scored: &InferenceResponse,
    single: bool,
    raw: bool,
    characters: usize,
) -> Result<Response<Body>, Refusal> {
    let replies = scored.all().map_err(Clone::clone)?;
    let mut out = Vec::new();
    let mut turns = Turns::default();
    for (index, reply) in replies.into_iter().enumerate() {
        if !single {
            out.push(if index == 0 { b'[' } else { b',' });
        }
        let row = classified(&scored.served.spec, reply)?;
        let scores = if raw { row.logits } else { row.probabilities };
        push_json(&mut out, &sorted(&scored.served.spec.labels, scores))?;
        turns.give(out.len()).await;
    }
    if !single {
        out.push(b']');
    }
    Ok(timed(scored, characters, out))
}

fn sorted<'a>(labels: &'a [String], scores: &[f32]) -> Vec<Prediction<'a>> {
    let mut all: Vec<_> = labels
        .iter()
        .zip(scores)
        .map(|(label, &score)| Prediction { score, label })
        .collect();
    all.sort_by(|a, b| b.score.total_cmp(&a.score));
    all
}

/// Timing headers in whole milliseconds, as text-embeddings-inference has them.
fn timed(scored: &InferenceResponse, characters: usize, out: Vec<u8>) -> Response<Body> {
    let timings = scored.timings();
    let mut response = bytes_with(StatusCode::OK, "application/json", out);
    let headers = response.headers_mut();
    let kind = match scored.served.device {
        Device::Cpu { .. } => "cpu",
        Device::Cuda { .. } => "gpu",
    };
    headers.insert("x-compute-type", HeaderValue::from_static(kind));
    let total = timings.total.as_millis();
    let numbers = [
        ("x-compute-time", total),
        ("x-compute-characters", characters as u128),
        ("x-compute-tokens", timings.tokens as u128),
        ("x-total-time", total),
        ("x-tokenization-time", timings.tokenize.as_millis()),
        ("x-queue-time", timings.queue.as_millis()),
        ("x-inference-time", timings.execute.as_millis()),
    ];
    for (name, number) in numbers {
        let number = u64::try_from(number).unwrap_or(u64::MAX);
        headers.insert(HeaderName::from_static(name), HeaderValue::from(number));
    }
    response
}

/// Name of the number format in text-embeddings-inference and torch.
fn dtype(device: &Device) -> &'static str {
    match device {
        Device::Cpu { precision, .. } => match precision.format() {
            Format::F32 => "float32",
            Format::Bf16 => "bfloat16",
            Format::Int8 => "int8",
        },
        Device::Cuda { dtype, .. } => match dtype {
            Dtype::F32 => "float32",
            Dtype::Bf16 => "bfloat16",
            Dtype::F16 => "float16",
        },
    }
}

/// The answer to `/info`.
pub fn info(served: &ServedModel, limits: &Limits) -> Value {
    let spec = &served.spec;
    let labels = || spec.labels.iter().enumerate();
    let model_type = if spec.task.has(Form::Vector) {
        let pooling = spec
            .pooling
            .map_or_else(String::new, |p| format!("{p:?}").to_lowercase());
        json!({ "embedding": { "pooling": pooling } })
    } else {
        let by_id: serde_json::Map<_, _> = labels()
            .map(|(id, label)| (id.to_string(), json!(label)))
            .collect();
        let by_label: serde_json::Map<_, _> =
            labels().map(|(id, label)| (label.clone(), json!(id))).collect();
        json!({ "classifier": { "id2label": by_id, "label2id": by_label } })
    };
    json!({
        "model_id": served.name,
        "model_sha": null,
        "model_dtype": dtype(&served.device),
        "served_model_name": served.name,
        "model_type": model_type,
        "max_concurrent_requests": limits.queue_texts_max,
        "max_input_length": spec.max_length,
        "max_batch_tokens": served.policy.tokens_max(),
        "max_batch_requests": served.policy.requests_max(),
        "max_client_batch_size": limits.max_request_texts,
        "auto_truncate": true,
        "version": env!("CARGO_PKG_VERSION"),
        "sha": null,
        "docker_label": null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_label_comes_first() {
        let labels = ["negative".to_owned(), "neutral".to_owned(), "positive".to_owned()];
        let sorted = sorted(&labels, &[0.2, 0.1, 0.7]);
        let order: Vec<_> = sorted.iter().map(|p| p.label).collect();
        assert_eq!(order, ["positive", "negative", "neutral"]);
        assert_eq!(
            serde_json::to_string(&sorted[0]).unwrap(),
            r#"{"score":0.7,"label":"positive"}"#
        );
    }
}
