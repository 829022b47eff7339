//! The v2 REST protocol: JSON in, binary tensors out, as its clients do by default.

use futures_util::future::BoxFuture;
use serde_json::json;

use super::http::Client;
use super::{Adapter, Failure};

/// `POST /v2/models/MODEL/infer`.
pub struct V2Http {
    client: Client,
    path: String,
}

impl V2Http {
    /// Speaks through `client` about `model`.
    pub fn new(client: Client, model: &str) -> V2Http {
        V2Http {
            client,
            path: format!("/v2/models/{model}/infer"),
        }
    }
}

impl Adapter for V2Http {
    fn score(&self, _turn: usize, texts: Vec<String>) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let request = json!({
                "inputs": [{
                    "name": "text",
                    "shape": [texts.len(), 1],
                    "datatype": "BYTES",
                    "data": texts,
                }],
                "parameters": { "binary_data_output": true },
            });
            let body = serde_json::to_vec(&request).map_err(|e| Failure::of("request", e))?;
            let answer = self.client.post(&self.path, body).await?;
            if answer.is_empty() {
                Err(Failure(format!("{}: an empty answer", self.path)))
            } else {
                Ok(())
            }
        })
    }
}
