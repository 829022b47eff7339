//! End-to-end load on a server that speaks one of several protocols, measured from the client's side.
//!
//! Closed loop: a number of workers, each with one request in flight. Open loop: requests start at the times
//! of a Poisson process, however slow the server is. Latency counts from the time at which the request
//! *should* have started, so that a stall is charged to every request that it delays.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;

pub mod target;

mod http;
mod kserve_grpc;
mod penstock_stream;
mod tei_http;
mod v2_http;

pub mod closed;
pub mod figures;
pub mod open;
pub mod rounds;

/// A way to send texts to a server. One file for each protocol.
pub trait Adapter: Send + Sync {
    /// Sends `texts` as one request. `turn` counts requests and spreads them over the connections.
    /// Done when every text has its result.
    fn score(&self, turn: usize, texts: Vec<String>) -> BoxFuture<'_, Result<(), Failure>>;
}

/// Reason why a request got no result, in the server's words if it has any.
#[derive(Clone, Debug)]
pub struct Failure(pub String);

impl Failure {
    /// The failure of `what`.
    pub fn of(what: &str, why: impl fmt::Display) -> Failure {
        Failure(format!("{what}: {why}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The texts of a run, handed out in turn to the senders.
pub struct Feed {
    texts: Vec<String>,
    /// Tokens of each text; zeros without a tokenizer.
    tokens: Vec<usize>,
    per_request: usize,
    next: AtomicUsize,
}

/// Contents of one request.
pub struct Load {
    /// Number of the request.
    pub turn: usize,
    /// Texts of the request.
    pub texts: Vec<String>,
    /// Tokens of its texts.
    pub tokens: usize,
}

impl Feed {
    /// Requests of `per_request` of these texts each.
    pub fn new(texts: Vec<String>, tokens: Vec<usize>, per_request: usize) -> Feed {
        Feed {
            texts,
            tokens,
            per_request,
            next: AtomicUsize::new(0),
        }
    }

    /// The next request; starts again after the last text.
    pub fn next(&self) -> Load {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let places = (0..self.per_request).map(|i| (turn * self.per_request + i) % self.texts.len());
        let mut load = Load {
            turn,
            texts: Vec::with_capacity(self.per_request),
            tokens: 0,
        };
        for place in places {
            load.texts.push(self.texts[place].clone());
            load.tokens += self.tokens[place];
        }
        load
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feed_hands_out_all_texts_and_starts_again() {
        let feed = Feed::new(vec!["a".into(), "b".into(), "c".into()], vec![1, 2, 4], 2);
        let (first, second) = (feed.next(), feed.next());
        assert_eq!(
            (first.turn, first.texts, first.tokens),
            (0, vec!["a".to_owned(), "b".to_owned()], 3)
        );
        assert_eq!(
            (second.turn, second.texts, second.tokens),
            (1, vec!["c".to_owned(), "a".to_owned()], 5)
        );
    }
}
