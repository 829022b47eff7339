//! Bounds the memory of messages that are still arriving, over all calls and connections.
//!
//! A request is admitted once it is whole; until then its bytes lie in the receive buffers, as many as
//! clients care to begin. They are counted here, and a message that would go beyond the bound is refused.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use penstock_core::Rejection;

use crate::status::to_status;

/// A gRPC message begins with one byte of flags and its length in four.
const HEADER: usize = 5;

/// The memory that all messages share while they arrive.
#[derive(Debug)]
pub struct Arriving {
    bytes: AtomicUsize,
    bytes_max: usize,
}

impl Arriving {
    /// Memory of `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Arc<Arriving> {
        Arc::new(Arriving {
            bytes: AtomicUsize::new(0),
            bytes_max,
        })
    }

    fn take(&self, more: usize) -> Result<(), Rejection> {
        let used = self.bytes.fetch_add(more, Ordering::Relaxed);
        if used + more <= self.bytes_max {
            return Ok(());
        }
        self.bytes.fetch_sub(more, Ordering::Relaxed);
        Err(Rejection::Overloaded {
            what: "the receive memory",
            used,
            bound: self.bytes_max,
            unit: "bytes",
        })
    }
}

/// A call's body that counts the part of a message that has arrived.
pub struct Metered<B> {
    body: B,
    arriving: Arc<Arriving>,
    message: Message,
    /// What is counted for this body.
    held: usize,
}

impl<B> Metered<B> {
    /// Counts `body`.
    pub fn new(body: B, arriving: Arc<Arriving>) -> Metered<B> {
        Metered {
            body,
            arriving,
            message: Message::default(),
            held: 0,
        }
    }

    fn count(&mut self, data: &[u8]) -> Result<(), Rejection> {
        let now = self.message.advance(data);
        if now > self.held {
            self.arriving.take(now - self.held)?;
        } else {
            self.arriving.bytes.fetch_sub(self.held - now, Ordering::Relaxed);
        }
        self.held = now;
        Ok(())
    }
}

impl<B> Drop for Metered<B> {
    fn drop(&mut self) {
        self.arriving.bytes.fetch_sub(self.held, Ordering::Relaxed);
    }
}

impl<B> Body for Metered<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<tonic::codegen::StdError>,
{
    type Data = Bytes;
    type Error = tonic::codegen::StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx).map(|frame| {
            let frame = frame?
                .map_err(Into::into)
                .and_then(|frame| match frame.data_ref() {
                    Some(data) => self
                        .count(data)
                        .map(|()| frame)
                        .map_err(|full| to_status(&full).into()),
                    None => Ok(frame),
                });
            Some(frame)
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Where in a sequence of messages the bytes stand.
#[derive(Debug, Default)]
struct Message {
    header: [u8; HEADER],
    /// Bytes of the message that have arrived, its header included.
    arrived: usize,
}

impl Message {
    /// Goes on by `data`; returns how many bytes of an unfinished message there are.
    fn advance(&mut self, mut data: &[u8]) -> usize {
        while !data.is_empty() {
            let step = if self.arrived < HEADER {
                let step = data.len().min(HEADER - self.arrived);
                self.header[self.arrived..self.arrived + step].copy_from_slice(&data[..step]);
                step
            } else {
                data.len().min(self.length() - self.arrived)
            };
            self.arrived += step;
            data = &data[step..];
            if self.arrived >= HEADER && self.arrived == self.length() {
                self.arrived = 0;
            }
        }
        self.arrived
    }

    /// Of the whole message, once its header is there.
    fn length(&self) -> usize {
        let [_, length @ ..] = self.header;
        HEADER + u32::from_be_bytes(length) as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend_from_slice(&(length as u32).to_be_bytes());
        bytes.resize(HEADER + length, 7);
        bytes
    }

    proptest! {
        #[test]
        fn however_it_is_cut_only_the_unfinished_message_counts(
            lengths in prop::collection::vec(0_usize..50, 0..6),
            cuts in prop::collection::vec(1_usize..20, 1..20),
        ) {
            let bytes: Vec<u8> = lengths.iter().flat_map(|&length| message(length)).collect();
            let mut ends = vec![0];
            for length in &lengths {
                ends.push(ends[ends.len() - 1] + HEADER + length);
            }
            let (mut state, mut at) = (Message::default(), 0);
            for cut in cuts.iter().cycle().take(bytes.len()) {
                let to = (at + cut).min(bytes.len());
                let unfinished = state.advance(&bytes[at..to]);
                let begun = ends.iter().rev().find(|&&end| end <= to).copied().unwrap_or(0);
                prop_assert_eq!(unfinished, to - begun);
                at = to;
            }
        }
    }

    #[test]
    fn a_message_beyond_the_memory_is_refused_and_gives_back_what_it_held() {
        let arriving = Arriving::new(100);
        let mut one = Metered::new((), Arc::clone(&arriving));
        let mut two = Metered::new((), Arc::clone(&arriving));
        assert_eq!(one.count(&message(200)[..60]), Ok(()));
        assert_eq!(two.count(&message(200)[..40]), Ok(()));
        assert!(matches!(
            two.count(&[7]),
            Err(Rejection::Overloaded {
                used: 100,
                bound: 100,
                ..
            })
        ));
        drop(one);
        assert_eq!(two.count(&[7; 59]), Ok(()));
        drop(two);
        assert_eq!(arriving.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_whole_message_is_counted_no_more() {
        let arriving = Arriving::new(10);
        let mut body = Metered::new((), Arc::clone(&arriving));
        for _ in 0..5 {
            assert_eq!(
                body.count(&message(1000)),
                Ok(()),
                "it came whole: the decoder takes it at once"
            );
        }
        assert_eq!(arriving.bytes.load(Ordering::Relaxed), 0);
    }
}
