//! The two clients of a pump: their properties, and checks of the topics.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{IsError, KafkaError, RDKafkaErrorCode};
use rdkafka::producer::BaseProducer;

use super::client_shutdown::ClientShutdown;
use super::deliveries::Deliveries;
use super::events::{Change, Events, answer};
use super::produce::Partitions;
use penstock_config::{Delivery, KafkaInput, KafkaRoute};

/// Timeout of one metadata request.
const LOOK_MAX: Duration = Duration::from_secs(5);

/// Fetched records that wait in the client, in addition to those in flight.
const PREFETCHED_KIB_MAX: usize = 32 << 10;

/// Records that wait in the producer; a transaction bounds them further.
const UNSENT_KIB_MAX: usize = 64 << 10;

/// Overhead of the protocol for one record.
const FRAME_BYTES_MAX: usize = 4 << 10;

/// Client events that are read for the reason of a failure.
const EVENTS_MAX: usize = 32;

/// Properties that a route may not change, and defaults that it may.
fn common(route: &KafkaRoute, thread: usize) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &route.brokers)
        .set("client.id", format!("penstock-{}-{thread}", route.name))
        .set_log_level(RDKafkaLogLevel::Info);
    config
}

fn own(config: &mut ClientConfig, route: &KafkaRoute) {
    for (name, value) in &route.client {
        config.set(name, value.expose());
    }
}

/// The consumer's properties.
pub fn consumer_config(route: &KafkaRoute, thread: usize) -> ClientConfig {
    let mut config = common(route, thread);
    config
        .set("auto.offset.reset", "earliest")
        .set("statistics.interval.ms", "1000")
        // The default of a second would delay the stream whenever the client's queue had been full.
        .set("fetch.queue.backoff.ms", "10")
        .set("queued.min.messages", (2 * route.in_flight_records_max).clamp(1_000, 100_000).to_string())
        .set("queued.max.messages.kbytes", PREFETCHED_KIB_MAX.to_string());
    if matches!(route.input, KafkaInput::Pattern(_)) {
        // Time until a new topic of the pattern is found.
        config.set("topic.metadata.refresh.interval.ms", "30000");
    }
    own(&mut config, route);
    config
        .set("group.id", &route.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "false")
        .set("isolation.level", "read_committed")
        .set("partition.assignment.strategy", "cooperative-sticky");
    config
}

/// The producer's properties.
pub fn producer_config(route: &KafkaRoute, thread: usize) -> ClientConfig {
    let mut config = common(route, thread);
    config
        .set("linger.ms", "5")
        .set("queue.buffering.max.kbytes", UNSENT_KIB_MAX.to_string())
        .set(
            "message.max.bytes",
            (route.written_bytes_max() + FRAME_BYTES_MAX)
                .max(1_000_000)
                .to_string(),
        );
    if route.delivery == Delivery::AtLeastOnce {
        // Without a transaction nothing else bounds it.
        config.set("message.timeout.ms", "30000");
    }
    own(&mut config, route);
    config
        .set("enable.idempotence", "true")
        // A commit confirms success; a report for each record would cost as much as sending it.
        .set("delivery.report.only.error", "true");
    if route.delivery == Delivery::ExactlyOnce {
        let id = format!("{}-{thread}", route.transactional_id());
        let timeout = route.transaction_timeout.as_millis().to_string();
        config
            .set("transactional.id", id)
            .set("transaction.timeout.ms", timeout);
    }
    config
}

/// Checks that both clients accept their properties, without connecting.
pub fn check(route: &KafkaRoute) -> Result<(), String> {
    for config in [consumer_config(route, 0), producer_config(route, 0)] {
        config.create_native_config().map_err(|e| refused_property(&e))?;
    }
    Ok(())
}

/// A client with its context.
pub fn make<C, T>(config: &ClientConfig, context: C) -> Result<T, String>
where
    C: ClientContext,
    T: FromClientConfigAndContext<C>,
{
    config
        .create_with_context(context)
        .map_err(|e| refused_property(&e))
}

/// Error of a refused property, without its value, which may be a secret.
fn refused_property(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, _, name, _) => {
            format!("the client refuses the property {name} or its value; see librdkafka's CONFIGURATION.md")
        }
        KafkaError::ClientCreation(reason) => format!("the client cannot be made: {reason}"),
        other => format!("the client cannot be made: {other}"),
    }
}

/// Checks that the broker answers and the topics exist. Returns the number of partitions of each output
/// topic.
pub fn look(consumer: &BaseConsumer<Events>, route: &KafkaRoute) -> Result<Partitions, String> {
    if let KafkaInput::Topics(topics) = &route.input {
        for topic in topics {
            partitions(consumer, route, "input", topic)?;
        }
    }
    let written = [("output", &route.output), ("dead_letter", &route.dead_letter)];
    written
        .into_iter()
        .map(|(role, topic)| Ok((topic.clone(), partitions(consumer, route, role, topic)?)))
        .collect()
}

/// Change of an output topic's partitions, if the broker reports one.
pub fn changed(consumer: &BaseConsumer<Events>, known: &Partitions) -> Option<String> {
    known.iter().find_map(|(topic, &before)| {
        let metadata = consumer.fetch_metadata(Some(topic), LOOK_MAX).ok()?;
        let found = metadata.topics().iter().find(|found| found.name() == topic)?;
        let now = found.partitions().len() as i32;
        let changed = found.error().is_none() && now != before;
        changed.then(|| format!("topic {topic} has {now} partitions, and had {before}"))
    })
}

