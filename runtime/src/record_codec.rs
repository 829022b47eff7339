//! From a record to its text, and from its score to the output record.

use std::sync::Arc;

use penstock_core::Reply;

use crate::chunk::{Answer, Fate, HeaderOptions, Judged, Kept, Taken};
use crate::output::{self, DeadLetter};
use crate::record::{Carried, RecordValue};
use crate::route::Route;
use crate::sink::Refusal;
use crate::{field, header_options};
use penstock_engine::served_model::ServedModel;
use penstock_telemetry::metrics::DeadReason;

/// Decoding and encoding of a route's records.
pub struct RecordCodec {
    route: Arc<Route>,
    wish: HeaderOptions,
    /// Largest output record, without the headers that are added here.
    written_max: usize,
}

/// Bound on the added headers: a reason of a kilobyte, a topic's name, numbers.
const OWN_BYTES_MAX: usize = 2 << 10;

/// Result of decoding a record.
pub enum Read {
    /// A text to score.
    Text(HeaderOptions, String, Taken),
    /// A record that needs no score.
    Judged(Judged),
}

impl RecordCodec {
    /// A codec for a route.
    pub fn new(route: Arc<Route>) -> RecordCodec {
        let wish = HeaderOptions {
            model: route.model.as_str().into(),
            class: route.class,
            deadline: None,
        };
        RecordCodec {
            wish,
            written_max: route.written_bytes_max.saturating_sub(OWN_BYTES_MAX),
            route,
        }
    }

    /// The route.
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// The version of a requested model.
    pub fn version(&self, model: &str) -> &str {
        if model == self.route.model {
            &self.route.version
        } else {
            ""
        }
    }

    fn text(&self, taken: &Taken) -> Result<String, (DeadReason, String)> {
        match &taken.value {
            RecordValue::Bytes(value) => field::text(value, self.route.field.as_deref()),
            RecordValue::TooLarge(bytes) => {
                let most = self.route.record_bytes_max;
                let message = format!("the value has {bytes} bytes, more than record_bytes_max = {most}");
                Err((DeadReason::TooLarge, message))
            }
            // A record without a value is never scored.
            RecordValue::Null => Ok(String::new()),
        }
    }

    /// Decodes a record.
    pub fn read(&self, taken: Taken) -> Read {
        if !taken.headers_valid {
            let message = "the name of a header is not UTF-8; the headers are left out";
            return Read::Judged(self.dead(taken, DeadReason::Header, message));
        }
        if matches!(taken.value, RecordValue::Null) {
            if taken.carried_bytes > self.written_max {
                let message = self.too_large("its key and headers have", taken.carried_bytes);
                return Read::Judged(self.dead(taken, DeadReason::TooLarge, &message));
            }
            let mark = taken.mark;
            let record = output::tombstone(&self.route.output, taken.carried);
            let fate = Fate::Tombstone;
            return Read::Judged(Judged {
                mark,
                answer: Answer { record, fate },
            });
        }
        let wish = header_options::wish(&self.wish, self.route.honour, &taken.carried.headers);
        let wish = wish.map_err(|message| (DeadReason::Header, message));
        match wish.and_then(|wish| Ok((wish, self.text(&taken)?))) {
            Ok((wish, text)) => Read::Text(wish, text, taken),
            Err((reason, message)) => Read::Judged(self.dead(taken, reason, &message)),
        }
    }

    /// The text of a record that was decoded before.
    pub fn text_again(&self, taken: &Taken) -> String {
        self.text(taken).unwrap_or_default()
    }

    /// Output of a scored record.
    pub fn scored(&self, served: &ServedModel, reply: &Reply, taken: Taken) -> Judged {
        match output::value(served, reply) {
            Ok(value) if taken.carried_bytes + value.len() > self.written_max => {
                let bytes = taken.carried_bytes + value.len();
                let message = self.too_large("its key, headers and outputs have", bytes);
                self.dead(taken, DeadReason::TooLarge, &message)
            }
            Ok(value) => {
                let mark = taken.mark;
                let record = output::scored(&self.route.output, taken.carried, served, value);
                let fate = Fate::InferenceResponse;
                Judged {
                    mark,
                    answer: Answer { record, fate },
                }
            }
            Err(why) => self.dead(taken, DeadReason::Model, &why.to_string()),
        }
    }

    fn too_large(&self, what: &str, bytes: usize) -> String {
        format!(
            "{what} {bytes} bytes; record_bytes_max allows {}",
            self.written_max
        )
    }

    /// Dead letter of a record whose output the topic refused.
    pub fn refused(&self, taken: Taken, refusal: &Refusal) -> Judged {
        let message = format!(
            "topic {} does not take what becomes of it: {}",
            self.route.output, refusal.reason
        );
        let reason = if refusal.too_large {
            DeadReason::TooLarge
        } else {
            DeadReason::Refused
        };
        self.dead(taken, reason, &message)
    }

    /// Dead letter of a record that cannot be scored. Parts that are too large are left out: the value, or
    /// also key and headers.
    pub fn dead(&self, taken: Taken, reason: DeadReason, message: &str) -> Judged {
        let Taken {
            mark,
            origin,
            mut carried,
            carried_bytes,
            value,
            kept,
            ..
        } = taken;
        if carried_bytes > self.written_max || kept == Kept::Time {
            let timestamp = carried.timestamp;
            carried = Carried {
                timestamp,
                ..Carried::default()
            };
        }
        let why = self.left_out(kept, &value) + message;
        let value = match value {
            RecordValue::Bytes(value)
                if kept == Kept::All && carried_bytes + value.len() <= self.written_max =>
            {
                Some(value)
            }
            RecordValue::Bytes(_) | RecordValue::TooLarge(_) | RecordValue::Null => None,
        };
        let letter = DeadLetter {
            reason,
            message: &why,
            topic: &origin.topic,
            partition: origin.partition,
            offset: mark.offset,
        };
        let record = output::dead(&self.route.dead_letter, carried, value, &letter);
        let fate = Fate::Dead(reason);
        Judged {
            mark,
            answer: Answer { record, fate },
        }
    }

    /// Prefix of the message of a dead letter without the parts that its topic refused.
    fn left_out(&self, kept: Kept, value: &RecordValue) -> String {
        let topic = &self.route.dead_letter;
        match (kept, value) {
            (Kept::Beside, RecordValue::Bytes(value)) => {
                let bytes = value.len();
                format!("its value of {bytes} bytes is left out, because {topic} does not take it: ")
            }
            (Kept::All, _) | (Kept::Beside, RecordValue::Null | RecordValue::TooLarge(_)) => String::new(),
            (Kept::Time, _) => {
                format!("its key, headers and value are left out, because {topic} does not take them: ")
            }
        }
    }
}
