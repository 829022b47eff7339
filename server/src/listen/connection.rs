//! A client's connection: a byte stream, its peer, and its place among the open connections.

use std::io::{IoSlice, Result};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use super::activity::Activity;
use super::addresses::AddressPlace;
use super::heads::{BodyLength, HeadScanner};
use penstock_telemetry::metrics::Counted;

/// The client of a connection, as requests carry it in their extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Address of its socket.
    pub addr: SocketAddr,
}

/// The place of a connection among the open ones; dropping it frees the place.
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    _address: AddressPlace,
    _counted: Counted,
}

impl Place {
    pub fn new(permit: OwnedSemaphorePermit, address: AddressPlace, counted: Counted) -> Place {
        Place {
            _permit: permit,
            _address: address,
            _counted: counted,
        }
    }
}

/// An accepted connection. Protocols see a byte stream, so the transport below it can change without them.
pub struct Connection {
    stream: TcpStream,
    peer: Peer,
    activity: Arc<Activity>,
    /// Bytes that were read to look at them; the protocol reads them first.
    ahead: Vec<u8>,
    heads: Option<(HeadScanner, Arc<BodyLength>)>,
    _place: Place,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, addr: SocketAddr, place: Place, activity: Activity) -> Connection {
        Connection {
            stream,
            peer: Peer { addr },
            activity: Arc::new(activity),
            ahead: Vec::new(),
            heads: None,
            _place: place,
        }
    }

    /// The client.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Its counters.
    pub fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// From now on the connection looks at the heads of HTTP/1.1 requests. The protocol tells it of each body.
    pub(super) fn scan_heads(&mut self) -> Arc<BodyLength> {
        let body = Arc::new(BodyLength::default());
        self.heads = Some((HeadScanner::default(), Arc::clone(&body)));
        body
    }

    /// Reads ahead until `enough` holds for the bytes so far, or the client sends no more. The protocol reads the
    /// same bytes again.
    pub(super) async fn look_ahead(&mut self, enough: impl Fn(&[u8]) -> bool) -> Result<()> {
        let mut seen = std::mem::take(&mut self.ahead);
        while !enough(&seen) && self.read_buf(&mut seen).await? > 0 {}
        self.ahead = seen;
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        if this.ahead.is_empty() {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
            this.activity.has_read(buf.filled().len() - before);
        } else {
            let step = this.ahead.len().min(buf.remaining());
            buf.put_slice(&this.ahead[..step]);
            this.ahead.drain(..step);
        }
        if let Some((scanner, body)) = &mut this.heads {
            let read = &mut buf.filled_mut()[before..];
            let seen = scanner.scan(read, body);
            // The rest belongs to a body or to the next head, and is looked at when the parser comes to it.
            this.ahead.splice(..0, read[seen..].iter().copied());
            buf.set_filled(before + seen);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.activity.has_written(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        self.activity.has_written(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
