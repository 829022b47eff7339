//! Output records: the scores as JSON, a tombstone, or a dead letter. Key, headers and timestamp are kept.

use std::sync::Arc;

use crate::record::{Carried, Outgoing};
use penstock_core::{Rejection, Reply};
use penstock_engine::rows::Object;
use penstock_engine::served_model::ServedModel;
use penstock_telemetry::metrics::DeadReason;

/// Headers with the model and version of a score.
const MODEL: &str = "penstock-model";
const VERSION: &str = "penstock-version";
/// Headers with the reason and the origin of a dead letter.
const CODE: &str = "penstock-error-code";
const MESSAGE: &str = "penstock-error-message";
const TOPIC: &str = "penstock-source-topic";
const PARTITION: &str = "penstock-source-partition";
const OFFSET: &str = "penstock-source-offset";

/// Headers that this file writes. Those of an earlier pass are removed, because they would contradict the new
/// ones.
const OWN: [&str; 7] = [MODEL, VERSION, CODE, MESSAGE, TOPIC, PARTITION, OFFSET];

/// Longest message of a dead letter, whose reason may quote the record.
const MESSAGE_BYTES_MAX: usize = 1024;

/// Additional data of a dead letter.
pub struct DeadLetter<'a> {
    /// The reason.
    pub reason: DeadReason,
    /// The reason in words.
    pub message: &'a str,
    /// Topic of the record.
    pub topic: &'a str,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
}

/// Outputs of a text as JSON: those of a v2 request that names none.
pub fn value(served: &ServedModel, reply: &Reply) -> Result<Vec<u8>, Rejection> {
    let json = serde_json::to_vec(&Object::of(&served.spec, reply)?);
    json.map_err(|e| Rejection::Model(format!("the outputs cannot be written: {e}")))
}

/// Output of a scored record, with the result of [`value`].
pub fn scored(topic: &Arc<str>, carried: Carried, served: &ServedModel, value: Vec<u8>) -> Outgoing {
    let own = [(MODEL, served.name.as_str()), (VERSION, served.version.as_str())];
    leave(topic, carried, Some(value), &own)
}

/// Tombstone of a record without a value: in a compacted topic it deletes the key's value.
pub fn tombstone(topic: &Arc<str>, carried: Carried) -> Outgoing {
    leave(topic, carried, None, &[])
}

/// Dead letter of a record that cannot be scored, with its value if that is kept.
pub fn dead(topic: &Arc<str>, carried: Carried, value: Option<Vec<u8>>, letter: &DeadLetter<'_>) -> Outgoing {
    let cut = letter.message.floor_char_boundary(MESSAGE_BYTES_MAX);
    let (partition, offset) = (letter.partition.to_string(), letter.offset.to_string());
    let own = [
        (CODE, letter.reason.code()),
        (MESSAGE, &letter.message[..cut]),
        (TOPIC, letter.topic),
        (PARTITION, &partition),
        (OFFSET, &offset),
    ];
    leave(topic, carried, value, &own)
}

fn leave(topic: &Arc<str>, carried: Carried, payload: Option<Vec<u8>>, own: &[(&str, &str)]) -> Outgoing {
    let Carried {
        key,
        mut headers,
        timestamp,
    } = carried;
    headers.retain(|name| !OWN.contains(&name));
    for (name, value) in own {
        headers.push(*name, Some(*value));
    }
    Outgoing {
        topic: Arc::clone(topic),
        key,
        payload,
        headers,
        timestamp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Headers;

    fn headers(of: &[(&str, Option<&str>)]) -> Headers {
        let mut headers = Headers::default();
        for (name, value) in of {
            headers.push(*name, *value);
        }
        headers
    }

    fn carried(of: &[(&str, Option<&str>)]) -> Carried {
        Carried {
            key: Some(b"k".to_vec()),
            headers: headers(of),
            timestamp: Some(7),
        }
    }

    fn check(outgoing: &Outgoing, expected: &[(&str, Option<&str>)]) {
        assert_eq!(outgoing.key.as_deref(), Some(&b"k"[..]));
        assert_eq!(outgoing.timestamp, Some(7));
        let found = outgoing.headers.iter().map(|header| {
            let value = header
                .value
                .as_deref()
                .map(|value| std::str::from_utf8(value).unwrap());
            (header.name.as_str(), value)
        });
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }

    const LETTER: DeadLetter<'static> = DeadLetter {
        reason: DeadReason::NotJson,
        message: "the value is not JSON",
        topic: "in",
        partition: 3,
        offset: 42,
    };

    #[test]
    fn a_dead_letter_says_why_and_where_from() {
        let dead = dead(
            &"dead".into(),
            carried(&[("traceparent", Some("00-1-2-01")), ("empty", None)]),
            Some(b"{".to_vec()),
            &LETTER,
        );
        assert_eq!((&*dead.topic, dead.payload.as_deref()), ("dead", Some(&b"{"[..])));
        let expected = [
            ("traceparent", Some("00-1-2-01")),
            ("empty", None),
            (CODE, Some("INVALID_ARGUMENT")),
            (MESSAGE, Some("the value is not JSON")),
            (TOPIC, Some("in")),
            (PARTITION, Some("3")),
            (OFFSET, Some("42")),
        ];
        check(&dead, &expected);
    }

    #[test]
    fn headers_of_an_earlier_pass_are_left_out() {
        let before = carried(&[
            (MODEL, Some("other")),
            ("a", Some("1")),
            (CODE, Some("INTERNAL")),
            ("a", Some("2")),
        ]);
        let tombstone = tombstone(&"out".into(), before);
        assert_eq!(tombstone.payload, None);
        check(&tombstone, &[("a", Some("1")), ("a", Some("2"))]);
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let message = "ä".repeat(MESSAGE_BYTES_MAX);
        let letter = DeadLetter {
            message: &format!("x{message}"),
            ..LETTER
        };
        let dead = dead(&"dead".into(), carried(&[]), None, &letter);
        let found = dead.headers.iter().find(|header| header.name == MESSAGE).unwrap();
        assert_eq!(found.value.as_ref().unwrap().len(), MESSAGE_BYTES_MAX - 1);
    }
}
