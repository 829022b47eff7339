//! One record into the producer's queue.

use std::collections::HashMap;
use std::time::Instant;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer};

use super::deliveries::Undelivered;
use super::transaction::{LOOK, Writer, refused};
use super::{Outgoing, Trouble};
use penstock_config::Delivery;

/// How many partitions each topic that is written to has.
pub type Partitions = HashMap<String, i32>;

/// The client takes 0 for now; a millisecond later is the nearest time that it writes.
fn written_time(timestamp: i64) -> i64 {
    if timestamp == 0 { 1 } else { timestamp }
}

impl Writer {
    /// Sends a record in a batch of its own, so that the broker's word on the batch is about no other.
    pub fn send_apart(&mut self, outgoing: Outgoing, from: i32, number: usize) -> Result<(), Trouble> {
        self.acknowledged()?;
        self.send(outgoing, from, number)?;
        self.acknowledged()
    }

    /// Sends a record that was read from partition `from`. Whatever its key, it goes to the partition of the
    /// same number, so that what was in order stays so; where the topic has fewer, to the remainder. Where the
    /// broker refuses it, that is reported with `number`.
    pub fn send(&mut self, outgoing: Outgoing, from: i32, number: usize) -> Result<(), Trouble> {
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
        record.headers = Some(headers);
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
                // Without transactions nothing heals such a producer. With them, the abort tells what it died of.
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
