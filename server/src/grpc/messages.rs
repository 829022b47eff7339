//! The messages of one call: framed as gRPC frames them, inflated, and measured before they are decoded.
//!
//! tonic would keep its buffers for the whole call, reserve the length that a frame claims, and decode
//! without a bound. Here a buffer grows with the arriving bytes, is counted in [`ConnectionMemory`], and is freed
//! with its message.
//!
//! The frame is that of <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>. It has one byte of
//! flags, a big-endian length of four bytes, and the message.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::Body;
use penstock_proto::schema::Schema;
use tonic::codegen::StdError;
use tonic::{Code, Status};

use crate::inflate::{Encoding, Inflate};
use crate::listen::{ConnectionMemory, Pace, ReceiveShare, RequestProgress};
use crate::status::to_status;

/// Bytes of a frame's header.
const HEADER: usize = 5;

/// First buffer of a message that arrives in several pieces.
const FIRST_BUFFER: usize = 16 * 1024;

/// Compressed bytes that are inflated at a time; they yield at most a thousand times as many.
const INFLATE_STEP: usize = 1024;

/// Inflated bytes after which other calls get a turn.
const TURN_BYTES: usize = 1 << 20;

/// Bounds of the messages of one method.
#[derive(Clone, Copy, Debug)]
pub struct MessageBounds {
    /// Bytes of one message, before and after it is inflated.
    pub bytes_max: usize,
    /// The method's request type; `None` if its messages are not measured.
    pub schema: Option<&'static Schema>,
    /// Bytes of memory that a decoded message may take beyond its wire length.
    pub allowance: usize,
    /// Pace of a message that has begun.
    pub pace: Pace,
}

/// A whole message, inflated.
#[derive(Debug)]
pub struct Message {
    /// The message, as protobuf.
    pub bytes: Bytes,
    /// Counts it until it is decoded; `None` for a view of the connection's own buffer.
    pub share: Option<ReceiveShare>,
}

/// The messages in a call's body.
pub struct Messages<B> {
    body: B,
    memory: ConnectionMemory,
    /// Runs from a message's first byte to its last; a stream may be silent between two.
    progress: RequestProgress,
    encoding: Encoding,
    bounds: MessageBounds,
    /// Arrived bytes that are not parsed yet.
    data: Bytes,
    header: [u8; HEADER],
    header_filled: usize,
    /// A message that is not complete yet.
    partial: Option<Partial>,
    ended: bool,
}

struct Partial {
    /// Bytes that are still missing on the wire.
    left: usize,
    encoding: Encoding,
    contents: Inflate<Contents>,
}

/// Result of parsing the available data.
enum Step {
    Message(Message),
    /// Bytes that were added to the message; more data is available.
    Grown(usize),
    NeedsData,
}

impl<B> Messages<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<StdError>,
{
    /// The messages in `body`; compressed ones use `encoding`.
    pub fn new(body: B, encoding: Encoding, bounds: MessageBounds, memory: ConnectionMemory) -> Messages<B> {
        Messages {
            body,
            memory,
            progress: RequestProgress::new(bounds.pace),
            encoding,
            bounds,
            data: Bytes::new(),
            header: [0; HEADER],
            header_filled: 0,
            partial: None,
            ended: false,
        }
    }

