//! Strict line ends in the heads of HTTP/1.1 requests.
//!
//! hyper's parser takes a bare line feed for the end of a line. A proxy that does not would see other requests on
//! the same connection. RFC 9112 allows both, and refusing is the safe one. The parser cannot be told so, and sees
//! bytes before anybody else; so a bare line feed is replaced by a byte that it refuses with 400.

use std::sync::atomic::{AtomicU64, Ordering};

use hyper::Request;
use hyper::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use hyper::{HeaderMap, Version};

/// A byte that no head may hold.
const REFUSED: u8 = 0;
/// No part of a body is known: what follows is not looked at.
const UNKNOWN: u64 = u64::MAX;

/// Place in the current head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// Before the first line, which empty lines may precede.
    #[default]
    Start,
    /// Inside of a line.
    Line,
    /// At the begin of a line after the first.
    LineStart,
    /// After the head.
    Body,
}

/// Looks at the bytes of one connection as they are read.
#[derive(Debug, Default)]
pub(super) struct HeadScanner {
    at: At,
    last: u8,
}

/// Bytes until the next head, as the head before it says.
#[derive(Debug)]
pub(super) struct BodyLength(AtomicU64);

impl Default for BodyLength {
    fn default() -> BodyLength {
        BodyLength(AtomicU64::new(UNKNOWN))
    }
}

impl BodyLength {
    /// Notes the body that follows the head of `request`.
    pub fn follows<B>(&self, request: &Request<B>) {
        let headers = request.headers();
        let length = headers
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse().ok());
        let bytes = match length {
            _ if headers.contains_key(TRANSFER_ENCODING) => UNKNOWN,
            Some(length) => length,
            None => 0,
        };
        self.0.store(bytes, Ordering::Relaxed);
    }
}

impl HeadScanner {
    /// Looks at newly read bytes, and returns how many of them the parser may see now: none beyond a head.
    pub fn scan(&mut self, bytes: &mut [u8], body: &BodyLength) -> usize {
        let mut done = 0;
        if self.at == At::Body {
            let left = body.0.load(Ordering::Relaxed);
            let skipped = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
            if left != UNKNOWN {
                body.0.store(left - skipped as u64, Ordering::Relaxed);
            }
            done = skipped;
            if done == bytes.len() {
                return done;
            }
            (self.at, self.last) = (At::Start, 0);
        }
        for byte in &mut bytes[done..] {
            done += 1;
            self.step(byte);
            if self.at == At::Body {
                // The parser reads the head next, and the service then says what follows.
                body.0.store(UNKNOWN, Ordering::Relaxed);
                break;
            }
        }
        done
    }

    fn step(&mut self, byte: &mut u8) {
        let ends_line = *byte == b'\n' && self.last == b'\r';
        self.last = *byte;
        self.at = match (self.at, *byte) {
            (At::Start, b'\r') => At::Start,
            (At::Start, b'\n') if ends_line => At::Start,
            (At::LineStart, b'\r') => At::LineStart,
            (At::LineStart, b'\n') if ends_line => At::Body,
            (_, b'\n') if ends_line => At::LineStart,
            (_, b'\n') => {
                *byte = REFUSED;
                At::Line
            }
            _ => At::Line,
        };
    }
}

/// Reason why a head that the parser took is refused.
pub(super) fn fault<B>(request: &Request<B>) -> Option<&'static str> {
    let headers = request.headers();
    match headers.get_all(HOST).iter().count() {
        0 if request.version() == Version::HTTP_11 => {
            return Some("the request has no host header; HTTP/1.1 needs one");
        }
        0 | 1 => {}
        _ => return Some("the request has several host headers; send one"),
    }
    (chunked(headers) > 1).then_some("transfer-encoding names chunked more than once; a body is chunked once")
}

fn chunked(headers: &HeaderMap) -> usize {
    let values = headers.get_all(TRANSFER_ENCODING).iter();
    values
        .flat_map(|value| value.to_str().unwrap_or_default().split(','))
        .filter(|coding| coding.trim().eq_ignore_ascii_case("chunked"))
        .count()
}

#[cfg(test)]
mod tests;
