//! Records on their way to a score: what is copied of each, and how they are put together to calls.

use std::sync::Arc;

use penstock_core::{Class, Epoch, Nanos};
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Message};

use super::headers;
use super::partition_ids::{PartitionId, Source};
use super::retry_queue::RetryId;
use crate::respond::kafka::{Carried, Outgoing};
use penstock_engine::settings::Limits;
use penstock_telemetry::metrics::DeadReason;

/// Texts of one call: this share of what may be inside. Its records have their answers when the last of its
/// texts has, so a few of many that are large would leave the model idle between them; and a call has its cost.
const TEXTS_SHARE: usize = 8;
/// At least so many, where a slow model leaves few inside.
pub const TEXTS_MIN: usize = 8;
const TEXTS_MAX: usize = 256;

/// Bytes of text of one call. A single text may be larger.
const BYTES_MAX: usize = 1 << 20;

/// Which record of a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Its partition.
    pub place: PartitionId,
    /// The assignment under which it was read.
    pub epoch: Epoch,
    /// Its offset.
    pub offset: i64,
}

/// What is kept of a record until it leaves.
pub struct Taken {
    /// Which one it is.
    pub mark: Mark,
    /// What it counts as while it is inside.
    pub bytes: usize,
    /// Where it comes from.
    pub source: Arc<Source>,
    /// What it keeps whatever becomes of it.
    pub carried: Carried,
    /// Whether its headers can be read. Where not, none are carried.
    pub headers_valid: bool,
    /// Bytes of that.
    pub carried_bytes: usize,
    /// Its value.
    pub value: Value,
    /// What its dead letter keeps, should it become one.
    pub kept: Kept,
    /// How often it waited because there was not enough memory for its text alone.
    pub waits_for_memory: u32,
}

/// What a dead letter keeps of its record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kept {
    /// All of it.
    #[default]
    All,
    /// Key and headers; the topic does not take the value.
    Beside,
    /// Its time; the topic does not take the rest.
    Time,
}

impl Kept {
    /// The next that is less.
    pub fn less(self) -> Option<Kept> {
        match self {
            Kept::All => Some(Kept::Beside),
            Kept::Beside => Some(Kept::Time),
            Kept::Time => None,
        }
    }
}

/// The value of a record.
pub enum Value {
    /// There is none: it is a tombstone.
    Null,
    /// These bytes.
    Bytes(Vec<u8>),
    /// So many bytes, more than is read.
    TooLarge(usize),
}

/// What a record costs beside its key, headers and value: its places in the queues.
const OVERHEAD_BYTES: usize = 256;

impl Taken {
    /// Copies a record, its value up to so many bytes.
    pub fn copy(message: &BorrowedMessage<'_>, mark: Mark, source: &Arc<Source>, value_max: usize) -> Taken {
        let value = match message.payload() {
            None => Value::Null,
            Some(payload) if payload.len() > value_max => Value::TooLarge(payload.len()),
            Some(payload) => Value::Bytes(payload.to_vec()),
        };
        let copied = if let Value::Bytes(value) = &value {
            value.len()
        } else {
            0
        };
        let headers = message.headers();
        let header_bytes = headers.map_or(Some(0), headers::bytes);
        let headers = headers.filter(|_| header_bytes.is_some());
        let carried_bytes = header_bytes.unwrap_or(0) + message.key_len();
        Taken {
            mark,
            bytes: OVERHEAD_BYTES + carried_bytes + copied,
            source: Arc::clone(source),
            carried: Carried {
                key: message.key().map(<[u8]>::to_vec),
                headers: headers.map(BorrowedHeaders::detach),
                timestamp: message.timestamp().to_millis(),
            },
            headers_valid: header_bytes.is_some(),
            carried_bytes,
            value,
            kept: Kept::All,
            waits_for_memory: 0,
        }
    }
}

