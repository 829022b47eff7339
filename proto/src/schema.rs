//! The memory that a request takes once it is decoded, measured on the wire before it is.
//!
//! An empty submessage is two bytes on the wire and hundreds as a struct, and a packed number is one byte and eight.
//! So a message is walked tag by tag first, by the encoding that <https://protobuf.dev/programming-guides/encoding/>
//! describes, and is decoded only if the sum keeps its bound. The walk itself allocates nothing.

use std::fmt;

include!(concat!(env!("OUT_DIR"), "/schemas.rs"));

/// Growing vectors and hash tables hold up to twice what they need.
const GROWTH: usize = 2;

/// Bytes that an allocation takes beyond its contents.
const ALLOCATION: usize = 32;

/// A control byte and the free places of a hash table, for each entry.
const ENTRY: usize = 16;

/// Longest name, id or other string that is no text. Errors quote such strings, escaped, and answers repeat them.
pub const STRING_BYTES_MAX: usize = 16 << 10;

/// Decoders refuse messages that nest deeper.
const DEPTH_MAX: usize = 100;

/// A message type: its fields, and an upper bound of its size in memory.
#[derive(Debug)]
pub struct Schema {
    name: &'static str,
    size: usize,
    map_entry: bool,
    fields: &'static [Field],
}

#[derive(Debug)]
struct Field {
    number: u32,
    name: &'static str,
    repeated: bool,
    kind: Kind,
}

/// A field's type, as far as memory is concerned.
#[derive(Debug)]
enum Kind {
    Message(&'static Schema),
    /// A name, an id, or a parameter: short.
    String,
    /// A text of any length.
    Text,
    /// Decoded as a view of the message: a handle, no copy.
    Bytes,
    Fixed32,
    Fixed64,
    /// Bytes of the decoded number.
    Varint(usize),
}

/// Why a message is not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not protobuf, or not of this type: what is wrong, and at which byte.
    Malformed(&'static str, usize),
    /// Decoding takes more than `bytes_max` bytes of memory.
    TooLarge {
        /// The message type that holds `field`.
        message: &'static str,
        /// The field at which the bound was passed.
        field: &'static str,
        /// The bound.
        bytes_max: usize,
    },
    /// A string that is no text has `bytes` bytes, more than [`STRING_BYTES_MAX`].
    TooLong {
        /// The message type that holds `field`.
        message: &'static str,
        /// The string's field.
        field: &'static str,
        /// Its length.
        bytes: usize,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Malformed(what, at) => {
                write!(f, "the request is no valid protobuf message: {what} at byte {at}")
            }
            Refusal::TooLarge {
                message,
                field,
                bytes_max,
            } => write!(
                f,
                "the request has too many elements: with field \"{field}\" of {message} it takes more than \
                 {bytes_max} bytes of memory once decoded; send fewer elements in one request"
            ),
            Refusal::TooLong {
                message,
                field,
                bytes,
            } => write!(
                f,
                "field \"{field}\" of {message} has {bytes} bytes; only texts may have more than {STRING_BYTES_MAX}"
            ),
        }
    }
}

impl std::error::Error for Refusal {}

impl Schema {
    /// The request of the method at `path`, such as `/inference.GRPCInferenceService/ModelInfer`; `None` for
    /// methods of other services.
    pub fn of_method(path: &str) -> Option<&'static Schema> {
        let (_, schema) = REQUESTS.iter().find(|(method, _)| *method == path)?;
        Some(schema)
    }

    /// Checks that `message` decodes to at most its own length and `allowance` bytes more.
    ///
    /// # Errors
    /// A message that is malformed or takes more.
    pub fn check(&'static self, message: &[u8], allowance: usize) -> Result<(), Refusal> {
        let bytes_max = message.len().saturating_add(allowance);
        Walk { taken: 0, bytes_max }.message(self, &mut Cursor::new(message), 0)
    }
}

/// The memory measured so far.
struct Walk {
    taken: usize,
    bytes_max: usize,
}

impl Walk {
    fn message(&mut self, schema: &'static Schema, at: &mut Cursor<'_>, depth: usize) -> Result<(), Refusal> {
        if depth > DEPTH_MAX {
            return Err(at.malformed("messages nest too deep"));
        }
        // Fields mostly come in order and in runs: the search begins at the last one found.
        let mut last = 0;
        while !at.is_empty() {
            let (number, wire) = at.tag()?;
            let found = (last..schema.fields.len())
                .chain(0..last)
                .find(|&i| schema.fields[i].number == number);
            match found {
                Some(i) => {
                    last = i;
                    self.field(schema, &schema.fields[i], wire, at, depth)?;
                }
                // Unknown fields are skipped by the decoder, and take nothing.
                None => at.skip(number, wire, depth)?,
            }
        }
        Ok(())
    }

