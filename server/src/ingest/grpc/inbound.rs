//! A call's requests between the connection and the services: as a body for tonic, or as a typed stream.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::Stream;
use hyper::body::{Body, Frame};
use hyper::http::Request;
use parking_lot::Mutex;
use penstock_proto::codec::decode;
use penstock_proto::schema::Schema;
use tonic::Status;
use tonic::codegen::http::{Extensions, HeaderMap};

use super::messages::{Message, MessageBounds, Messages};
use crate::ingest::inflate::Encoding;
use crate::listen::{ConnectionBytes, Pace, ReceiveMemory, ReceiveShare, RequestBody};
use penstock_engine::settings::Limits;

const ENCODING: &str = "grpc-encoding";

/// Bytes of a message of health and reflection, which hold names only.
const OTHERS_BYTES_MAX: usize = 64 * 1024;

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
        Request::from_parts(parts, Inbound::new(messages))
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
    /// Counts the contents from reading to decoding.
    decoding: Option<ReceiveShare>,
}

impl Inbound {
    fn new(messages: Shared) -> Inbound {
        Inbound {
            messages,
            begun: None,
            decoding: None,
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
        this.decoding = None;
        if let Some(Message { bytes, share }) = this.begun.take() {
            this.decoding = share;
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        let mut messages = this.messages.lock();
        let Some(messages) = &mut *messages else {
            return Poll::Ready(None);
        };
        let Some(message) = ready!(messages.poll_next(cx)).transpose()? else {
            return Poll::Ready(None);
        };
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