impl Taken {
    /// Bytes of key and value as they were read.
    pub fn read_bytes(&self) -> usize {
        let value = match &self.value {
            Value::Null => 0,
            Value::Bytes(value) => value.len(),
            Value::TooLarge(bytes) => *bytes,
        };
        value + self.carried.key.as_ref().map_or(0, Vec::len)
    }
}

/// What becomes of a record.
pub struct Answer {
    /// What is written.
    pub record: Outgoing,
    /// What it is counted as.
    pub fate: Fate,
}

/// A record with what becomes of it.
pub struct Judged {
    /// Which one.
    pub mark: Mark,
    /// What it becomes.
    pub answer: Answer,
}

/// How a record's time here ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was scored.
    InferenceResponse,
    /// It had no value, and is passed on.
    Tombstone,
    /// It cannot be scored, for this reason.
    Dead(DeadReason),
}

/// What texts must share to stand in one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderOptions {
    /// The model.
    pub model: Arc<str>,
    /// Who waits.
    pub class: Class,
    /// When the scores are worth nothing any more, in milliseconds since 1970.
    pub deadline: Option<i64>,
}

/// Records that are scored together.
pub struct Chunk {
    /// As all of them wish.
    pub wish: HeaderOptions,
    /// The records.
    pub records: Vec<Taken>,
    /// Their texts.
    pub texts: Vec<String>,
    /// When the first of them was read.
    pub received: Nanos,
    /// How often they were held.
    pub attempt: u32,
    /// Since the first time.
    pub held: Option<RetryId>,
    bytes: usize,
}

impl Chunk {
    /// Nothing in it.
    pub fn empty(wish: HeaderOptions) -> Chunk {
        Chunk {
            wish,
            records: Vec::new(),
            texts: Vec::new(),
            received: Nanos(0),
            attempt: 0,
            held: None,
            bytes: 0,
        }
    }

    /// All of it, an empty one staying behind.
    pub fn take(&mut self) -> Chunk {
        let empty = Chunk::empty(self.wish.clone());
        std::mem::replace(self, empty)
    }
}

/// Chunks that are being filled, one a wish.
pub struct Chunks {
    open: Vec<Chunk>,
    request_texts_max: usize,
    texts_max: usize,
    bytes_max: usize,
}

impl Chunks {
    /// Chunks that the service takes whole.
    pub fn new(limits: &Limits) -> Chunks {
        Chunks {
            open: Vec::new(),
            request_texts_max: limits.max_request_texts,
            texts_max: TEXTS_MIN.min(limits.max_request_texts),
            // A text above it stands alone, so that what is refused for its size takes no other with it.
            bytes_max: BYTES_MAX
                .min(limits.max_request_bytes)
                .min(limits.queue_bytes_max),
        }
    }

    /// So many records may be inside: the chunks are sized to it.
    pub fn size(&mut self, inside_max: usize) {
        let texts = (inside_max / TEXTS_SHARE).clamp(TEXTS_MIN, TEXTS_MAX);
        self.texts_max = texts.min(self.request_texts_max);
    }

    /// Adds a record. Returns the chunk that had no room for it.
    pub fn add(&mut self, wish: &HeaderOptions, record: Taken, text: String, now: Nanos) -> Option<Chunk> {
        let at = self.open.iter().position(|chunk| chunk.wish == *wish);
        let at = at.unwrap_or_else(|| {
            self.open.push(Chunk::empty(wish.clone()));
            self.open.len() - 1
        });
        let chunk = &mut self.open[at];
        let full = chunk.texts.len() >= self.texts_max || chunk.bytes + text.len() > self.bytes_max;
        let full = (full && !chunk.texts.is_empty()).then(|| chunk.take());
        if chunk.texts.is_empty() {
            chunk.received = now;
        }
        chunk.bytes += text.len();
        chunk.records.push(record);
        chunk.texts.push(text);
        full
    }

    /// What is left, full or not.
    pub fn take(&mut self) -> Vec<Chunk> {
        std::mem::take(&mut self.open)
    }
}
