//! A call's requests between the connection and the services: as a body for tonic, or as a typed stream.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::Stream;
use hyper::body::{Body, Frame};
use hyper::http::Request;
use parking_lot::Mutex;
use penstock_proto::codec::decode;
use penstock_proto::schema::Schema;
use tokio::time::Sleep;
use tonic::Status;
use tonic::codegen::http::{Extensions, HeaderMap};

use super::messages::{Message, MessageBounds, Messages};
use crate::inflate::Encoding;
use crate::listen::{ConnectionBytes, Pace, ReceiveMemory, ReceiveShare, RequestBody};
use penstock_engine::settings::Limits;

const ENCODING: &str = "grpc-encoding";

/// Bytes of a message of health and reflection, which hold names only.
const OTHERS_BYTES_MAX: usize = 64 * 1024;

/// Longest time from a call's only message to the call's end.
const END_MAX: Duration = Duration::from_secs(10);

type Shared = Arc<Mutex<Option<Messages<RequestBody>>>>;

/// Bounds the requests of every call.
#[derive(Clone, Debug)]
pub struct Receiver {
    memory: Arc<ReceiveMemory>,
    request_bytes_max: usize,
    allowance: usize,
}

impl Receiver {
    /// A receiver within `limits`.
    pub fn new(limits: &Limits) -> Receiver {
        // A message within the limit must fit when it is alone; its buffer may be larger by a quarter.
        let bytes_max = limits
            .max_request_bytes
            .saturating_add(limits.max_request_bytes / 4);
        Receiver {
            memory: ReceiveMemory::new(limits.queue_bytes_max, bytes_max),
            request_bytes_max: limits.max_request_bytes,
            allowance: limits.decoded_allowance(),
        }
    }

    /// The call with its messages as its body. A streaming service takes them by [`Requests::of`].
    pub fn receive(&self, request: Request<RequestBody>) -> Request<Inbound> {
        let (mut parts, body) = request.into_parts();
        let schema = Schema::of_method(parts.uri.path());
        let bounds = MessageBounds {
            bytes_max: match schema {
                Some(_) => self.request_bytes_max,
                None => OTHERS_BYTES_MAX,
            },
            schema,
            allowance: self.allowance,
            pace: Pace::REQUEST,
        };
        let encoding = take_encoding(&mut parts.headers);
        let held = parts.extensions.get::<Arc<ConnectionBytes>>().cloned();
        let memory = self.memory.connection(held.unwrap_or_default());
        let messages = Messages::new(body, encoding, bounds, memory);
        let messages: Shared = Arc::new(Mutex::new(Some(messages)));
        parts.extensions.insert(Arc::clone(&messages));
        Request::from_parts(parts, Inbound::new(messages, schema.is_some()))
    }
}

/// Removes the encoding, because messages are inflated before tonic sees them. An unknown encoding is left to
/// tonic, whose answer names the known ones.
fn take_encoding(headers: &mut HeaderMap) -> Encoding {
    let named = headers.get(ENCODING).and_then(|value| value.to_str().ok());
    let Some(encoding) = named.and_then(Encoding::named) else {
        return Encoding::Identity;
    };
    headers.remove(ENCODING);
    encoding
}

/// The messages of a call in tonic's form: uncompressed, each as a frame with its header and its contents.
pub struct Inbound {
    messages: Shared,
    /// A message whose header has been read.
    begun: Option<Message>,
    /// Counts a message until the next one is handed over, or until this body goes: a call's handler starts only
    /// after that.
    decoding: Option<ReceiveShare>,
    /// Set for the methods of our services, whose calls with several messages are read by [`Requests`].
    single: bool,
    /// Time at which a call must have ended, once its only message is complete.
    ending: Option<Pin<Box<Sleep>>>,
}

impl Inbound {
    fn new(messages: Shared, single: bool) -> Inbound {
        Inbound {
            messages,
            begun: None,
            decoding: None,
            single,
            ending: None,
        }
    }

    /// Refuses a call that does not end although its only message is complete.
    fn check_ending(&mut self, cx: &mut Context<'_>) -> Result<(), Status> {
        let ending = self.ending.as_mut().map(|ending| ending.as_mut().poll(cx));
        match ending {
            Some(Poll::Ready(())) => Err(Status::deadline_exceeded(format!(
                "the call has not ended within {END_MAX:?} of its message; end the request's stream with it"
            ))),
            _ => Ok(()),
        }
    }
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Some(Message { bytes, share }) = this.begun.take() {
            this.decoding = share;
            this.ending = this.single.then(|| Box::pin(tokio::time::sleep(END_MAX)));
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        let next = match &mut *this.messages.lock() {
            Some(messages) => messages.poll_next(cx),
            None => return Poll::Ready(None),
        };
        let Poll::Ready(next) = next else {
            this.check_ending(cx)?;
            return Poll::Pending;
        };
        let Some(message) = next.transpose()? else {
            return Poll::Ready(None);
        };
        if this.ending.is_some() {
            return Poll::Ready(Some(Err(Status::invalid_argument(
                "the call has several messages; this method takes one",
            ))));
        }
        let mut header = BytesMut::with_capacity(5);
        header.put_u8(0);
        // `MessageBounds::bytes_max` may exceed a frame's largest length, but this message came in a frame.
        header.put_u32(message.bytes.len() as u32);
        this.begun = Some(message);
        Poll::Ready(Some(Ok(Frame::data(header.freeze()))))
    }
}

/// The requests of a stream, decoded one by one. Each buffer is freed with its message.
pub struct Requests<T> {
    messages: Messages<RequestBody>,
    decoded: PhantomData<fn() -> T>,
}

impl<T> Requests<T> {
    /// Takes the messages of the call with these extensions; tonic's body is empty from then on.
    pub fn of(extensions: &mut Extensions) -> Result<Requests<T>, Status> {
        let messages = extensions
            .remove::<Shared>()
            .and_then(|shared| shared.lock().take());
        match messages {
            Some(messages) => Ok(Requests {
                messages,
                decoded: PhantomData,
            }),
            None => Err(Status::internal("the call's messages have been taken already")),
        }
    }
}

impl<T: prost::Message + Default> Stream for Requests<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let message = ready!(self.messages.poll_next(cx));
        Poll::Ready(message.map(|message| {
            let Message {
                bytes,
                share: _counted,
            } = message?;
            decode(bytes)
        }))
    }
}
