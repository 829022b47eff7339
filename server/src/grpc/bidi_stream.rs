//! A bounded bidirectional stream: the bound covers requests that are read, running, or answered and not yet
//! taken.
//!
//! One state machine, polled by the connection itself: no task and no channel per stream or text. The
//! transport polls it only while the client takes answers. A client that stops reading therefore stops the
//! reading of its requests. Dropping the stream, as when the client disconnects, drops the work.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::Stream;
use futures_util::stream::{FuturesOrdered, FuturesUnordered};
use tonic::Status;

use penstock_engine::backlog::Backlog;
use penstock_engine::request::Input;
use penstock_engine::service::InferenceService;

/// Order of the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// In order of completion.
    Completion,
    /// In order of the requests.
    Input,
}

/// Bytes of one stream's text that is read and not yet answered: a few hundred texts of some kilobytes. A
/// larger message runs alone.
const BYTES_MAX: usize = 4 << 20;

/// Work of a stream, and its size.
pub struct WorkItem<T> {
    size: Size,
    work: Work<T>,
}

/// Size of an item until its answer is taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct Size {
    /// Texts.
    pub texts: usize,
    /// Bytes of text, and of the ids that its answers repeat.
    pub bytes: usize,
}

impl Size {
    /// Size of `inputs` with `ids`.
    pub fn of<'a>(inputs: &[Input], ids: impl IntoIterator<Item = &'a String>) -> Size {
        let ids: usize = ids.into_iter().map(String::len).sum();
        Size {
            texts: inputs.len(),
            bytes: inputs.iter().map(Input::bytes).sum::<usize>() + ids,
        }
    }
}

type Work<T> = Pin<Box<dyn Future<Output = (Size, T)> + Send>>;

impl<T> WorkItem<T> {
    /// `work` counts as `size` in its stream until its answer is taken, and in `backlog` until it is done.
    pub fn new(
        size: Size,
        backlog: &Arc<Backlog>,
        work: impl Future<Output = T> + Send + 'static,
    ) -> WorkItem<T> {
        let held = backlog.hold(size.bytes);
        let work = Box::pin(async move {
            let done = work.await;
            drop(held);
            (size, done)
        });
        WorkItem { size, work }
    }
}

/// One kind of stream: the meaning of a request and the form of an answer.
pub trait StreamHandler {
    /// Message of the client.
    type Request;
    /// Message to the client.
    type Response;
    /// An answer before it is encoded.
    type Done;

    /// Turns a request into work. An error ends the stream, once all earlier requests are answered.
    fn begin(
        &mut self,
        request: Self::Request,
        items: &mut VecDeque<WorkItem<Self::Done>>,
    ) -> Result<(), Status>;

    /// Order of the answers, asked once the first item exists.
    fn order(&self) -> Order;

    /// Encodes an answer.
    fn finish(&mut self, done: Self::Done) -> Self::Response;
}

/// The response stream of a [`StreamHandler`].
pub struct BidiStream<In, D: StreamHandler> {
    handler: D,
    /// `None` once reading has ended.
    inbound: Option<In>,
    /// Requests that are read and wait for room.
    waiting: VecDeque<WorkItem<D::Done>>,
    running: Running<Work<D::Done>>,
    texts: usize,
    bytes: usize,
    texts_max: usize,
    backlog: Arc<Backlog>,
    /// Set while this stream waits for room in the shared backlog.
    room: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    draining: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Final status, sent once everything is answered; `None` is OK.
    end: Option<Status>,
}

impl<In, D: StreamHandler> BidiStream<In, D> {
    /// Answers the requests of `inbound`.
    pub fn new(service: &Arc<InferenceService>, inbound: In, handler: D) -> BidiStream<In, D> {
        let drained = Arc::clone(service);
        let draining = Box::pin(async move { drained.draining().await });
        let backlog = Arc::clone(service.backlog());
        BidiStream::bounded(
            handler,
            inbound,
            service.limits().stream_in_flight_max,
            backlog,
            draining,
        )
    }

