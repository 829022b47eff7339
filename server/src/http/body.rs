//! Reads a request's body: bounded on the wire and after decompression, at a minimum pace, and within memory
//! shared by all bodies.

use std::error::Error;
use std::future::poll_fn;
use std::io::{self, Write};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT};
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use penstock_core::Rejection;
use tokio::time::{Instant, timeout_at};

use crate::http::response::Refusal;
use crate::inflate::{Encoding, Inflate};
use crate::listen::{Pace, ReceiveMemory, ReceiveShare, RequestProgress};

/// Compressed bytes inflated before other connections get their turn.
const INFLATE_STEP: usize = 16 * 1024;

/// Longest time that a refused body is read on.
const DISCARD_MAX: Duration = Duration::from_secs(5);

/// Reads bodies and counts their memory.
#[derive(Clone, Debug)]
pub struct Bodies {
    bytes_max: usize,
    allowance: usize,
    memory: Arc<ReceiveMemory>,
    pace: Pace,
}

/// A complete body. Dropping it returns its share of the memory.
#[derive(Debug)]
pub struct Whole {
    bytes: Vec<u8>,
    /// Bytes of memory that the decoded body may take beyond its wire length.
    pub allowance: usize,
    _share: ReceiveShare,
}

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Bodies {
    /// Bodies of at most `bytes_max` each and `memory_max` bytes together. Each decoded body may take
    /// `allowance` bytes beyond its wire length.
    pub fn new(bytes_max: usize, memory_max: usize, allowance: usize, pace: Pace) -> Bodies {
        Bodies {
            bytes_max,
            allowance,
            memory: ReceiveMemory::new(memory_max, bytes_max),
            pace,
        }
    }

    /// Reads and decompresses a body.
    pub async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Whole, Refusal> {
        let mut stream = pin!(body.into_data_stream());
        match self.try_read(headers, &mut stream).await {
            Ok(whole) => Ok(whole),
            Err(refusal) => {
                // A client that waits for `100 Continue` has not sent its body, so there is nothing to
                // discard.
                if !headers.contains_key(EXPECT) {
                    self.discard(&mut stream).await;
                }
                Err(refusal)
            }
        }
    }

    async fn try_read<S, E>(&self, headers: &HeaderMap, stream: &mut S) -> Result<Whole, Refusal>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
        E: Error + 'static,
    {
        let mut reading = Reading::new(encoding(headers)?, Sink::new(self));
        if let Some(promised) = promised(headers)
            && promised > self.bytes_max as u64
        {
            return Err(too_large(self.bytes_max));
        }
        let mut received = 0_usize;
        let mut progress = RequestProgress::new(self.pace);
        loop {
            let next = poll_fn(|cx| match stream.poll_next_unpin(cx) {
                Poll::Ready(chunk) => Poll::Ready(Ok(chunk)),
                Poll::Pending => progress.poll_too_slow(cx).map(Err),
            });
            let chunk = next
                .await
                .map_err(|slow| Refusal::Http(StatusCode::REQUEST_TIMEOUT, slow.to_string()))?;
            match chunk {
                None => return reading.finish(),
                Some(Err(error)) => return Err(broken(&error)),
                Some(Ok(chunk)) => {
                    received += chunk.len();
                    progress.received(chunk.len());
                    if received > self.bytes_max {
                        return Err(too_large(self.bytes_max));
                    }
                    reading.take(&chunk).await?;
                }
            }
        }
    }

    /// Reads on for a moment after a refusal. Closing a socket with unread data resets it, and most clients
    /// then lose the answer with the reason.
    async fn discard<S, E>(&self, stream: &mut S)
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
    {
        let mut left = self.bytes_max;
        let patience = Instant::now() + self.pace.grace.min(DISCARD_MAX);
        while let Ok(Some(Ok(chunk))) = timeout_at(patience, stream.next()).await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                return;
            }
        }
    }
}

/// Maps a read error: a disconnected client gets no answer, one with wrong framing does.
fn broken(error: &(dyn Error + 'static)) -> Refusal {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && matches!(
                error.kind(),
                io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData
            )
        {
            return Refusal::invalid(format!("the body is not framed as its headers say: {error}"));
        }
        cause = error.source();
    }
    Refusal::Rejected(Rejection::Cancelled)
}

fn promised(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_large(bytes_max: usize) -> Refusal {
    let message = format!("the body is larger than max_request_bytes = {bytes_max}; send several requests");
    Refusal::Http(StatusCode::PAYLOAD_TOO_LARGE, message)
}

/// The bytes of one body. Writing beyond a bound fails and stores the reason.
struct Sink {
    bytes: Vec<u8>,
    bytes_max: usize,
    allowance: usize,
    share: ReceiveShare,
    refusal: Option<Refusal>,
}

impl Sink {
    fn new(bodies: &Bodies) -> Sink {
        // HTTP/1.1 reads one body of a connection at a time, so each has a connection's share.
        let memory = bodies.memory.connection(Arc::default());
        Sink {
            bytes: Vec::new(),
            bytes_max: bodies.bytes_max,
            allowance: bodies.allowance,
            share: ReceiveShare::new(&memory),
            refusal: None,
        }
    }

    fn grow(&mut self, bytes: usize) -> Result<(), Refusal> {
        if bytes > self.bytes_max {
            return Err(too_large(self.bytes_max));
        }
        Ok(self.share.grow(bytes)?)
    }
}

impl Write for Sink {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if let Err(refusal) = self.grow(self.bytes.len() + buf.len()) {
            self.refusal = Some(refusal);
            return Err(io::Error::other("bound reached"));
        }
        self.bytes.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The encoding in the headers.
fn encoding(headers: &HeaderMap) -> Result<Encoding, Refusal> {
    let Some(named) = headers.get(CONTENT_ENCODING) else {
        return Ok(Encoding::Identity);
    };
    Encoding::named(named.to_str().unwrap_or_default()).ok_or_else(|| {
        let message = format!("content-encoding {named:?} is not known; use gzip, deflate or none");
        Refusal::Http(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
    })
}

/// A body on its way through its decoder into the sink.
struct Reading {
    encoding: Encoding,
    inflate: Inflate<Sink>,
}

impl Reading {
    fn new(encoding: Encoding, sink: Sink) -> Reading {
        let inflate = Inflate::new(encoding, sink);
        Reading { encoding, inflate }
    }

    async fn take(&mut self, chunk: &[u8]) -> Result<(), Refusal> {
        for (i, step) in chunk.chunks(INFLATE_STEP).enumerate() {
            if let Err(error) = self.inflate.write(step) {
                return Err(self.refusal(&error));
            }
            // One step may inflate a thousandfold.
            if i > 0 && self.encoding != Encoding::Identity {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    fn refusal(&mut self, error: &io::Error) -> Refusal {
        let refusal = self.inflate.sink().refusal.take();
        refusal.unwrap_or_else(|| not_encoded(self.encoding, error))
    }

    fn finish(mut self) -> Result<Whole, Refusal> {
        if let Err(error) = self.inflate.try_finish() {
            return Err(self.refusal(&error));
        }
        let sink = self.inflate.finish();
        let sink = sink.map_err(|error| not_encoded(self.encoding, &error))?;
        let Sink {
            bytes,
            share,
            allowance,
            ..
        } = sink;
        Ok(Whole {
            bytes,
            allowance,
            _share: share,
        })
    }
}

fn not_encoded(encoding: Encoding, error: &io::Error) -> Refusal {
    let name = encoding.name();
    Refusal::Rejected(Rejection::Invalid(format!(
        "the body is not whole {name}: {error}"
    )))
}

#[cfg(test)]
mod tests;
