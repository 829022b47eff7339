//! Tests of a stream's bounds, order and end, with work that the test completes.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;

use futures_util::stream;
use tokio::sync::oneshot;

use super::*;

/// Answers a request `n` with `n` when the test completes it; a request counts as `weight` texts.
struct Echo {
    weight: usize,
    bytes: usize,
    backlog: Arc<Backlog>,
    order: Order,
    begun: Rc<RefCell<Vec<Option<oneshot::Sender<()>>>>>,
}

impl StreamHandler for Echo {
    type Request = usize;
    type Response = usize;
    type Done = usize;

    fn begin(&mut self, request: usize, items: &mut VecDeque<WorkItem<usize>>) -> Result<(), Status> {
        if request == usize::MAX {
            return Err(Status::invalid_argument("no"));
        }
        let (go, went) = oneshot::channel();
        self.begun.borrow_mut().push(Some(go));
        let size = Size {
            texts: self.weight,
            bytes: self.bytes,
        };
        items.push_back(WorkItem::new(size, &self.backlog, async move {
            let _ = went.await;
            request
        }));
        Ok(())
    }

    fn order(&self) -> Order {
        self.order
    }

    fn finish(&mut self, done: usize) -> usize {
        done
    }
}

type Inbound = Pin<Box<dyn Stream<Item = Result<usize, Status>>>>;

struct Bench {
    exchange: BidiStream<Inbound, Echo>,
    begun: Rc<RefCell<Vec<Option<oneshot::Sender<()>>>>>,
    drain: Option<oneshot::Sender<()>>,
}

fn bench(weight: usize, texts_max: usize, order: Order, inbound: Inbound) -> Bench {
    let begun = Rc::new(RefCell::new(Vec::new()));
    let (drain, drained) = oneshot::channel::<()>();
    let draining = Box::pin(async move {
        if drained.await.is_err() {
            std::future::pending::<()>().await;
        }
    });
    let backlog = Backlog::new(usize::MAX);
    let echo = Echo {
        weight,
        bytes: 0,
        backlog: Arc::clone(&backlog),
        order,
        begun: Rc::clone(&begun),
    };
    Bench {
        exchange: BidiStream::bounded(echo, inbound, texts_max, backlog, draining),
        begun,
        drain: Some(drain),
    }
}

fn requests(n: usize) -> Inbound {
    Box::pin(stream::iter((0..n).map(Ok)))
}

impl Bench {
    fn poll(&mut self) -> Poll<Option<Result<usize, tonic::Code>>> {
        let polled = Pin::new(&mut self.exchange).poll_next(&mut Context::from_waker(Waker::noop()));
        polled.map(|item| item.map(|result| result.map_err(|status| status.code())))
    }

    fn complete(&self, i: usize) {
        let go = self.begun.borrow_mut()[i].take();
        let _ = go.expect("completed once").send(());
    }

    fn begun(&self) -> usize {
        self.begun.borrow().len()
    }
}

#[test]
fn no_more_is_read_than_the_bound_allows() {
    let mut bench = bench(1, 3, Order::Completion, requests(10));
    for _ in 0..5 {
        assert!(bench.poll().is_pending());
        assert_eq!(bench.begun(), 3);
    }
    bench.complete(1);
    assert_eq!(bench.poll(), Poll::Ready(Some(Ok(1))), "completion order");
    assert!(bench.poll().is_pending());
    assert_eq!(bench.begun(), 4, "one came free, one was read");
}

#[test]
fn a_piece_larger_than_the_bound_runs_alone() {
    let mut bench = bench(5, 3, Order::Completion, requests(2));
    assert!(bench.poll().is_pending());
    assert_eq!(bench.begun(), 1);
    bench.complete(0);
    assert_eq!(bench.poll(), Poll::Ready(Some(Ok(0))));
    assert!(bench.poll().is_pending());
    bench.complete(1);
    assert_eq!(bench.poll(), Poll::Ready(Some(Ok(1))));
    assert_eq!(bench.poll(), Poll::Ready(None));
}

#[test]
fn pieces_that_do_not_fit_wait_their_turn_and_nothing_is_read_past_them() {
    let mut bench = bench(2, 3, Order::Completion, requests(3));
    assert!(bench.poll().is_pending());
    assert_eq!(bench.begun(), 2, "the second is read but waits");
    bench.complete(1);
    assert!(
        bench.poll().is_pending(),
        "it has not started, so it cannot finish"
    );
    bench.complete(0);
    assert_eq!(bench.poll(), Poll::Ready(Some(Ok(0))));
    assert_eq!(bench.poll(), Poll::Ready(Some(Ok(1))));
}

#[test]
fn input_order_holds_back_what_overtakes() {
    let mut bench = bench(1, 8, Order::Input, requests(3));
    assert!(bench.poll().is_pending());
    bench.complete(2);
    bench.complete(1);
    assert!(bench.poll().is_pending());
    bench.complete(0);
    for i in 0..3 {
        assert_eq!(bench.poll(), Poll::Ready(Some(Ok(i))));
    }
    assert_eq!(bench.poll(), Poll::Ready(None), "half-closed and answered: OK");
}

#[test]
fn a_refused_request_ends_the_stream_after_everything_before_it() {
    let inbound = Box::pin(stream::iter([Ok(0), Ok(usize::MAX), Ok(1)]));
    let mut bench = bench(1, 8, Order::Completion, inbound);
    assert!(bench.poll().is_pending());
    assert_eq!(bench.begun(), 1, "nothing is read past it");
    bench.complete(0);
    assert_eq!(bench.poll(), Poll::Ready(Some(Ok(0))));
    assert_eq!(bench.poll(), Poll::Ready(Some(Err(tonic::Code::InvalidArgument))));
    assert_eq!(bench.poll(), Poll::Ready(None));
}

#[test]
fn a_drain_answers_read_requests_and_reads_no_more() {
    let inbound = Box::pin(stream::iter((0..100).map(Ok)));
    let mut bench = bench(1, 2, Order::Completion, inbound);
    assert!(bench.poll().is_pending());
    let _ = bench.drain.take().expect("once").send(());
    bench.complete(0);
    assert_eq!(bench.poll(), Poll::Ready(Some(Ok(0))));
    assert!(bench.poll().is_pending());
    assert_eq!(bench.begun(), 2, "nothing new was read");
    bench.complete(1);
    assert_eq!(bench.poll(), Poll::Ready(Some(Ok(1))));
    assert_eq!(bench.poll(), Poll::Ready(Some(Err(tonic::Code::Unavailable))));
    assert_eq!(bench.poll(), Poll::Ready(None));
}

#[test]
fn dropping_the_stream_drops_the_work() {
    let mut bench = bench(1, 2, Order::Completion, requests(2));
    assert!(bench.poll().is_pending());
    let Bench { exchange, begun, .. } = bench;
    drop(exchange);
    let begun = begun.borrow();
    assert!(
        begun
            .iter()
            .all(|go| go.as_ref().is_some_and(oneshot::Sender::is_closed))
    );
}
