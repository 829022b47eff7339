//! Reads a request's body: bounded on the wire and after decompression, at a minimum pace, and within memory
//! shared by all bodies.

use std::error::Error;
use std::io::{self, Write};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT};
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use penstock_core::Rejection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::http::response::Refusal;
use crate::inflate::{Encoding, Inflate};

/// Unit of the shared memory.
const UNIT_BYTES: usize = 1024;

/// Compressed bytes inflated before other connections get their turn.
const INFLATE_STEP: usize = 16 * 1024;

/// Minimum pace of a body: a grace, then an average rate.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Time that any body may take.
    pub grace: Duration,
    /// Bytes a second that the client must send after the grace.
    pub bytes_per_second: u32,
}

/// Reads bodies and counts their memory.
#[derive(Clone, Debug)]
pub struct Bodies {
    bytes_max: usize,
    allowance: usize,
    memory: Arc<Semaphore>,
    units: usize,
    pace: Pace,
}

/// A complete body. Dropping it returns its share of the memory.
#[derive(Debug)]
pub struct Whole {
    bytes: Vec<u8>,
    /// Bytes of memory that the decoded body may take beyond its wire length.
    pub allowance: usize,
    /// `None` for an empty body.
    _share: Option<OwnedSemaphorePermit>,
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
        // A body within the limit must fit when it is alone.
        let units = memory_max
            .max(bytes_max)
            .div_ceil(UNIT_BYTES)
            .min(Semaphore::MAX_PERMITS);
        Bodies {
            bytes_max,
            allowance,
            memory: Arc::new(Semaphore::new(units)),
            units,
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
        let start = Instant::now();
        let mut received = 0_usize;
        loop {
            let paid = Duration::from_secs_f64(received as f64 / f64::from(self.pace.bytes_per_second));
            let Ok(chunk) = timeout_at(start + self.pace.grace + paid, stream.next()).await else {
                let message = format!(
                    "the body arrives too slowly: {received} bytes in {:?}",
                    start.elapsed()
                );
                return Err(Refusal::Http(StatusCode::REQUEST_TIMEOUT, message));
            };
            match chunk {
                None => return reading.finish(),
                Some(Err(error)) => return Err(broken(&error)),
                Some(Ok(chunk)) => {
                    received += chunk.len();
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
        let patience = Instant::now() + self.pace.grace.min(Duration::from_secs(5));
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
    bodies: Bodies,
    share: Option<OwnedSemaphorePermit>,
    refusal: Option<Refusal>,
}

impl Sink {
    fn new(bodies: &Bodies) -> Sink {
        Sink {
            bytes: Vec::new(),
            bodies: bodies.clone(),
            share: None,
            refusal: None,
        }
    }

    fn grow(&mut self, bytes: usize) -> Result<(), Refusal> {
        let Bodies {
            bytes_max,
            memory,
            units,
            ..
        } = &self.bodies;
        if bytes > *bytes_max {
            return Err(too_large(*bytes_max));
        }
        let held = self.share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let wanted = bytes.div_ceil(UNIT_BYTES).saturating_sub(held);
        if wanted == 0 {
            return Ok(());
        }
        let more = u32::try_from(wanted)
            .ok()
            .and_then(|n| Arc::clone(memory).try_acquire_many_owned(n).ok());
        let Some(more) = more else {
            let used = units.saturating_sub(memory.available_permits());
            let (what, unit) = ("the memory for request bodies", "KiB");
            return Err(Refusal::Rejected(Rejection::Overloaded {
                what,
                used,
                bound: *units,
                unit,
            }));
        };
        match &mut self.share {
            Some(share) => share.merge(more),
            None => self.share = Some(more),
        }
        Ok(())
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
            bytes, share, bodies, ..
        } = sink;
        Ok(Whole {
            bytes,
            allowance: bodies.allowance,
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
