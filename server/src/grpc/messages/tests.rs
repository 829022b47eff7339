//! Tests of messages: frames cut anywhere, bounds on the wire and inflated, and memory that is returned.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use hyper::body::Frame;
use proptest::prelude::*;

use super::*;
use crate::listen::ReceiveMemory;

/// A body of these chunks.
struct Chunks(VecDeque<Bytes>);

impl Body for Chunks {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(self.0.pop_front().map(|chunk| Ok(Frame::data(chunk))))
    }
}

const MEMORY: usize = 1 << 20;

fn bounds(bytes_max: usize) -> MessageBounds {
    MessageBounds {
        bytes_max,
        schema: None,
        allowance: 0,
        pace: Pace {
            window: Duration::from_millis(20),
            ..Pace::REQUEST
        },
    }
}

fn frame(flags: u8, contents: &[u8]) -> Vec<u8> {
    let mut bytes = vec![flags];
    bytes.extend_from_slice(&(contents.len() as u32).to_be_bytes());
    bytes.extend_from_slice(contents);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

struct Bench {
    messages: Messages<Chunks>,
    arriving: Arc<ReceiveMemory>,
}

impl Bench {
    /// `bytes` in chunks that end at multiples of `cut`.
    fn new(bytes: &[u8], cut: usize, encoding: Encoding, bounds: MessageBounds) -> Bench {
        let chunks = bytes.chunks(cut).map(Bytes::copy_from_slice).collect();
        let arriving = ReceiveMemory::new(MEMORY, MEMORY);
        let messages = Messages::new(
            Chunks(chunks),
            encoding,
            bounds,
            arriving.connection(Arc::default()),
        );
        Bench { messages, arriving }
    }

    fn next(&mut self) -> Option<Result<Message, Status>> {
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(next) = self.messages.poll_next(&mut cx) {
                return next;
            }
        }
    }

    fn all(mut self) -> Result<Vec<Vec<u8>>, Status> {
        let mut all = Vec::new();
        while let Some(next) = self.next() {
            let message =
                next.inspect_err(|_| assert_eq!(self.arriving.held(), 0, "an error holds nothing"))?;
            all.push(message.bytes.to_vec());
            drop(message);
            assert_eq!(self.arriving.held(), 0, "a message takes its memory along");
        }
        Ok(all)
    }
}

fn check(bytes: &[u8], encoding: Encoding, expected: Result<&[&[u8]], (Code, &str)>) {
    for cut in [1, 3, 64, usize::MAX] {
        let found = Bench::new(bytes, cut.min(bytes.len().max(1)), encoding, bounds(1000)).all();
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(status), Err((code, message))) => {
                assert_eq!(status.code(), code, "{status:?}");
                assert!(status.message().contains(message), "{status:?}");
            }
            (found, expected) => panic!("{found:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn messages_are_taken_as_they_are_framed() {
    let two = [frame(0, b"one"), frame(0, b""), frame(0, b"three")].concat();
    check(&two, Encoding::Identity, Ok(&[b"one", b"", b"three"]));
    check(b"", Encoding::Identity, Ok(&[]));
    let mixed = [frame(1, &gzip(b"one")), frame(0, b"two"), frame(1, &gzip(b""))].concat();
    check(&mixed, Encoding::Gzip, Ok(&[b"one", b"two", b""]));
    check(&frame(1, &zlib(b"one")), Encoding::Deflate, Ok(&[b"one"]));
}

#[test]
fn a_frame_that_is_wrong_ends_the_call_and_says_why() {
    check(
        &frame(0, b"one")[..7],
        Encoding::Identity,
        Err((Code::Internal, "inside of a message")),
    );
    check(
        &frame(0, b"one")[..3],
        Encoding::Identity,
        Err((Code::Internal, "inside of a message")),
    );
    check(
        &frame(2, b"one"),
        Encoding::Identity,
        Err((Code::Internal, "flags of a message are 2")),
    );
    check(
        &frame(1, b"one"),
        Encoding::Identity,
        Err((Code::Internal, "no grpc-encoding")),
    );
    let not_whole = Err((Code::InvalidArgument, "not whole gzip"));
    check(&frame(1, b"this is no gzip at all"), Encoding::Gzip, not_whole);
    let cut = gzip(b"some text that goes on for a while");
    check(&frame(1, &cut[..cut.len() - 6]), Encoding::Gzip, not_whole);
}

#[test]
fn a_message_is_bounded_on_the_wire_and_inflated() {
    check(&frame(0, &[7; 1000]), Encoding::Identity, Ok(&[&[7; 1000]]));
    let too_large = Err((Code::OutOfRange, "1000"));
    check(&frame(0, &[7; 1001]), Encoding::Identity, too_large);
    check(&frame(1, &gzip(&[0; 1000])), Encoding::Gzip, Ok(&[&[0; 1000]]));
    check(&frame(1, &gzip(&[0; 1001])), Encoding::Gzip, too_large);
    check(&frame(1, &gzip(&vec![0; 1 << 20])), Encoding::Gzip, too_large);
}

#[test]
fn a_claimed_length_takes_no_memory() {
    let claim = [0, 0, 15, 0, 0];
    let mut bench = Bench::new(&claim, 5, Encoding::Identity, bounds(1 << 20));
    assert!(matches!(bench.next(), Some(Err(_))), "the body ends here");
    let mut bench = Bench::new(
        &[&claim[..], &[7; 100]].concat(),
        105,
        Encoding::Identity,
        bounds(1 << 20),
    );
    let step = bench.messages.data.len();
    assert_eq!(step, 0);
    bench.messages.data = bench.messages.body.0.pop_front().unwrap();
    while !matches!(bench.messages.advance(), Ok(Step::NeedsData)) {}
    assert_eq!(bench.arriving.held(), FIRST_BUFFER, "for the 100 bytes that came");
}

#[test]
fn a_message_that_finds_no_memory_is_unavailable_and_leaves_none_held() {
    let large = frame(1, &gzip(&vec![0; 2 * MEMORY]));
    let bench = Bench::new(&large, 100, Encoding::Gzip, bounds(4 * MEMORY));
    let status = bench.all().expect_err("the memory is too small");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("the receive memory"), "{status:?}");
}

