//! Kafka as a source: the consumer, and the identity of its topics.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers as _, Message};
use rdkafka::producer::BaseProducer;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{Reader, changed};
use super::client_shutdown::ClientShutdown;
use super::deliveries::Deliveries;
use super::events::{self, Events};
use super::headers;
use super::identity::{Identities, Remade, note, noted};
use super::native::{beside, leader_epoch, set_leader_epoch};
use super::produce::Partitions;
use super::remembered::{Read, Remembered};
use penstock_config::{KafkaInput, KafkaRoute};
use penstock_runtime::record::{Carried, Headers, Record, RecordValue, TopicPartition};
use penstock_runtime::source::{
    Change, Committed, LogIdentity, LogStatistics, SeekTo, Source, Start, Target,
};
use penstock_runtime::trouble::Trouble;

/// Timeout of one request to the group's coordinator.
const ASK_MAX: Duration = Duration::from_secs(10);

/// Longest wait for an answer before a decision that needs it, and the polling interval.
const ANSWER_MAX: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(2);

/// Errors of the client that one poll passes over.
const ERRORS_MAX: usize = 512;

/// A consumer and what is known of its topics.
pub struct KafkaSource {
    /// A question belongs to the producer, so it is dropped first.
    identities: Identities,
    consumer: Reader,
    /// Asks for the topics' ids.
    producer: Arc<ClientShutdown<BaseProducer<Deliveries>>>,
    remembered: Arc<Remembered>,
    /// Partitions of the output topics, as of the start.
    outputs: Partitions,
    route: Arc<KafkaRoute>,
    /// Topic of the last record; most have the same.
    topic: Arc<str>,
}

impl KafkaSource {
    /// A source of these clients.
    pub fn new(
        consumer: Reader,
        producer: Arc<ClientShutdown<BaseProducer<Deliveries>>>,
        remembered: Arc<Remembered>,
        outputs: Partitions,
        route: Arc<KafkaRoute>,
    ) -> KafkaSource {
        KafkaSource {
            identities: Identities::default(),
            consumer,
            producer,
            remembered,
            outputs,
            route,
            topic: "".into(),
        }
    }
}

impl Source for KafkaSource {
    /// The consumer, whose group metadata is read at the commit.
    type Group = Arc<ClientShutdown<BaseConsumer<Events>>>;

    fn poll(&mut self, mut wait: Duration) -> Result<Option<Record>, Trouble> {
        for _ in 0..ERRORS_MAX {
            match self.consumer.poll(wait) {
                None => return Ok(None),
                Some(Ok(message)) => {
                    if *self.topic != *message.topic() {
                        self.topic = message.topic().into();
                    }
                    return Ok(Some(record(&message, &self.topic, self.route.record_bytes_max)));
                }
                Some(Err(e)) => {
                    self.identities.hurry();
                    consumer_error(&e, &self.route, || self.consumer.client().fatal_error())?;
                    wait = Duration::ZERO;
                }
            }
        }
        Ok(None)
    }

    fn next_change(&mut self) -> Option<Change> {
        Some(match self.consumer.context().next_change()? {
            events::Change::Assign(partitions) => Change::Assign(names(&partitions)),
            events::Change::Revoke { partitions, lost } => {
                let partitions = names(&partitions);
                Change::Revoke { partitions, lost }
            }
        })
    }

    fn answer(&mut self) -> Result<(), Trouble> {
        let Some(mut change) = self.consumer.context().next_change() else {
            return Ok(());
        };
        if let events::Change::Assign(partitions) = &mut change {
            self.begin_within_log(partitions);
        }
        let failed = |e| Trouble::Restart(format!("the assignment could not be changed: {e}"));
        self.consumer.answer(&change).map_err(failed)
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), Trouble> {
        self.consumer.pause(&list(partitions)).map_err(|e| not_paused(&e))
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), Trouble> {
        self.consumer
            .resume(&list(partitions))
            .map_err(|e| not_paused(&e))
    }

    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Committed>, Trouble> {
        let committed = self
            .consumer
            .committed_offsets(list(partitions), ASK_MAX)
            .map_err(|e| not_sought(&e))?;
        let mut found = Vec::new();
        for (element, beside) in committed.elements().iter().zip(beside(&committed)) {
            // Starting too early would write records again.
            element.error().map_err(|e| not_sought(&e))?;
            if let Offset::Offset(position) = element.offset() {
                found.push(Committed {
                    partition: name(element.topic(), element.partition()),
                    position,
                    leader_epoch: beside.leader_epoch,
                });
            }
        }
        Ok(found)
    }

