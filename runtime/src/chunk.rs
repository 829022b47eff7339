//! Records on their way to a score: their copies, and the chunks that they form.

use std::sync::Arc;

use penstock_core::{Class, Epoch, Nanos};

use crate::partition_ids::{Origin, PartitionId};
use crate::record::{Carried, Outgoing, Record, RecordValue};
use crate::retry_queue::RetryId;
use penstock_engine::settings::Limits;
use penstock_telemetry::metrics::DeadReason;

/// Divisor of the in-flight bound: the quotient is the texts of one call. Records get their answers when the
/// last text of their call has; few large calls would leave the model idle, and each call has its cost.
const TEXTS_SHARE: usize = 8;
/// Fewest texts of one call, for slow models with a small read-ahead.
pub const TEXTS_MIN: usize = 8;
const TEXTS_MAX: usize = 256;

/// Bytes of text of one call. A single text may be larger.
const BYTES_MAX: usize = 1 << 20;

/// Identity of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Its partition.
    pub place: PartitionId,
    /// The epoch in which it was read.
    pub epoch: Epoch,
    /// Its offset.
    pub offset: i64,
}

/// Kept parts of a record until it is released.
pub struct Taken {
    /// Its identity.
    pub mark: Mark,
    /// Its bytes in flight.
    pub bytes: usize,
    /// Its topic and partition.
    pub origin: Arc<Origin>,
    /// Parts that every output keeps.
    pub carried: Carried,
    /// Whether its headers can be read; unreadable ones are not carried.
    pub headers_valid: bool,
    /// Bytes of the carried parts.
    pub carried_bytes: usize,
    /// Its value.
    pub value: RecordValue,
    /// Parts that its dead letter keeps.
    pub kept: Kept,
    /// Number of waits for memory for its text alone.
    pub waits_for_memory: u32,
}

/// Parts of a record that its dead letter keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kept {
    /// All parts.
    #[default]
    All,
    /// Key and headers; the topic refuses the value.
    Beside,
    /// The timestamp; the topic refuses the rest.
    Time,
}

impl Kept {
    /// The next smaller choice.
    pub fn less(self) -> Option<Kept> {
        match self {
            Kept::All => Some(Kept::Beside),
            Kept::Beside => Some(Kept::Time),
            Kept::Time => None,
        }
    }
}

/// Overhead of a record in the queues, without key, headers and value.
const OVERHEAD_BYTES: usize = 256;

impl Taken {
    /// A record that was read.
    pub fn new(record: Record, mark: Mark, origin: &Arc<Origin>) -> Taken {
        let copied = if let RecordValue::Bytes(value) = &record.value {
            value.len()
        } else {
            0
        };
        Taken {
            mark,
            bytes: OVERHEAD_BYTES + record.carried_bytes + copied,
            origin: Arc::clone(origin),
            carried: record.carried,
            headers_valid: record.headers_valid,
            carried_bytes: record.carried_bytes,
            value: record.value,
            kept: Kept::All,
            waits_for_memory: 0,
        }
    }

    /// Bytes of key and value as read.
    pub fn read_bytes(&self) -> usize {
        let value = match &self.value {
            RecordValue::Null => 0,
            RecordValue::Bytes(value) => value.len(),
            RecordValue::TooLarge(bytes) => *bytes,
        };
        value + self.carried.key.as_ref().map_or(0, Vec::len)
    }
}

/// Result of a record.
pub struct Answer {
    /// The output record.
    pub record: Outgoing,
    /// Its outcome.
    pub fate: Fate,
}

/// A record with its result.
pub struct Judged {
    /// Its identity.
    pub mark: Mark,
    /// Its result.
    pub answer: Answer,
}

/// Outcome of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Scored.
    InferenceResponse,
    /// Passed on without a value.
    Tombstone,
    /// Dead letter, for this reason.
    Dead(DeadReason),
}

/// Options that texts of one call share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderOptions {
    /// The model.
    pub model: Arc<str>,
    /// Its class.
    pub class: Class,
    /// Time after which the scores are worthless, in milliseconds since 1970.
    pub deadline: Option<i64>,
}

/// Records that are scored together.
pub struct Chunk {
    /// Options of all of them.
    pub wish: HeaderOptions,
    /// The records.
    pub records: Vec<Taken>,
    /// Their texts.
    pub texts: Vec<String>,
    /// Time at which the first of them was read.
    pub received: Nanos,
    /// Number of failed attempts.
    pub attempt: u32,
    /// Retry id since the first failure.
    pub held: Option<RetryId>,
    bytes: usize,
}

impl Chunk {
    /// An empty chunk.
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

    /// Takes the content and leaves an empty chunk.
    #[must_use]
    pub fn take(&mut self) -> Chunk {
        let empty = Chunk::empty(self.wish.clone());
        std::mem::replace(self, empty)
    }
}

/// Chunks being filled, one for each set of options.
pub struct Chunks {
    open: Vec<Chunk>,
    request_texts_max: usize,
    texts_max: usize,
    bytes_max: usize,
}

impl Chunks {
    /// Chunks within the service's limits.
    pub fn new(limits: &Limits) -> Chunks {
        Chunks {
            open: Vec::new(),
            request_texts_max: limits.max_request_texts,
            texts_max: TEXTS_MIN.min(limits.max_request_texts),
            // A larger text is alone in its chunk, so that its refusal affects no other.
            bytes_max: BYTES_MAX
                .min(limits.max_request_bytes)
                .min(limits.queue_bytes_max),
        }
    }

    /// Sizes the chunks for so many records in flight.
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

    /// Takes the remaining chunks, full or not.
    pub fn take(&mut self) -> Vec<Chunk> {
        std::mem::take(&mut self.open)
    }
}