fn partitions(
    consumer: &BaseConsumer<Events>,
    route: &KafkaRoute,
    role: &str,
    topic: &str,
) -> Result<i32, String> {
    // The consumer's client asks, because the broker creates no topic for it.
    let metadata = consumer
        .fetch_metadata(Some(topic), LOOK_MAX)
        .map_err(|e| unreachable_broker(&e, route, consumer))?;
    let known = metadata.topics().iter().find(|known| known.name() == topic);
    let code = known.map_or(Some(RDKafkaErrorCode::UnknownTopicOrPartition), |known| {
        known
            .error()
            .filter(IsError::is_error)
            .map(RDKafkaErrorCode::from)
    });
    match code {
        None => Ok(known.map_or(0, |known| known.partitions().len() as i32)),
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Err(format!(
            "{role} topic {topic} does not exist at {}; create it",
            route.brokers
        )),
        Some(RDKafkaErrorCode::TopicAuthorizationFailed) => Err(format!(
            "this user may not see {role} topic {topic} at {}; allow it in the broker's ACLs",
            route.brokers
        )),
        Some(code) => Err(format!("{role} topic {topic} at {}: {code}", route.brokers)),
    }
}

fn unreachable_broker(error: &KafkaError, route: &KafkaRoute, consumer: &BaseConsumer<Events>) -> String {
    // Connection errors are reported only by polling.
    for _ in 0..EVENTS_MAX {
        if consumer.poll(Duration::from_millis(10)).is_none() {
            break;
        }
    }
    let trouble = consumer
        .context()
        .told
        .last_trouble()
        .unwrap_or_else(|| error.to_string());
    let right = remedy(&trouble);
    format!("no broker of {} answers: {trouble}; {right}", route.brokers)
}

/// Most likely remedy of a librdkafka error.
fn remedy(trouble: &str) -> &'static str {
    if trouble.contains("certificate verify failed") {
        "check ssl.ca.location under [kafka.client]: none of the authorities there vouches for the broker"
    } else if trouble.contains("SSL alert number") {
        "check ssl.certificate.location and ssl.key.location under [kafka.client]: the broker wants a certificate it trusts"
    } else if trouble.contains("uthentication") {
        "check sasl.mechanism, sasl.username and sasl.password under [kafka.client]"
    } else {
        "check brokers, and security.protocol under [kafka.client]"
    }
}

/// Longest time that a consumer may take to leave its group.
const LEAVE_MAX: Duration = Duration::from_secs(5);

/// A consumer that leaves its group when dropped, and answers the group's requests meanwhile.
pub struct Reader(Arc<ClientShutdown<BaseConsumer<Events>>>);

impl Deref for Reader {
    type Target = BaseConsumer<Events>;

    fn deref(&self) -> &BaseConsumer<Events> {
        &self.0
    }
}

impl Reader {
    /// A reference for a call that may outlast the pump.
    pub fn share(&self) -> Arc<ClientShutdown<BaseConsumer<Events>>> {
        Arc::clone(&self.0)
    }

    /// Answers the oldest change. Until then the group waits, and so does the consumer's own end. If the pump
    /// fails meanwhile, the change is kept until it is answered.
    pub fn answer(&self, change: &Change) -> Result<(), KafkaError> {
        let answered = match change {
            Change::Assign(partitions) => answer(&self.0, true, partitions),
            Change::Revoke { partitions, .. } => answer(&self.0, false, partitions),
        };
        self.0.context().answered();
        answered
    }

    /// Leaves the group. A call that has not returned keeps the client alive, but must not keep its
    /// partitions.
    fn leave(&self) {
        let by = Instant::now() + LEAVE_MAX;
        if self.0.close_queue().is_ok() {
            while !self.0.closed() && Instant::now() < by {
                self.0.poll(Duration::from_millis(100));
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // The client's own drop polls until the group releases it, which requires an answer to every change
        // of the assignment.
        self.0.context().close();
        while let Some(change) = self.0.context().next_change() {
            let _ = self.answer(&change);
        }
        if Arc::strong_count(&self.0) > 1 {
            self.leave();
        }
    }
}

/// Both clients, and the partitions of the output topics.
pub struct Clients {
    /// The consumer.
    pub consumer: Reader,
    /// The producer.
    pub producer: ClientShutdown<BaseProducer<Deliveries>>,
    /// Partitions of the output topics.
    pub partitions: Partitions,
}

impl Clients {
    /// Creates both clients and checks the topics.
    pub fn connect(route: &KafkaRoute, thread: usize) -> Result<Clients, String> {
        let consumer = make(&consumer_config(route, thread), Events::new(&route.name))?;
        let consumer = Reader(Arc::new(ClientShutdown::new(consumer, &route.name)));
        let producer = make(&producer_config(route, thread), Deliveries::new(&route.name))?;
        let producer = ClientShutdown::new(producer, &route.name);
        let partitions = look(&consumer, route)?;
        Ok(Clients {
            consumer,
            producer,
            partitions,
        })
    }
}
