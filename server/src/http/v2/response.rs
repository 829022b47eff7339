//! v2 answers in JSON, in Triton's form: tensors with or without binary data, metadata, configuration,
//! statistics.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use crate::http::response::{Refusal, Turns, bytes_with, push_json};
use crate::v2::description::{self, Configuration, Datatype, SERVER_NAME, TensorInfo};
use crate::v2::response::{self as v2, Asked, Tensor, Values};
use penstock_engine::repository::IndexEntry;
use penstock_engine::served_model::ServedModel;
use penstock_engine::service::InferenceResponse;
use penstock_telemetry::metrics::{Statistics, Tally};

/// Header with the number of JSON bytes of a body; binary data follows them.
pub const HEADER_LENGTH: &str = "inference-header-content-length";

/// Outputs that are requested as binary data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Binary {
    /// Default of all outputs.
    pub all: bool,
    /// Setting of each requested output.
    pub each: Vec<Option<bool>>,
}

impl Binary {
    /// Whether the output at `index` is binary.
    pub fn of(&self, index: usize) -> bool {
        self.each.get(index).copied().flatten().unwrap_or(self.all)
    }
}

/// The answer to an inference; the first rejected row rejects the whole request.
pub async fn infer(
    asked: &Asked,
    binary: &Binary,
    scored: &InferenceResponse,
) -> Result<Response<Body>, Refusal> {
    let replies = scored.all().map_err(Clone::clone)?;
    let ServedModel {
        name, version, spec, ..
    } = scored.served.as_ref();
    let tensors = v2::tensors(asked, spec, &replies)?;
    let mut out = b"{".to_vec();
    if !asked.id.is_empty() {
        out.extend_from_slice(b"\"id\":");
        push_json(&mut out, &asked.id)?;
        out.push(b',');
    }
    out.extend_from_slice(b"\"model_name\":");
    push_json(&mut out, name)?;
    out.extend_from_slice(b",\"model_version\":");
    push_json(&mut out, version)?;
    if asked.mark_final {
        out.extend_from_slice(br#","parameters":{"triton_final_response":true}"#);
    }
    out.extend_from_slice(b",\"outputs\":[");
    let mut raw = Vec::new();
    let mut turns = Turns::default();
    for (index, tensor) in tensors.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push_tensor(&mut out, tensor, binary.of(index).then_some(&mut raw), &mut turns).await?;
    }
    out.extend_from_slice(b"]}");
    if raw.is_empty() {
        return Ok(bytes_with(StatusCode::OK, "application/json", out));
    }
    let length = HeaderValue::from(out.len());
    out.append(&mut raw);
    let mut response = bytes_with(StatusCode::OK, "application/octet-stream", out);
    response
        .headers_mut()
        .insert(HeaderName::from_static(HEADER_LENGTH), length);
    Ok(response)
}

async fn push_tensor(
    out: &mut Vec<u8>,
    tensor: &Tensor<'_>,
    raw: Option<&mut Vec<u8>>,
    turns: &mut Turns,
) -> Result<(), Refusal> {
    let Tensor { name, shape, values } = tensor;
    out.extend_from_slice(b"{\"name\":");
    push_json(out, name)?;
    out.extend_from_slice(b",\"datatype\":");
    push_json(out, values.datatype())?;
    out.extend_from_slice(b",\"shape\":");
    push_json(out, shape)?;
    if let Some(raw) = raw {
        let from = raw.len();
        raw.extend_from_slice(&values.to_raw());
        out.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
        push_json(out, &(raw.len() - from))?;
        out.extend_from_slice(b"}}");
        return Ok(());
    }
    out.extend_from_slice(b",\"data\":");
    match values {
        Values::Fp32(numbers) => {
            out.push(b'[');
            for (index, number) in numbers.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                push_json(out, number)?;
                turns.give(out.len()).await;
            }
            out.push(b']');
        }
        Values::Text(texts) => push_json(out, texts)?,
    }
    out.push(b'}');
    Ok(())
}

/// A model's tensors.
pub fn metadata(served: &ServedModel, versions: &[String]) -> Value {
    let tensors = |tensors: Vec<TensorInfo>| {
        let tensor = |tensor: TensorInfo| json!({ "name": tensor.name, "datatype": tensor.datatype.name(), "shape": tensor.shape });
        tensors.into_iter().map(tensor).collect::<Value>()
    };
    json!({
        "name": served.name,
        "versions": versions,
        "platform": SERVER_NAME,
        "inputs": tensors(description::inputs()),
        "outputs": tensors(description::outputs(&served.spec)),
    })
}

