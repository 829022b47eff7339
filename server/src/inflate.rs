//! Content encodings, inflated into a sink that bounds the result.

use std::io::{self, Write};

use flate2::write::{MultiGzDecoder, ZlibDecoder};

/// An encoding that gRPC and HTTP accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Uncompressed.
    Identity,
    /// RFC 1952, possibly in several members.
    Gzip,
    /// RFC 1950: deflate in zlib's frame.
    Deflate,
}

impl Encoding {
    /// The encoding of a header's value, ignoring case; `None` if unknown.
    pub fn named(name: &str) -> Option<Encoding> {
        match name.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Some(Encoding::Identity),
            "gzip" | "x-gzip" => Some(Encoding::Gzip),
            "deflate" => Some(Encoding::Deflate),
            _ => None,
        }
    }

    /// The name, for errors.
    pub fn name(self) -> &'static str {
        match self {
            Encoding::Identity => "identity",
            Encoding::Gzip => "gzip",
            Encoding::Deflate => "deflate",
        }
    }
}

/// Inflates into `S`, which refuses a write beyond its bound.
pub enum Inflate<S: Write> {
    /// Passes on.
    Identity(S),
    /// Inflates gzip.
    Gzip(MultiGzDecoder<S>),
    /// Inflates zlib.
    Deflate(ZlibDecoder<S>),
}

impl<S: Write> Inflate<S> {
    /// Inflates `encoding`.
    pub fn new(encoding: Encoding, sink: S) -> Inflate<S> {
        match encoding {
            Encoding::Identity => Inflate::Identity(sink),
            Encoding::Gzip => Inflate::Gzip(MultiGzDecoder::new(sink)),
            Encoding::Deflate => Inflate::Deflate(ZlibDecoder::new(sink)),
        }
    }

    /// Writes `bytes`. An error comes from the sink, or from bytes that are not of this encoding.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Inflate::Identity(sink) => sink.write_all(bytes),
            Inflate::Gzip(decoder) => decoder.write_all(bytes),
            Inflate::Deflate(decoder) => decoder.write_all(bytes),
        }
    }

    /// The sink with the inflated bytes.
    pub fn sink(&mut self) -> &mut S {
        match self {
            Inflate::Identity(sink) => sink,
            Inflate::Gzip(decoder) => decoder.get_mut(),
            Inflate::Deflate(decoder) => decoder.get_mut(),
        }
    }

    /// Flushes the decoder. An error comes from the sink, or from truncated data.
    pub fn try_finish(&mut self) -> io::Result<()> {
        match self {
            Inflate::Identity(_) => Ok(()),
            Inflate::Gzip(decoder) => decoder.try_finish(),
            Inflate::Deflate(decoder) => decoder.try_finish(),
        }
    }

    /// The sink, after `try_finish`.
    pub fn finish(self) -> io::Result<S> {
        match self {
            Inflate::Identity(sink) => Ok(sink),
            Inflate::Gzip(decoder) => decoder.finish(),
            Inflate::Deflate(decoder) => decoder.finish(),
        }
    }
}
