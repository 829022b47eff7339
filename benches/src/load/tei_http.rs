//! text-embeddings-inference's `POST /embed`, which Penstock answers too.

use futures_util::future::BoxFuture;
use serde::Serialize;

use super::http::Client;
use super::{Adapter, Failure};

/// Texts in, JSON rows of numbers out.
pub struct TeiHttp {
    client: Client,
}

#[derive(Serialize)]
struct Embed<'a> {
    inputs: &'a [String],
    truncate: bool,
}

impl TeiHttp {
    /// Speaks through `client`.
    pub fn new(client: Client) -> TeiHttp {
        TeiHttp { client }
    }
}

impl Adapter for TeiHttp {
    fn score(&self, _turn: usize, texts: Vec<String>) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let body = serde_json::to_vec(&Embed {
                inputs: &texts,
                truncate: true,
            })
            .map_err(|e| Failure::of("request", e))?;
            let answer = self.client.post("/embed", body).await?;
            // Rows are counted without parsing the numbers: the client shares its cores with the server.
            let rows = answer.split(|b| *b == b'[').count().saturating_sub(2);
            if rows == texts.len() {
                Ok(())
            } else {
                Err(Failure(format!("/embed: {rows} rows for {} texts", texts.len())))
            }
        })
    }
}
