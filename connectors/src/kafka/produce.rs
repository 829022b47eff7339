//! Sending one record to the producer's queue.

use std::collections::HashMap;
use std::time::Instant;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer};

use super::deliveries::Undelivered;
use super::transaction::{LOOK, Writer, refused};
use penstock_config::Delivery;
use penstock_runtime::record::{self, Headers, Outgoing};
use penstock_runtime::trouble::Trouble;

/// Number of partitions of each output topic.
pub type Partitions = HashMap<String, i32>;

/// Timestamp to write. The client takes 0 for now, so a millisecond later is the nearest possible one.
fn written_time(timestamp: i64) -> i64 {
    if timestamp == 0 { 1 } else { timestamp }
}

fn owned(headers: &Headers) -> OwnedHeaders {
    let insert = |made: OwnedHeaders, header: &record::Header| {
        let (key, value) = (header.name.as_str(), header.value.as_deref());
        made.insert(Header { key, value })
    };
    headers.iter().fold(OwnedHeaders::new(), insert)
}

impl Writer {
    /// Sends a record that was read from partition `from`. It goes to the partition of the same number,
    /// whatever its key, so that the order is kept. If the topic has fewer partitions, the remainder is used.
    /// A refusal is reported with `number`.
    pub(super) fn send(&mut self, outgoing: Outgoing, from: i32, number: usize) -> Result<(), Trouble> {
        self.begin()?;
        let Outgoing {
            topic,
            key,
            payload,
            headers,
            timestamp,
        } = outgoing;
        let count = self.partitions.get(&*topic).copied().unwrap_or(1).max(1);
        let mut record =
            BaseRecord::<[u8], [u8], usize>::with_opaque_to(&topic, number).partition(from % count);
        record.key = key.as_deref();
        record.payload = payload.as_deref();
        record.timestamp = timestamp.map(written_time);
        record.headers = Some(owned(&headers));
        let since = Instant::now();
        loop {
            let Err((error, back)) = self.producer.send(record) else {
                return Ok(());
            };
            match error {
                KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)
                    if since.elapsed() < self.patience =>
                {
                    self.producer.poll(LOOK);
                    record = back;
                }
                // Without transactions such a producer cannot recover. With them, the abort reports the
                // cause.
                KafkaError::MessageProduction(RDKafkaErrorCode::Fatal)
                    if self.delivery == Delivery::AtLeastOnce =>
                {
                    return Err(Trouble::Restart(format!(
                        "topic {topic}: the producer has failed for good"
                    )));
                }
                KafkaError::MessageProduction(code) => {
                    self.producer.context().refuse(number, code);
                    let told = self.producer_trouble();
                    let topic = topic.to_string();
                    let undelivered = told.unwrap_or(Undelivered { topic, code });
                    return Err(refused(&undelivered));
                }
                other => return Err(Trouble::Restart(format!("topic {topic}: {other}"))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_moment_of_1970_is_not_now() {
        assert_eq!([0, 1, 1000].map(written_time), [1, 1, 1000]);
    }
}
