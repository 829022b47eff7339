//! The v2 protocol's `ModelInfer` over gRPC, with raw tensors, as `tritonclient` sends them.

use anyhow::{Context, Result};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use penstock_proto::inference::ModelInferRequest;
use penstock_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use penstock_proto::inference::model_infer_request::InferInputTensor;
use tonic::transport::{Channel, Endpoint};

use super::{Adapter, Failure};

/// `ModelInfer` on several connections in turn.
pub struct KserveGrpc {
    clients: Vec<GrpcInferenceServiceClient<Channel>>,
    model: String,
}

impl KserveGrpc {
    /// Opens the connections.
    pub async fn connect(address: &str, model: &str, connections: usize) -> Result<KserveGrpc> {
        let mut clients = Vec::with_capacity(connections);
        for _ in 0..connections {
            clients.push(GrpcInferenceServiceClient::new(channel(address).await?));
        }
        Ok(KserveGrpc {
            clients,
            model: model.to_owned(),
        })
    }
}

/// One connection.
pub async fn channel(address: &str) -> Result<Channel> {
    Endpoint::from_shared(format!("http://{address}"))?
        .tcp_nodelay(true)
        .connect()
        .await
        .with_context(|| format!("cannot connect to {address}"))
}

/// A BYTES tensor: each text behind its length in four bytes, low byte first.
fn tensor(texts: &[String]) -> Bytes {
    let mut raw = BytesMut::with_capacity(texts.iter().map(|t| t.len() + 4).sum());
    for text in texts {
        raw.put_u32_le(text.len() as u32);
        raw.put_slice(text.as_bytes());
    }
    raw.freeze()
}

impl Adapter for KserveGrpc {
    fn score(&self, turn: usize, texts: Vec<String>) -> BoxFuture<'_, Result<(), Failure>> {
        let mut client = self.clients[turn % self.clients.len()].clone();
        Box::pin(async move {
            let input = InferInputTensor {
                name: "text".into(),
                datatype: "BYTES".into(),
                shape: vec![texts.len() as i64, 1],
                ..InferInputTensor::default()
            };
            let request = ModelInferRequest {
                model_name: self.model.clone(),
                inputs: vec![input],
                raw_input_contents: vec![tensor(&texts)],
                ..ModelInferRequest::default()
            };
            let answer = client
                .model_infer(request)
                .await
                .map_err(|s| Failure::of("ModelInfer", s))?;
            let rows = answer
                .get_ref()
                .outputs
                .first()
                .and_then(|o| o.shape.first().copied());
            if rows == Some(texts.len() as i64) {
                Ok(())
            } else {
                Err(Failure(format!(
                    "ModelInfer: {rows:?} rows for {} texts",
                    texts.len()
                )))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_stand_behind_their_lengths() {
        assert_eq!(
            &tensor(&["ab".into(), String::new()])[..],
            b"\x02\0\0\0ab\0\0\0\0"
        );
    }
}