    fn seek(&mut self, targets: &[Target]) -> Result<(), Trouble> {
        let mut list = TopicPartitionList::with_capacity(targets.len());
        for target in targets {
            let TopicPartition { topic, partition } = &target.partition;
            let to = match target.to {
                SeekTo::Offset(position) => Offset::Offset(position),
                SeekTo::Beginning => Offset::Beginning,
            };
            // It fails for negative offsets only.
            let _ = list.add_partition_offset(topic, *partition, to);
            set_leader_epoch(&mut list, target.leader_epoch);
        }
        let sought = self
            .consumer
            .seek_partitions(list, ASK_MAX)
            .map_err(|e| not_sought(&e))?;
        for element in sought.elements() {
            element.error().map_err(|e| not_sought(&e))?;
        }
        Ok(())
    }

    fn group(&self) -> Self::Group {
        self.consumer.share()
    }

    fn statistics(&mut self) -> Option<LogStatistics> {
        let statistics = self.consumer.context().take_statistics()?;
        Some(statistics.figures())
    }

    fn outlived(&mut self) -> Option<String> {
        // Records sent to a removed partition only time out.
        changed(&self.consumer, &self.outputs)
    }
}

impl KafkaSource {
    /// Lets partitions whose log ends before their committed position begin at that end. The client would begin where
    /// `auto.offset.reset` says, and records before the end would be read twice. An unanswered question changes nothing.
    fn begin_within_log(&self, partitions: &mut TopicPartitionList) {
        let Ok(committed) = self.consumer.committed_offsets(partitions.clone(), ASK_MAX) else {
            return;
        };
        for element in committed.elements() {
            let (topic, partition) = (element.topic(), element.partition());
            let Offset::Offset(position) = element.offset() else {
                continue;
            };
            let Ok((_, end)) = self.consumer.fetch_watermarks(topic, partition, ASK_MAX) else {
                return;
            };
            if end < position {
                // It fails for partitions that are not in the list only.
                let _ = partitions.set_partition_offset(topic, partition, Offset::Offset(end));
            }
        }
    }
}

impl LogIdentity for KafkaSource {
    fn is_due(&self, busy: bool) -> bool {
        self.identities.is_due(busy, Instant::now())
    }

    fn ask(&mut self, topics: &[String]) {
        if !topics.is_empty() {
            self.identities
                .ask(Arc::clone(&self.producer), topics, Instant::now());
        }
    }