    /// The next message. An error is the last item.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = ready!(self.poll_message(cx));
        if !matches!(next, Some(Ok(_))) {
            (self.ended, self.partial, self.data) = (true, None, Bytes::new());
        }
        Poll::Ready(next)
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Status>>> {
        let mut turn = 0;
        loop {
            match self.advance() {
                Ok(Step::Message(message)) => {
                    self.progress.done();
                    return Poll::Ready(Some(Ok(message)));
                }
                Ok(Step::Grown(bytes)) => turn += bytes,
                Ok(Step::NeedsData) => match ready!(self.poll_data(cx)) {
                    Ok(Some(data)) => self.data = data,
                    Ok(None) if self.header_filled > 0 => {
                        return Poll::Ready(Some(Err(Status::internal(
                            "the call's data ends inside of a message",
                        ))));
                    }
                    Ok(None) => return Poll::Ready(None),
                    // A cancelled call gets no status.
                    Err(status) if status.code() == Code::Cancelled => return Poll::Ready(None),
                    Err(status) => return Poll::Ready(Some(Err(status))),
                },
                Err(status) => return Poll::Ready(Some(Err(status))),
            }
            if turn >= TURN_BYTES {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    /// The next data of the body; `None` at its end. It is an error if the rest of a message arrives too slowly.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            let frame = frame
                .transpose()
                .map_err(|error| Status::from_error(error.into()))?;
            // Trailers hold no data.
            let data = frame.map(|frame| frame.into_data().unwrap_or_default());
            self.progress.received(data.as_ref().map_or(0, Bytes::len));
            return Poll::Ready(Ok(data));
        }
        if self.header_filled == 0 {
            return Poll::Pending;
        }
        let slow = ready!(self.progress.poll_too_slow(cx));
        Poll::Ready(Err(Status::deadline_exceeded(slow.to_string())))
    }

    /// Parses the next piece of the available data.
    fn advance(&mut self) -> Result<Step, Status> {
        if let Some(partial) = &mut self.partial {
            return match partial.take(&mut self.data)? {
                Step::Message(message) => {
                    (self.partial, self.header_filled) = (None, 0);
                    self.measured(message)
                }
                step => Ok(step),
            };
        }
        let step = self.data.len().min(HEADER - self.header_filled);
        self.header[self.header_filled..][..step].copy_from_slice(&self.data.split_to(step));
        self.header_filled += step;
        if self.header_filled < HEADER {
            return Ok(Step::NeedsData);
        }
        self.begin()
    }

    /// Begins the message that the header announces.
    fn begin(&mut self) -> Result<Step, Status> {
        let [flags, length @ ..] = self.header;
        let length = u32::from_be_bytes(length) as usize;
        let encoding = match flags {
            0 => Encoding::Identity,
            1 if self.encoding == Encoding::Identity => {
                return Err(Status::internal(
                    "a message is compressed, but the call has no grpc-encoding",
                ));
            }
            1 => self.encoding,
            _ => {
                return Err(Status::internal(format!(
                    "the flags of a message are {flags}; 0 and 1 are known"
                )));
            }
        };
        if length > self.bounds.bytes_max {
            return Err(too_large(length, self.bounds.bytes_max));
        }
        if encoding == Encoding::Identity && length <= self.data.len() {
            self.header_filled = 0;
            let bytes = self.data.split_to(length);
            return self.measured(Message { bytes, share: None });
        }
        let bytes_max = match encoding {
            Encoding::Identity => length,
            Encoding::Gzip | Encoding::Deflate => self.bounds.bytes_max,
        };
        let contents = Contents::new(bytes_max, ReceiveShare::new(&self.memory));
        self.partial = Some(Partial {
            left: length,
            encoding,
            contents: Inflate::new(encoding, contents),
        });
        Ok(Step::Grown(0))
    }

    fn measured(&self, message: Message) -> Result<Step, Status> {
        if let Some(schema) = self.bounds.schema {
            let checked = schema.check(&message.bytes, self.bounds.allowance);
            checked.map_err(|refusal| Status::invalid_argument(refusal.to_string()))?;
        }
        Ok(Step::Message(message))
    }
}

impl Partial {
    /// Takes the message's bytes from `data`.
    fn take(&mut self, data: &mut Bytes) -> Result<Step, Status> {
        let step_max = match self.encoding {
            Encoding::Identity => self.left,
            Encoding::Gzip | Encoding::Deflate => self.left.min(INFLATE_STEP),
        };
        let step = data.split_to(step_max.min(data.len()));
        self.left -= step.len();
        let before = self.contents.sink().bytes.len();
        let written = self.contents.write(&step);
        let done = self.left == 0;
        let finished = written.and_then(|()| if done { self.contents.try_finish() } else { Ok(()) });
        let contents = self.contents.sink();
        if let Err(error) = finished {
            return Err(contents.refusal.take().unwrap_or_else(|| {
                let name = self.encoding.name();
                Status::invalid_argument(format!("a message is not whole {name}: {error}"))
            }));
        }
        if done {
            return Ok(Step::Message(contents.take()));
        }
        if data.is_empty() {
            return Ok(Step::NeedsData);
        }
        Ok(Step::Grown(contents.bytes.len() - before))
    }
}

fn too_large(bytes: usize, bytes_max: usize) -> Status {
    Status::out_of_range(format!(
        "a message of {bytes} bytes is larger than this method takes, {bytes_max}; send several requests"
    ))
}

/// The bytes of one message. A write beyond a bound fails and stores the reason.
struct Contents {
    bytes: Vec<u8>,
    bytes_max: usize,
    share: ReceiveShare,
    refusal: Option<Status>,
}

impl Contents {
    fn new(bytes_max: usize, share: ReceiveShare) -> Contents {
        Contents {
            bytes: Vec::new(),
            bytes_max,
            share,
            refusal: None,
        }
    }

    /// Makes room for `more`. The share grows before the buffer, and the buffer grows by quarters, so that
    /// most of it is in use.
    fn reserve(&mut self, more: usize) -> Result<(), Status> {
        let (length, capacity) = (self.bytes.len(), self.bytes.capacity());
        let needed = length + more;
        if needed > self.bytes_max {
            return Err(too_large(needed, self.bytes_max));
        }
        if needed > capacity {
            let wanted = (capacity + capacity / 4)
                .max(FIRST_BUFFER)
                .min(self.bytes_max)
                .max(needed);
            self.share.grow(wanted).map_err(|full| to_status(&full))?;
            self.bytes.reserve_exact(wanted - length);
        }
        Ok(())
    }

    fn take(&mut self) -> Message {
        let share = ReceiveShare::new(self.share.memory());
        Message {
            bytes: std::mem::take(&mut self.bytes).into(),
            share: Some(std::mem::replace(&mut self.share, share)),
        }
    }
}

impl Write for Contents {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Err(refusal) = self.reserve(bytes.len()) {
            self.refusal = Some(refusal);
            return Err(io::Error::other("bound reached"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