#[test]
fn a_message_of_too_many_elements_is_refused() {
    let schema = Schema::of_method("/inference.GRPCInferenceService/ModelInfer");
    let bounds = MessageBounds {
        bytes_max: 1 << 20,
        schema,
        allowance: 10_000,
        pace: Pace::REQUEST,
    };
    let hostile = frame(1, &gzip(&[0x2a, 0].repeat(100_000)));
    let status = Bench::new(&hostile, 100, Encoding::Gzip, bounds)
        .all()
        .expect_err("it is refused");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("field \"inputs\""), "{status:?}");
}

#[test]
fn a_long_inflation_gives_others_their_turn() {
    let large = frame(1, &gzip(&vec![0; 4 * TURN_BYTES]));
    let arriving = ReceiveMemory::new(8 * TURN_BYTES, 8 * TURN_BYTES);
    let chunks = Chunks([Bytes::from(large)].into());
    let mut messages = Messages::new(
        chunks,
        Encoding::Gzip,
        bounds(4 * TURN_BYTES),
        arriving.connection(Arc::default()),
    );
    let mut cx = Context::from_waker(Waker::noop());
    let mut turns = 0;
    while messages.poll_next(&mut cx).is_pending() {
        turns += 1;
    }
    assert!(turns >= 2, "{turns}");
}

proptest! {
    #[test]
    fn however_the_frames_are_cut_the_messages_are_the_same(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..6),
        compressed: bool,
        cut in 1_usize..50,
    ) {
        let framed = |m: &Vec<u8>| if compressed { frame(1, &gzip(m)) } else { frame(0, m) };
        let bytes: Vec<u8> = messages.iter().flat_map(framed).collect();
        let found = Bench::new(&bytes, cut, Encoding::Gzip, bounds(1000)).all();
        prop_assert_eq!(found.unwrap(), messages);
    }

    #[test]
    fn any_bytes_are_messages_or_an_error(bytes: Vec<u8>, cut in 1_usize..20) {
        let _ = Bench::new(&bytes, cut, Encoding::Gzip, bounds(1000)).all();
    }
}

/// Chunks, and then a client that is silent.
struct Silent(Chunks);

impl Body for Silent {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match ready!(Pin::new(&mut self.0).poll_frame(cx)) {
            Some(frame) => Poll::Ready(Some(frame)),
            None => Poll::Pending,
        }
    }
}

#[tokio::test]
async fn half_a_message_must_go_on_and_a_stream_may_be_silent() {
    let memory = ReceiveMemory::new(MEMORY, MEMORY);
    let whole = frame(0, b"whole");
    let half = [&whole[..], &frame(0, &[b'x'; 1000])[..900]].concat();
    for (bytes, late) in [(&half[..], true), (&whole[..], false)] {
        let body = Silent(Chunks([Bytes::copy_from_slice(bytes)].into()));
        let connection = memory.connection(Arc::default());
        let mut messages = Messages::new(body, Encoding::Identity, bounds(1024), connection);
        let first = poll_fn(|cx| messages.poll_next(cx)).await;
        assert_eq!(first.unwrap().unwrap().bytes, &b"whole"[..]);
        let patience = if late {
            Duration::from_mins(1)
        } else {
            Duration::from_millis(100)
        };
        let next = tokio::time::timeout(patience, poll_fn(|cx| messages.poll_next(cx)));
        match next.await {
            Ok(Some(Err(status))) => {
                assert!(late, "{status}");
                assert_eq!(status.code(), Code::DeadlineExceeded);
                assert!(status.message().contains("too slowly: "), "{status}");
            }
            Ok(other) => panic!("{other:?}"),
            Err(_) => assert!(!late, "half a message is waited for"),
        }
        assert_eq!(memory.held(), 0);
    }
}