/// A model's configuration.
pub fn config(served: &ServedModel) -> Value {
    let data_type = |datatype: Datatype| match datatype {
        Datatype::Bytes => "TYPE_STRING",
        Datatype::Fp32 => "TYPE_FP32",
    };
    let tensor = |tensor: TensorInfo| json!({ "name": tensor.name, "data_type": data_type(tensor.datatype), "dims": tensor.shape });
    let input = |input: TensorInfo| {
        let mut input = tensor(input);
        input["optional"] = false.into();
        input
    };
    let Configuration {
        queue_delay_us,
        parameters,
    } = description::configuration(served);
    let parameters = parameters
        .into_iter()
        .map(|(name, value)| (name, json!({ "string_value": value })));
    json!({
        "name": served.name,
        "platform": "",
        "backend": SERVER_NAME,
        "max_batch_size": 0,
        "input": description::inputs().into_iter().map(input).collect::<Value>(),
        "output": description::outputs(&served.spec).into_iter().map(tensor).collect::<Value>(),
        "dynamic_batching": {
            "max_queue_delay_microseconds": queue_delay_us,
            "priority_levels": description::PRIORITY_LEVELS,
            "default_priority_level": description::PRIORITY_DEFAULT,
        },
        "parameters": parameters.collect::<Value>(),
        "model_transaction_policy": { "decoupled": false },
    })
}

/// The statistics of some versions.
pub fn statistics(served: &[Arc<ServedModel>]) -> Value {
    let all: Vec<_> = served.iter().map(|served| lane_statistics(served)).collect();
    json!({ "model_stats": all })
}

fn lane_statistics(served: &ServedModel) -> Value {
    let Statistics {
        inference_count,
        execution_count,
        last_inference_ms,
        success,
        fail,
        queue,
        compute_input,
        compute_infer,
        compute_output,
    } = served.metrics.statistics();
    let duration = |Tally { count, ns }: Tally| json!({ "count": count, "ns": ns });
    json!({
        "name": served.name,
        "version": served.version,
        "last_inference": last_inference_ms,
        "inference_count": inference_count,
        "execution_count": execution_count,
        "inference_stats": {
            "success": duration(success),
            "fail": duration(fail),
            "queue": duration(queue),
            "compute_input": duration(compute_input),
            "compute_infer": duration(compute_infer),
            "compute_output": duration(compute_output),
            "cache_hit": duration(Tally::default()),
            "cache_miss": duration(Tally::default()),
        },
        "batch_stats": [],
    })
}

/// One line of the repository's index.
pub fn index_entry(entry: IndexEntry) -> Value {
    let IndexEntry {
        name,
        version,
        state,
        reason,
    } = entry;
    json!({ "name": name, "version": version, "state": state.name(), "reason": reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pushed(values: Values<'_>, shape: Vec<usize>, binary: bool) -> (String, Vec<u8>) {
        let (mut out, mut raw) = (Vec::new(), Vec::new());
        let tensor = Tensor {
            name: "T",
            shape,
            values,
        };
        push_tensor(
            &mut out,
            &tensor,
            binary.then_some(&mut raw),
            &mut Turns::default(),
        )
        .await
        .unwrap();
        (String::from_utf8(out).unwrap(), raw)
    }

    #[tokio::test]
    async fn a_tensor_is_json_or_bytes() {
        let numbers = || Values::Fp32(vec![0.1, -2.0, 1e-9]);
        let (json, raw) = pushed(numbers(), vec![1, 3], false).await;
        assert_eq!(
            json,
            r#"{"name":"T","datatype":"FP32","shape":[1,3],"data":[0.1,-2.0,1e-9]}"#
        );
        assert!(raw.is_empty());
        let (json, raw) = pushed(numbers(), vec![1, 3], true).await;
        let expected = r#"{"name":"T","datatype":"FP32","shape":[1,3],"parameters":{"binary_data_size":12}}"#;
        assert_eq!(json, expected);
        assert_eq!(raw[..4], 0.1_f32.to_le_bytes());
        let (json, _) = pushed(Values::Text(vec!["a\"b", "ü"]), vec![2], false).await;
        assert_eq!(
            json,
            r#"{"name":"T","datatype":"BYTES","shape":[2],"data":["a\"b","ü"]}"#
        );
    }

    #[test]
    fn an_output_overrides_the_request() {
        let binary = Binary {
            all: true,
            each: vec![Some(false), None],
        };
        assert_eq!([binary.of(0), binary.of(1), binary.of(2)], [false, true, true]);
    }
}
