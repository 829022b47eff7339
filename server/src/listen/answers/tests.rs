//! Tests of the counts of unread answers.

use std::convert::Infallible;
use std::future::poll_fn;

use penstock_telemetry::clock::Clock;
use penstock_telemetry::metrics::Metrics;

use super::*;

/// A body of these pieces.
struct Pieces(Vec<&'static [u8]>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = (!self.0.is_empty()).then(|| self.0.remove(0));
        Poll::Ready(piece.map(|piece| Ok(Frame::data(Bytes::from_static(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}

fn memory(bytes_max: usize) -> (Arc<AnswerMemory>, AnswerCounts) {
    let all = AnswerMemory::new(bytes_max, Metrics::new(Clock::start()).unread_bytes());
    let counts = AnswerCounts {
        all: Arc::clone(&all),
        own: Arc::default(),
    };
    (all, counts)
}

#[tokio::test]
async fn an_answer_is_counted_from_its_first_piece_until_it_is_written() {
    let (all, counts) = memory(100);
    let pieces = || Pieces(vec![b"first", b"", b"second"]);
    let mut answer = poll_fn(|cx| Poll::Ready(CountedAnswer::new(pieces(), counts.clone(), cx))).await;
    assert_eq!(counts.own.bytes(), 5, "before the client asks for it");
    counts.own.any().await;
    assert_eq!(answer.size_hint().exact(), Some(11));
    let mut written = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut answer).poll_frame(cx)).await {
        assert_eq!(all.bytes.load(Ordering::Relaxed), counts.own.bytes());
        written.extend(frame.unwrap().into_data().unwrap());
        assert_eq!(counts.own.bytes(), 0, "this piece is written");
    }
    assert!(answer.is_end_stream());
    assert_eq!(written, b"firstsecond");
    let answer = poll_fn(|cx| Poll::Ready(CountedAnswer::new(pieces(), counts.clone(), cx))).await;
    drop(answer);
    assert_eq!(counts.own.bytes(), 0, "the connection has ended");
}

#[test]
fn the_demand_grows_as_the_memory_fills() {
    let (all, _) = memory(8 << 20);
    let kib = 1024;
    assert_eq!(all.demand(0), None);
    assert_eq!(all.demand(1 << 20), None, "a stream may pause");
    assert_eq!(all.demand(2 << 20), Some((WINDOW, 160 * kib)));
    all.bytes.store(4 << 20, Ordering::Relaxed);
    assert_eq!(all.demand(2 << 20), Some((WINDOW_SHORT, 16 * kib)));
    assert_eq!(all.demand(100), Some((WINDOW_SHORT, 100)));
    assert_eq!(all.refusal(), None);
    all.bytes.store(8 << 20, Ordering::Relaxed);
    let refused = all.refusal().unwrap().to_string();
    assert!(refused.contains("8388608 of 8388608 bytes"), "{refused}");
}