    fn ask_now(&mut self, topics: &[String]) -> Result<(), Trouble> {
        let begun = Instant::now();
        while !self.identities.heard_since(begun) && begun.elapsed() < ANSWER_MAX {
            self.hear()?;
            if self.identities.is_free() {
                self.ask(topics);
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    fn hear(&mut self) -> Result<(), Trouble> {
        let heard = self.identities.listen(&self.route.name);
        // New clients have no memory of the old topic, which this one would continue with: its leader epoch,
        // its partitions, its first offset.
        heard.map_err(|Remade { topic, was, is }| {
            Trouble::Restart(format!(
                "input topic {topic} was deleted and made anew (its id was {was} and is {is}): it is read from its beginning, and \
                 what was read of the old one and not committed is gone with it"
            ))
        })
    }

    fn hurry(&mut self) {
        self.identities.hurry();
    }

    fn vouches<'a>(&mut self, topics: impl Iterator<Item = &'a str>) -> bool {
        self.identities.vouch(topics, Instant::now())
    }

    fn is_settled(&self, topic: &str) -> bool {
        self.identities.is_settled(topic)
    }

    fn identity(&self, topic: &str) -> Option<String> {
        self.identities.id(topic).map(note)
    }

    fn starts(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Start>, Trouble> {
        let failed = |e| Trouble::Restart(format!("what is committed cannot be told: {e}"));
        // The client has asked the same before it began.
        let committed = self
            .consumer
            .committed_offsets(list(partitions), ASK_MAX)
            .map_err(failed)?;
        let mut starts = Vec::new();
        for (element, beside) in committed.elements().iter().zip(beside(&committed)) {
            element.error().map_err(failed)?;
            let partition = name(element.topic(), element.partition());
            let before = self.remembered.take(&partition);
            // A position without metadata tells only that it was set.
            let (was, from) = match element.offset() {
                Offset::Offset(position) => (beside.note.as_deref().and_then(noted), Some(position)),
                _ => (before.map(|read| read.id), before.and_then(|read| read.committed)),
            };
            let is = self.identities.id(&partition.topic);
            starts.push(Start {
                partition,
                from,
                leader_epoch: beside.leader_epoch,
                remade: was.is_some_and(|was| is.is_some_and(|is| is != was)),
            });
        }
        Ok(starts)
    }

    fn remember(&mut self, partition: &TopicPartition, committed: Option<i64>) {
        if let Some(id) = self.identities.id(&partition.topic) {
            self.remembered.add(partition, Read { id, committed });
        }
    }

    fn make_room(&mut self, is_read: impl Fn(&str) -> bool) {
        self.identities.make_room(is_read);
    }
}

fn not_paused(error: &KafkaError) -> Trouble {
    Trouble::Restart(format!("partitions could not be paused or resumed: {error}"))
}

fn not_sought(error: &KafkaError) -> Trouble {
    Trouble::Restart(format!("the partitions could not be sought back: {error}"))
}

fn name(topic: &str, partition: i32) -> TopicPartition {
    let topic = topic.to_owned();
    TopicPartition { topic, partition }
}

fn names(list: &TopicPartitionList) -> Vec<TopicPartition> {
    let elements = list.elements();
    elements.iter().map(|e| name(e.topic(), e.partition())).collect()
}

fn list(partitions: &[TopicPartition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for TopicPartition { topic, partition } in partitions {
        list.add_partition(topic, *partition);
    }
    list
}

/// Copies a record, with its value up to the bound.
fn record(message: &BorrowedMessage<'_>, topic: &Arc<str>, value_max: usize) -> Record {
    let value = match message.payload() {
        None => RecordValue::Null,
        Some(payload) if payload.len() > value_max => RecordValue::TooLarge(payload.len()),
        Some(payload) => RecordValue::Bytes(payload.to_vec()),
    };
    let header_bytes = message.headers().map_or(Some(0), headers::bytes);
    let headers = message.headers().filter(|_| header_bytes.is_some());
    Record {
        topic: Arc::clone(topic),
        partition: message.partition(),
        offset: message.offset(),
        leader_epoch: leader_epoch(message),
        value,
        carried: Carried {
            key: message.key().map(<[u8]>::to_vec),
            headers: headers.map(copied).unwrap_or_default(),
            timestamp: message.timestamp().to_millis(),
        },
        carried_bytes: header_bytes.unwrap_or(0) + message.key_len(),
        headers_valid: header_bytes.is_some(),
    }
}

fn copied(headers: &BorrowedHeaders) -> Headers {
    let mut copied = Headers::default();
    for header in headers.iter() {
        copied.push(header.key, header.value);
    }
    copied
}

/// Classifies a consumer error. The client recovers from most by itself, and its own log has them.
///
/// The code of a fatal error says only that it is fatal; `cause` is the client's own account.
fn consumer_error(
    error: &KafkaError,
    route: &KafkaRoute,
    cause: impl FnOnce() -> Option<(RDKafkaErrorCode, String)>,
) -> Result<(), Trouble> {
    use RDKafkaErrorCode as Code;
    match error {
        // A topic of a pattern may be deleted; the group will then revoke it.
        KafkaError::MessageConsumption(Code::UnknownTopicOrPartition | Code::UnknownTopic)
            if matches!(route.input, KafkaInput::Pattern(_)) =>
        {
            Ok(())
        }
        KafkaError::MessageConsumptionFatal(code) => {
            let cause = cause().map_or_else(|| code.to_string(), |(code, why)| format!("{code}: {why}"));
            Err(Trouble::Fatal(format!("the consumer cannot go on: {cause}")))
        }
        KafkaError::MessageConsumption(
            code @ (Code::UnknownTopicOrPartition
            | Code::UnknownTopic
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed),
        ) => Err(Trouble::Restart(format!(
            "group {} cannot read its topics: {code}",
            route.group
        ))),
        _ => Ok(()),
    }
}
