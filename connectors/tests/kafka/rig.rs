//! A route on librdkafka's mock cluster, around a small real model or a faulty one. The mock isolates no
//! transaction and fences no producer. It can therefore test outputs, but not exactly-once delivery.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use penstock_config::{self as config, Settings};
use penstock_connectors::kafka::Routes;
use penstock_core::{PackedTokens, Reply};
use penstock_engine::engine::Engine;
use penstock_engine::placement;
use penstock_engine::placement::choice::DeviceChoice;
use penstock_engine::served_model::Wrap;
use penstock_models::{KernelError, Model, ModelError};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

/// Timeout of every wait; expected events come at once.
const PATIENCE: Duration = Duration::from_mins(1);

/// Session timeout of all members of a changing group. The mock waits a second less before it completes a
/// change, and misses members whose timeout is shorter.
pub const SESSION_MS: u32 = 4000;

/// An input record.
#[derive(Clone, Copy)]
pub struct In<'a> {
    pub value: Option<&'a [u8]>,
    pub headers: &'a [(&'a str, &'a str)],
}

/// A text as the value of a record.
pub fn text(value: &[u8]) -> In<'_> {
    In {
        value: Some(value),
        headers: &[],
    }
}

/// An output record.
#[derive(Debug)]
pub struct Out {
    pub topic: String,
    pub partition: i32,
    pub key: Option<String>,
    pub value: Option<Vec<u8>>,
    pub timestamp: Option<i64>,
    headers: Vec<(String, String)>,
}

impl Out {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(self.value.as_ref().expect("a value")).expect("JSON")
    }
}

/// A server with one route; `reviews` to `scored` and `dead`, two partitions each.
pub struct Rig {
    pub cluster: MockCluster<'static, DefaultProducerContext>,
    pub engine: Engine,
    routes: Routes,
    producer: BaseProducer,
    consumer: BaseConsumer,
    _folder: tempfile::TempDir,
}

impl Rig {
    /// Starts a rig with further settings in the route's table.
    pub async fn start(settings: &str, wrap: Option<Wrap>) -> Rig {
        let cluster = MockCluster::new(1).expect("a mock cluster");
        for topic in ["reviews", "scored", "dead"] {
            cluster.create_topic(topic, 2, 1).expect("a topic");
        }
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("penstock.toml");
        std::fs::write(&file, configuration(&cluster.bootstrap_servers(), settings)).expect("written");
        let config = config::load(Some(&file), Settings::default()).expect("a valid configuration");
        let placement =
            placement::place(&DeviceChoice::Cpu, config.dtype, penstock_models::probe).expect("a cpu");
        let engine = match wrap {
            Some(wrap) => Engine::start_with(&config.engine(), &placement, wrap).await,
            None => Engine::start(&config.engine(), &placement).await,
        };
        let engine = engine.expect("models that load");
        let runtime = tokio::runtime::Handle::current();
        let routes = Routes::start(engine.service(), &config.kafka, &runtime).expect("pumps");
        let client = || {
            let mut client = ClientConfig::new();
            client.set("bootstrap.servers", cluster.bootstrap_servers());
            client
        };
        let producer = client().create().expect("a producer");
        let consumer: BaseConsumer = client().set("group.id", "reader").create().expect("a consumer");
        let mut all = TopicPartitionList::new();
        for (topic, partition) in [("scored", 0), ("scored", 1), ("dead", 0), ("dead", 1)] {
            all.add_partition_offset(topic, partition, Offset::Beginning)
                .expect("an offset");
        }
        consumer.assign(&all).expect("an assignment");
        Rig {
            cluster,
            engine,
            routes,
            producer,
            consumer,
            _folder: folder,
        }
    }