    fn bounded(
        handler: D,
        inbound: In,
        texts_max: usize,
        backlog: Arc<Backlog>,
        draining: Pin<Box<dyn Future<Output = ()> + Send>>,
    ) -> BidiStream<In, D> {
        BidiStream {
            handler,
            inbound: Some(inbound),
            waiting: VecDeque::new(),
            running: Running::Empty,
            texts: 0,
            bytes: 0,
            texts_max,
            backlog,
            room: None,
            draining,
            end: None,
        }
    }

    /// Starts items that have room. An item larger than the whole bound runs alone.
    fn start(&mut self) {
        while let Some(item) = self.waiting.front() {
            let Size { texts, bytes } = item.size;
            let fits = self.texts + texts <= self.texts_max && self.bytes + bytes <= BYTES_MAX;
            if self.texts > 0 && !fits {
                return;
            }
            let Some(WorkItem { work, .. }) = self.waiting.pop_front() else {
                return;
            };
            self.texts += texts;
            self.bytes += bytes;
            self.running.push(self.handler.order(), work);
        }
    }
}

impl<In, D> BidiStream<In, D>
where
    D: StreamHandler,
    In: Stream<Item = Result<D::Request, Status>> + Unpin,
{
    /// Reads while there is room.
    fn read(&mut self, cx: &mut Context<'_>) {
        if self.inbound.is_some() && self.draining.as_mut().poll(cx).is_ready() {
            self.stop(Some(Status::unavailable(
                "the server is shutting down; what was read is answered",
            )));
        }
        loop {
            self.start();
            let full = self.texts >= self.texts_max || self.bytes >= BYTES_MAX;
            if full || !self.waiting.is_empty() || self.is_held(cx) {
                return;
            }
            let Some(inbound) = &mut self.inbound else { return };
            match Pin::new(inbound).poll_next(cx) {
                Poll::Ready(Some(Ok(request))) => {
                    if let Err(status) = self.handler.begin(request, &mut self.waiting) {
                        self.stop(Some(status));
                    }
                }
                Poll::Ready(Some(Err(status))) => self.stop(Some(status)),
                Poll::Ready(None) => self.stop(None),
                Poll::Pending => return,
            }
        }
    }

    /// True while the streams together hold too much for this one to read on; its task is woken when that
    /// ends.
    fn is_held(&mut self, cx: &mut Context<'_>) -> bool {
        if self.room.is_none() && self.inbound.is_some() && self.backlog.is_full() {
            self.room = Some(Box::pin(Arc::clone(&self.backlog).room()));
        }
        let held = self
            .room
            .as_mut()
            .is_some_and(|room| room.as_mut().poll(cx).is_pending());
        if !held {
            self.room = None;
        }
        held
    }

    fn stop(&mut self, end: Option<Status>) {
        self.inbound = None;
        self.end = end;
    }
}

impl<In, D> Stream for BidiStream<In, D>
where
    D: StreamHandler + Unpin,
    In: Stream<Item = Result<D::Request, Status>> + Unpin,
{
    type Item = Result<D::Response, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            this.read(cx);
            match this.running.poll_next(cx) {
                Poll::Ready(Some((size, done))) => {
                    this.texts -= size.texts;
                    this.bytes -= size.bytes;
                    return Poll::Ready(Some(Ok(this.handler.finish(done))));
                }
                Poll::Ready(None) if !this.waiting.is_empty() => {}
                Poll::Ready(None) if this.inbound.is_none() => {
                    return Poll::Ready(this.end.take().map(Err));
                }
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}

enum Running<F: Future> {
    Empty,
    Unordered(FuturesUnordered<F>),
    Ordered(FuturesOrdered<F>),
}

impl<F: Future> Running<F> {
    fn push(&mut self, order: Order, work: F) {
        if let Running::Empty = self {
            *self = match order {
                Order::Completion => Running::Unordered(FuturesUnordered::new()),
                Order::Input => Running::Ordered(FuturesOrdered::new()),
            };
        }
        match self {
            Running::Empty => {}
            Running::Unordered(set) => set.push(work),
            Running::Ordered(set) => set.push_back(work),
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        match self {
            Running::Empty => Poll::Ready(None),
            Running::Unordered(set) => Pin::new(set).poll_next(cx),
            Running::Ordered(set) => Pin::new(set).poll_next(cx),
        }
    }
}

#[cfg(test)]
mod tests;
