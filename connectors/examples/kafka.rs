//! Scores a Kafka stream with no broker to install: starts librdkafka's mock cluster and a server with one route on it,
//! writes the texts of a JSON Lines file to a topic and reads their scores from another.
//!
//! `cargo run --release -p penstock-connectors --example kafka -- target/release/penstock models/sentiment texts.jsonl`
//!
//! The mock isolates no transaction and fences nobody. It shows the flow; `tools/chaos` proves the guarantees, on a real
//! broker.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

const PARTITIONS: i32 = 4;
/// Outputs that are printed in full; the rest is counted.
const SHOWN: usize = 12;
/// Timeout of the whole stream.
const PATIENCE: Duration = Duration::from_mins(3);

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [server, model, file] = args.as_slice() else {
        anyhow::bail!("usage: kafka PENSTOCK_BINARY MODEL_FOLDER TEXTS_JSONL")
    };
    let lines = std::fs::read_to_string(file).with_context(|| file.clone())?;
    // The last record is no JSON: it becomes a dead letter, and the stream goes on.
    let records: Vec<&str> = lines.lines().chain(["not JSON"]).collect();
    ensure!(records.len() > 1, "{file} holds no line");

    let cluster = MockCluster::new(1)?;
    for topic in ["reviews", "reviews-scored", "reviews-dead"] {
        cluster.create_topic(topic, PARTITIONS, 1)?;
    }
    let brokers = cluster.bootstrap_servers();
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("penstock.toml");
    std::fs::write(&config, configuration(&brokers, Path::new(model)))?;
    let server = Server::start(server, &config)?;

    let producer: BaseProducer = client(&brokers).create()?;
    let consumer: BaseConsumer = client(&brokers).set("group.id", "reader").create()?;
    consumer.assign(&everything(&["reviews-scored", "reviews-dead"])?)?;
    // One record first: once its score is back, the server has loaded its model and joined the group.
    send(&producer, &records[..1])?;
    let mut stream = Stream {
        records: &records,
        consumer,
        server,
    };
    stream.read(1, 0)?;
    let started = Instant::now();
    send(&producer, &records)?;
    let latencies = stream.read(records.len(), SHOWN)?;
    report(&latencies, started.elapsed());
    // Clients before the cluster, because they would wait for a missing one.
    stream.server.stop()
}

/// Sends records with their numbers as keys, over all partitions in turn.
fn send(producer: &BaseProducer, records: &[&str]) -> Result<()> {
    for (number, record) in (0_i32..).zip(records) {
        let key = number.to_string();
        let sent = BaseRecord::to("reviews").partition(number % PARTITIONS);
        let sent = sent.key(&key).payload(*record);
        producer.send(sent).map_err(|(error, _)| error)?;
    }
    Ok(producer.flush(PATIENCE)?)
}

fn configuration(brokers: &str, model: &Path) -> String {
    format!(
        r#"[server]
grpc_addr = "127.0.0.1:0"
http_addr = "127.0.0.1:0"
metrics_addr = "127.0.0.1:0"

[[model]]
name = "sentiment"
path = '{}'

[[kafka]]
name = "reviews"
brokers = "{brokers}"
group = "penstock-reviews"
input = ["reviews"]
output = "reviews-scored"
dead_letter = "reviews-dead"
model = "sentiment"
field = "text"
"#,
        model.display()
    )
}

fn client(brokers: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", brokers);
    client
}

fn everything(topics: &[&str]) -> Result<TopicPartitionList> {
    let mut all = TopicPartitionList::new();
    for topic in topics {
        for partition in 0..PARTITIONS {
            all.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
    }
    Ok(all)
}

/// The output of the stream, and the server that writes it.
struct Stream<'a> {
    records: &'a [&'a str],
    consumer: BaseConsumer,
    server: Server,
}

impl Stream<'_> {
    /// Reads `count` records, and prints the first `shown` and every dead letter. Returns each record's
    /// latency in milliseconds, sorted.
    fn read(&mut self, count: usize, shown: usize) -> Result<Vec<i64>> {
        let end = Instant::now() + PATIENCE;
        let mut latencies = Vec::with_capacity(count);
        while latencies.len() < count {
            self.server.must_run()?;
            let so_far = latencies.len();
            ensure!(Instant::now() < end, "{so_far} of {count} records came back");
            let Some(message) = self.consumer.poll(Duration::from_millis(50)) else {
                continue;
            };
            let message = message?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
            latencies.push(
                now - message
                    .timestamp()
                    .to_millis()
                    .context("a record without a time")?,
            );
            if message.topic() == "reviews-dead" {
                let headers = message.headers().into_iter().flat_map(Headers::iter);
                let mut reasons = headers.filter(|header| header.key == "penstock-error-message");
                let reason = reasons.next().and_then(|header| header.value);
                self.show("dead letter", message.key(), reason);
            } else if so_far < shown {
                self.show("score", message.key(), message.payload());
            }
        }
        latencies.sort_unstable();
        Ok(latencies)
    }

    /// Prints a line: the outcome of the record with this key.
    fn show(&self, what: &str, key: Option<&[u8]>, value: Option<&[u8]>) {
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let number: Option<usize> = text(key).parse().ok();
        let record = number.and_then(|number| self.records.get(number));
        let short: String = record.unwrap_or(&"").chars().take(60).collect();
        say(&format!("{what}  {}  of  {short}", text(value)));
    }
}

fn report(latencies: &[i64], took: Duration) {
    let quantile = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    say(&format!(
        "\n{} records in {:.2} s: {:.0} records/s; from a record's time to its score {} ms (p50), {} ms (p99), with all \
         of them sent at once",
        latencies.len(),
        took.as_secs_f64(),
        latencies.len() as f64 / took.as_secs_f64(),
        quantile(0.5),
        quantile(0.99)
    ));
}

/// `penstock serve` as a child that ends with this program.
struct Server(Child);

impl Server {
    /// Starts a server and waits until it is ready, except for the route.
    fn start(binary: &str, config: &Path) -> Result<Server> {
        let mut command = Command::new(binary);
        command.arg("serve").arg("--config").arg(config);
        command.args(["--log-format", "text", "--log", "warn"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        child.map(Server).with_context(|| binary.to_owned())
    }

    fn must_run(&mut self) -> Result<()> {
        let ended = self.0.try_wait()?;
        ensure!(ended.is_none(), "the server ended by itself: {ended:?}");
        Ok(())
    }

    /// Sends SIGTERM: the server drains, commits and exits with 0.
    fn stop(&mut self) -> Result<()> {
        Command::new("kill").arg(self.0.id().to_string()).status()?;
        let ended = self.0.wait()?;
        ensure!(ended.success(), "the server did not drain cleanly: {ended}");
        say("drained");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail if the server has ended, which is the normal case.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[allow(clippy::print_stdout, reason = "an example: its output is its purpose")]
fn say(line: &str) {
    println!("{line}");
}