    fn field(
        &mut self,
        schema: &'static Schema,
        field: &'static Field,
        wire: Wire,
        at: &mut Cursor<'_>,
        depth: usize,
    ) -> Result<(), Refusal> {
        let elements = if field.repeated { GROWTH } else { 0 };
        let taken = match (&field.kind, wire) {
            (Kind::Message(inner), Wire::Delimited) => {
                let mut inside = at.delimited()?;
                let own = inner.size + if inner.map_entry { ENTRY } else { 0 };
                self.take(elements * own, schema, field)?;
                return self.message(inner, &mut inside, depth + 1);
            }
            (kind @ (Kind::String | Kind::Text), Wire::Delimited) => {
                let length = at.delimited()?.left();
                if matches!(kind, Kind::String) && length > STRING_BYTES_MAX {
                    return Err(Refusal::TooLong {
                        message: schema.name,
                        field: field.name,
                        bytes: length,
                    });
                }
                let allocation = if length > 0 { ALLOCATION } else { 0 };
                elements * 24 + length + allocation
            }
            (Kind::Bytes, Wire::Delimited) => {
                at.delimited()?;
                elements * 32
            }
            (Kind::Fixed32, Wire::Fixed32) => {
                at.advance(4)?;
                elements * 4
            }
            (Kind::Fixed64, Wire::Fixed64) => {
                at.advance(8)?;
                elements * 8
            }
            (Kind::Varint(size), Wire::Varint) => {
                at.varint()?;
                elements * size
            }
            (Kind::Fixed32 | Kind::Fixed64, Wire::Delimited) if field.repeated => {
                GROWTH * at.delimited()?.left()
            }
            (Kind::Varint(size), Wire::Delimited) if field.repeated => {
                GROWTH * size * at.delimited()?.varints()
            }
            _ => return Err(at.malformed("a field of another type than its number has")),
        };
        self.take(taken, schema, field)
    }

    fn take(&mut self, bytes: usize, schema: &Schema, field: &Field) -> Result<(), Refusal> {
        self.taken = self.taken.saturating_add(bytes);
        if self.taken <= self.bytes_max {
            return Ok(());
        }
        Err(Refusal::TooLarge {
            message: schema.name,
            field: field.name,
            bytes_max: self.bytes_max,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    Varint,
    Fixed64,
    Delimited,
    GroupStart,
    GroupEnd,
    Fixed32,
}

/// A position in a message.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Cursor<'a> {
    fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor {
            bytes,
            at: 0,
            end: bytes.len(),
        }
    }

    fn is_empty(&self) -> bool {
        self.at == self.end
    }

    fn left(&self) -> usize {
        self.end - self.at
    }

    fn malformed(&self, what: &'static str) -> Refusal {
        Refusal::Malformed(what, self.at)
    }

    fn advance(&mut self, bytes: usize) -> Result<(), Refusal> {
        if bytes > self.left() {
            return Err(self.malformed("a field that is cut off"));
        }
        self.at += bytes;
        Ok(())
    }

    /// Base 128, least significant group first, at most 64 bits.
    fn varint(&mut self) -> Result<u64, Refusal> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let Some(&byte) = self.bytes[self.at..self.end].first() else {
                return Err(self.malformed("a number that is cut off"));
            };
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                // The tenth byte has one bit left.
                if shift == 63 && byte > 1 {
                    break;
                }
                return Ok(value);
            }
        }
        Err(self.malformed("a number of more than 64 bits"))
    }

    fn tag(&mut self) -> Result<(u32, Wire), Refusal> {
        let Ok(tag) = u32::try_from(self.varint()?) else {
            return Err(self.malformed("a field number that is out of range"));
        };
        let wire = match tag & 7 {
            0 => Wire::Varint,
            1 => Wire::Fixed64,
            2 => Wire::Delimited,
            3 => Wire::GroupStart,
            4 => Wire::GroupEnd,
            5 => Wire::Fixed32,
            _ => return Err(self.malformed("an unknown wire type")),
        };
        match tag >> 3 {
            0 => Err(self.malformed("field number 0")),
            number => Ok((number, wire)),
        }
    }

    /// The contents of a length-delimited field, which this cursor is then behind.
    fn delimited(&mut self) -> Result<Cursor<'a>, Refusal> {
        let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        let at = self.at;
        self.advance(length)?;
        Ok(Cursor {
            bytes: self.bytes,
            at,
            end: self.at,
        })
    }

    /// How many numbers there are: each ends in a byte below 128.
    fn varints(&self) -> usize {
        self.bytes[self.at..self.end]
            .iter()
            .filter(|&&byte| byte < 0x80)
            .count()
    }

    fn skip(&mut self, number: u32, wire: Wire, depth: usize) -> Result<(), Refusal> {
        match wire {
            Wire::Varint => self.varint().map(drop),
            Wire::Fixed64 => self.advance(8),
            Wire::Fixed32 => self.advance(4),
            Wire::Delimited => self.delimited().map(drop),
            Wire::GroupStart => loop {
                if depth > DEPTH_MAX {
                    return Err(self.malformed("groups nest too deep"));
                }
                match self.tag()? {
                    (end, Wire::GroupEnd) if end == number => return Ok(()),
                    (inner, wire) => self.skip(inner, wire, depth + 1)?,
                }
            },
            Wire::GroupEnd => Err(self.malformed("the end of a group that has no beginning")),
        }
    }
}

#[cfg(test)]
mod tests;
