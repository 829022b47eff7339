//! `penstock.v1.TextService/Score`: a stream on each connection, results matched to their requests by id.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use futures_util::future::BoxFuture;
use penstock_proto::text::result::Outcome;
use penstock_proto::text::text_service_client::TextServiceClient;
use penstock_proto::text::{ScoreOptions, ScoreRequest, ScoreResponse, Text};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::kserve_grpc::channel;
use super::{Adapter, Failure};

/// Requests that wait to be written to one stream; the server's flow control sets the pace.
const UNSENT_MAX: usize = 256;

type Waiting = Arc<Mutex<HashMap<String, oneshot::Sender<Result<(), Failure>>>>>;

struct Stream {
    requests: mpsc::Sender<ScoreRequest>,
    waiting: Waiting,
}

/// Several streams in turn.
pub struct PenstockStream {
    streams: Vec<Stream>,
}

impl PenstockStream {
    /// Opens the connections, and a stream on each.
    pub async fn connect(address: &str, model: &str, connections: usize) -> Result<PenstockStream> {
        let mut streams = Vec::with_capacity(connections);
        for _ in 0..connections {
            streams.push(open(address, model).await?);
        }
        Ok(PenstockStream { streams })
    }
}

async fn open(address: &str, model: &str) -> Result<Stream> {
    let mut client = TextServiceClient::new(channel(address).await?);
    let (requests, unsent) = mpsc::channel(UNSENT_MAX);
    let options = ScoreOptions {
        model: model.to_owned(),
        ..ScoreOptions::default()
    };
    requests
        .send(ScoreRequest {
            options: Some(options),
            texts: Vec::new(),
        })
        .await?;
    let responses = client
        .score(ReceiverStream::new(unsent))
        .await
        .with_context(|| format!("no Score stream at {address}"))?
        .into_inner();
    let waiting = Waiting::default();
    tokio::spawn(read(responses, Arc::clone(&waiting)));
    Ok(Stream { requests, waiting })
}

/// Wakes each request's waiter with its result; at the end of the stream, wakes all.
async fn read(mut responses: Streaming<ScoreResponse>, waiting: Waiting) {
    let end = loop {
        match responses.message().await {
            Ok(Some(response)) => answer(response, &waiting),
            Ok(None) => break Failure("Score: the stream ended".into()),
            Err(status) => break Failure::of("Score", status),
        }
    };
    for (_, sender) in waiting.lock().unwrap_or_else(PoisonError::into_inner).drain() {
        let _ = sender.send(Err(end.clone()));
    }
}

/// The texts of one request are answered together and share one id: the first result speaks for them,
/// except where a later one failed.
fn answer(response: ScoreResponse, waiting: &Waiting) {
    let mut by_id: HashMap<String, Result<(), Failure>> = HashMap::new();
    for result in response.results {
        let verdict = match result.outcome {
            Some(Outcome::Error(error)) => Err(Failure::of("Score", error.message)),
            Some(_) => Ok(()),
            None => Err(Failure("Score: a result without an outcome".into())),
        };
        let entry = by_id.entry(result.id).or_insert(Ok(()));
        if entry.is_ok() {
            *entry = verdict;
        }
    }
    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    for (id, verdict) in by_id {
        if let Some(sender) = waiting.remove(&id) {
            let _ = sender.send(verdict);
        }
    }
}

impl Adapter for PenstockStream {
    fn score(&self, turn: usize, texts: Vec<String>) -> BoxFuture<'_, Result<(), Failure>> {
        let stream = &self.streams[turn % self.streams.len()];
        Box::pin(async move {
            let id = turn.to_string();
            let (sender, verdict) = oneshot::channel();
            stream
                .waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(id.clone(), sender);
            let texts = texts
                .into_iter()
                .map(|text| Text { id: id.clone(), text })
                .collect();
            let gone = || Failure("Score: the stream is closed".into());
            stream
                .requests
                .send(ScoreRequest { options: None, texts })
                .await
                .map_err(|_| gone())?;
            verdict.await.map_err(|_| gone())?
        })
    }
}