    /// Sends records to partition 1, with the keys `0`, `1`, … and rising timestamps.
    pub fn send(&self, records: &[In<'_>]) {
        self.send_to(1, records);
    }

    /// Sends records to another partition.
    pub fn send_to(&self, partition: i32, records: &[In<'_>]) {
        for (number, record) in (0_i64..).zip(records) {
            let insert = |headers: OwnedHeaders, (key, value): &(&str, &str)| {
                let value = Some(*value);
                headers.insert(Header { key, value })
            };
            let headers = record.headers.iter().fold(OwnedHeaders::new(), insert);
            let key = number.to_string();
            let mut sent = BaseRecord::<str, [u8]>::to("reviews")
                .partition(partition)
                .key(&key);
            sent.payload = record.value;
            let sent = sent.timestamp(1000 + number).headers(headers);
            self.producer.send(sent).expect("room in the queue");
        }
        self.producer.flush(PATIENCE).expect("delivered");
    }

    /// Sets the broker's next answers to such requests.
    pub fn refuse(&self, requests: RDKafkaApiKey, errors: &[RDKafkaRespErr]) {
        self.cluster.request_errors(requests, errors);
    }

    /// Adds another member to the group.
    pub fn rival(&self) -> Rival {
        Rival::join(&self.cluster.bootstrap_servers())
    }

    /// Reason why the route ended by itself.
    pub async fn ended(&mut self) -> String {
        let ended = tokio::time::timeout(PATIENCE, self.routes.ended()).await;
        ended.expect("an end").reason
    }

    /// Whether the metrics have this line.
    pub fn counts(&self, line: &str) -> bool {
        self.engine
            .service()
            .metrics()
            .render()
            .lines()
            .any(|one| one == line)
    }

    /// Value of this series in the metrics; 0 if it is missing.
    pub fn value(&self, series: &str) -> f64 {
        let page = self.engine.service().metrics().render();
        let found = page.lines().find_map(|line| line.strip_prefix(series));
        found.map_or(0.0, |value| value.trim().parse().expect("a number"))
    }

    /// Waits for `count` records.
    pub fn receive(&self, count: usize) -> Vec<Out> {
        let end = Instant::now() + PATIENCE;
        let mut found = Vec::new();
        while found.len() < count {
            assert!(Instant::now() < end, "{} of {count} came: {found:?}", found.len());
            let Some(Ok(message)) = self.consumer.poll(Duration::from_millis(20)) else {
                continue;
            };
            let headers = message.headers().into_iter().flat_map(Headers::iter);
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
            found.push(Out {
                topic: message.topic().to_owned(),
                partition: message.partition(),
                key: message.key().map(text),
                value: message.payload().map(<[u8]>::to_vec),
                timestamp: message.timestamp().to_millis(),
                headers: headers
                    .map(|header| (header.key.to_owned(), text(header.value.unwrap_or_default())))
                    .collect(),
            });
        }
        // Records of the two topics mix; those of one topic are in order.
        found.sort_by_key(|out| out.timestamp);
        found
    }

    /// True if no further record comes out for a while.
    pub fn is_silent(&self) -> bool {
        self.consumer.poll(Duration::from_millis(500)).is_none()
    }

    /// Waits until it holds.
    pub async fn until(&self, what: &str, holds: impl Fn(&Rig) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < end, "never: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn close(self) {
        self.routes.stop(Instant::now() + PATIENCE);
        self.routes.join().await;
        self.engine.stop(PATIENCE).await.expect("a clean end");
        // Clients first, because they would wait for a missing cluster.
        drop(self.producer);
        drop(self.consumer);
        drop(self.cluster);
    }
}

/// A member of the route's group that reads and never commits. It leaves when dropped.
pub struct Rival {
    leave: Arc<AtomicBool>,
    has: Arc<AtomicBool>,
    reads: Option<JoinHandle<()>>,
}

impl Rival {
    fn join(brokers: &str) -> Rival {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", "g")
            .set("enable.auto.commit", "false")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", SESSION_MS.to_string())
            .set("heartbeat.interval.ms", "100")
            .create()
            .expect("a consumer");
        consumer.subscribe(&["reviews"]).expect("a subscription");
        let (leave, has) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (left, got) = (Arc::clone(&leave), Arc::clone(&has));
        let reads = std::thread::spawn(move || {
            while !left.load(Ordering::SeqCst) {
                consumer.poll(Duration::from_millis(10));
                let assigned = consumer.assignment().is_ok_and(|ours| ours.count() > 0);
                got.store(assigned, Ordering::SeqCst);
            }
        });
        let reads = Some(reads);
        Rival { leave, has, reads }
    }

    /// Whether it has a partition.
    pub fn has_partition(&self) -> bool {
        self.has.load(Ordering::SeqCst)
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        self.leave.store(true, Ordering::SeqCst);
        self.reads.take().map(JoinHandle::join);
    }
}

fn configuration(brokers: &str, settings: &str) -> String {
    let family = |name: &str| -> PathBuf {
        let families = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tests/families"));
        families.join(name)
    };
    let model = |name: &str, family: &Path| {
        format!(
            "[[model]]\nname = \"{name}\"\npath = '{}'\ncheck_parity = false\n",
            family.display()
        )
    };
    let models = model("tiny", &family("bert")) + &model("other", &family("bert-embedding-mean"));
    format!(
        "{models}\n[[kafka]]\nname = \"reviews\"\nbrokers = \"{brokers}\"\ngroup = \"g\"\ninput = [\"reviews\"]\n\
         output = \"scored\"\ndead_letter = \"dead\"\nmodel = \"tiny\"\n{settings}\n"
    )
}

/// Fault of a model, once armed; the model must work while it is loaded.
#[derive(Clone, Copy)]
pub enum Fault {
    /// Every batch fails.
    Down,
    /// Every batch with a longer text fails.
    FailsAbove(usize),
    /// Every longer text yields a NaN.
    NanAbove(usize),
    /// A batch with a longer text finds no memory.
    NoMemoryAbove(usize),
    /// Every batch takes this much longer.
    Slow(Duration),
}

/// A model with a fault.
struct Failing {
    inner: Box<dyn Model>,
    fault: Fault,
    armed: Arc<AtomicBool>,
}

/// Puts a fault into every model, active while `armed`.
pub fn failing(fault: Fault, armed: &Arc<AtomicBool>) -> Wrap {
    let armed = Arc::clone(armed);
    Arc::new(move |inner| {
        Box::new(Failing {
            inner,
            fault,
            armed: Arc::clone(&armed),
        })
    })
}

impl Model for Failing {
    fn forward(&mut self, batch: &PackedTokens) -> Result<Vec<Reply>, ModelError> {
        if !self.armed.load(Ordering::SeqCst) {
            return self.inner.forward(batch);
        }
        let above = |most| batch.lengths().map(move |length| length > most);
        match self.fault {
            Fault::NanAbove(most) => {
                let mut replies = self.inner.forward(batch)?;
                for (reply, above) in replies.iter_mut().zip(above(most)) {
                    if let (Reply::Classes { logits, .. }, true) = (reply, above) {
                        logits[0] = f32::NAN;
                    }
                }
                Ok(replies)
            }
            Fault::Slow(by) => {
                std::thread::sleep(by);
                self.inner.forward(batch)
            }
            Fault::FailsAbove(most) | Fault::NoMemoryAbove(most) if !above(most).any(|above| above) => {
                self.inner.forward(batch)
            }
            Fault::NoMemoryAbove(_) => {
                let (device, bytes) = ("a device".to_owned(), 0);
                Err(KernelError::OutOfMemory { device, bytes }.into())
            }
            Fault::Down | Fault::FailsAbove(_) => Err(ModelError::Batch("failed on purpose".into())),
        }
    }

    fn window(&self) -> usize {
        self.inner.window()
    }
}
