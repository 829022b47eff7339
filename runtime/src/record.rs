//! Records as sources read them and sinks write them, free of any wire.

use std::sync::Arc;

/// One partition of one topic, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
}

/// Headers in their order; a name may occur more than once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<Header>);

/// One header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value, if it has one.
    pub value: Option<Vec<u8>>,
}

impl Headers {
    /// Adds a header at the end.
    pub fn push(&mut self, name: impl Into<String>, value: Option<impl Into<Vec<u8>>>) {
        let (name, value) = (name.into(), value.map(Into::into));
        self.0.push(Header { name, value });
    }

    /// Every header in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Header> {
        self.0.iter()
    }

    /// Keeps the headers with these names.
    pub fn retain(&mut self, mut is_kept: impl FnMut(&str) -> bool) {
        self.0.retain(|header| is_kept(&header.name));
    }
}

impl<'a> IntoIterator for &'a Headers {
    type Item = &'a Header;
    type IntoIter = std::slice::Iter<'a, Header>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The value of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordValue {
    /// No value: a tombstone.
    Null,
    /// The bytes of the value.
    Bytes(Vec<u8>),
    /// Size of a value above the bound of the source.
    TooLarge(usize),
}

/// A record as it was read.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its topic.
    pub topic: Arc<str>,
    /// Number of its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Epoch of the leader that wrote it, where the log has leaders.
    pub leader_epoch: Option<i32>,
    /// Its value.
    pub value: RecordValue,
    /// Parts that every output keeps.
    pub carried: Carried,
    /// Bytes of key and headers.
    pub carried_bytes: usize,
    /// Whether its headers can be read; unreadable ones are not carried.
    pub headers_valid: bool,
}

/// Parts of a record that every output keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Headers,
    /// Its timestamp, in milliseconds since 1970.
    pub timestamp: Option<i64>,
}

/// An output record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub payload: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Headers,
    /// Its timestamp.
    pub timestamp: Option<i64>,
}

impl Outgoing {
    /// Bytes of key and value.
    pub fn bytes(&self) -> usize {
        self.key.as_ref().map_or(0, Vec::len) + self.payload.as_ref().map_or(0, Vec::len)
    }
}
