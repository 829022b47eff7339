//! Kafka: the routes, each with its pumps. A record passes these files in order: `pump` polls it,
//! `in_flight_records` counts it, and `record_codec` decodes it. `scoring` has it scored by the service,
//! `partition` keeps its order, `produce` writes it, and `transaction` commits it.

mod client;
mod events;
mod statistics;

mod pump;

mod in_flight_records;
mod partition;
mod partition_ids;
mod rebalance;
mod rejected_records;

mod identity;
mod native;
mod resets;

mod field;
mod header_options;
mod headers;
mod record;
mod record_codec;

mod retry_queue;
mod scoring;
mod work;

mod backoff;
mod commit_interval;
mod consumer_lag;
mod ready;
mod report;
mod stall_watchdog;
mod stop;

mod call_with_timeout;
mod client_shutdown;
mod deliveries;
mod produce;
mod progress;
mod transaction;
mod trouble;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use penstock_core::{InFlightBounds, ReadAhead};
use rdkafka::consumer::Consumer;
use tokio::runtime::Handle;
use tokio::sync::watch as latest;
use tracing::{error, warn};

pub use client::check;

use backoff::Backoff;
use client::Clients;
use client_shutdown::clients_alive;
use commit_interval::CommitInterval;
use consumer_lag::ConsumerLag;
use identity::Identities;
use in_flight_records::InFlightRecords;
use partition_ids::PartitionIds;
use progress::Progress;
use pump::Pump;
use ready::{Down, Ready};
use record_codec::RecordCodec;
use rejected_records::RejectedRecords;
use resets::Remembered;
use retry_queue::RetryQueue;
use scoring::Scorer;
use stall_watchdog::Watched;
use stop::Stop;
use transaction::Writer;
use trouble::Trouble;
use work::Chunks;

use penstock_config::{Delivery, KafkaInput, KafkaRoute};
use penstock_engine::service::InferenceService;
use penstock_telemetry::clock::Clock;

/// Time for which a partition, or all, may be full before they are paused.
const STALL_MAX: Duration = Duration::from_secs(1);

/// Share of a revoked partition's time within which records in flight should finish.
const AHEAD_SHARE: f64 = 0.5;

/// Smallest read-ahead: even a slow model should have one call running and one waiting.
const AHEAD_RECORDS_MIN: usize = 2 * work::TEXTS_MIN;

/// Shortest timeout of a transaction's step; it covers a broker's restart.
const PATIENCE_MIN: Duration = Duration::from_secs(30);

/// Chunks that may be out without records in flight: cancelled ones that still run.
const CHUNKS_BESIDE: usize = 2048;

/// A route that cannot continue, because another consumer has taken its place. The process should end and
/// leave the decision to its orchestrator.
#[derive(Clone, Debug, thiserror::Error)]
#[error("kafka route {route}: {reason}")]
pub struct Ended {
    /// The route.
    pub route: String,
    /// Reason of the end.
    pub reason: String,
}

/// The pumps of all routes.
pub struct Routes {
    stop: Arc<Stop>,
    pumps: Vec<JoinHandle<()>>,
    ended: latest::Receiver<Option<Ended>>,
    /// The watchdog ends when this is dropped.
    _watching: Sender<()>,
}

impl Routes {
    /// Starts the pumps. The server is not ready until each of them reads.
    pub fn start(
        service: &Arc<InferenceService>,
        routes: &[KafkaRoute],
        runtime: &Handle,
    ) -> std::io::Result<Routes> {
        let stop = Arc::new(Stop::default());
        let (tell, ended) = latest::channel(None);
        let tell = Arc::new(tell);
        let (mut pumps, mut watched) = (Vec::new(), Vec::new());
        let clients_max = 2 * routes.iter().map(|route| route.consumers).sum::<usize>() + LEFT_MAX;
        for route in routes {
            let route = Arc::new(route.clone());
            for thread in 0..route.consumers {
                let progress = Arc::new(Progress::new(Instant::now()));
                watched.push(Watched {
                    route: route.name.clone(),
                    consumer: thread,
                    progress: Arc::clone(&progress),
                });
                let seat = Seat {
                    route: Arc::clone(&route),
                    thread,
                    progress,
                    remembered: Arc::default(),
                    clients_max,
                    service: Arc::clone(service),
                    runtime: runtime.clone(),
                    stop: Arc::clone(&stop),
                };
                let tell = Arc::clone(&tell);
                let name = format!("kafka-{}-{thread}", route.name);
                let keep = move || {
                    if let Err(ended) = seat.keep() {
                        error!(route = ended.route, reason = ended.reason, "a route has ended");
                        tell.send_replace(Some(ended));
                    }
                };
                pumps.push(std::thread::Builder::new().name(name).spawn(keep)?);
            }
        }
        let (watching, end) = bounded(0);
        let watch = move || stall_watchdog::watch(&watched, &end);
        std::thread::Builder::new()
            .name("kafka-watch".into())
            .spawn(watch)?;
        Ok(Routes {
            stop,
            pumps,
            ended,
            _watching: watching,
        })
    }

    /// Resolves when a route has ended by itself.
    pub async fn ended(&mut self) -> Ended {
        match self.ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone().unwrap_or_else(Ended::unknown),
            // Without routes no sender exists.
            Err(_) => std::future::pending().await,
        }
    }

    /// Stops reading, and lets records in flight finish until `by`.
    pub fn stop(&self, by: Instant) {
        self.stop.say(by);
    }

    /// Waits for the pumps.
    pub async fn join(self) {
        let joined = tokio::task::spawn_blocking(move || {
            // A pump that panicked has its message on stderr.
            self.pumps.into_iter().for_each(|pump| drop(pump.join()));
        });
        let _ = joined.await;
    }
}

impl Ended {
    fn unknown() -> Ended {
        Ended {
            route: String::new(),
            reason: "it ended without a reason".into(),
        }
    }
}

/// Parts of a pump, reused for each new one.
struct Seat {
    route: Arc<KafkaRoute>,
    thread: usize,
    service: Arc<InferenceService>,
    runtime: Handle,
    stop: Arc<Stop>,
    progress: Arc<Progress>,
    remembered: Arc<Remembered>,
    /// Bound of the whole process: two clients for each consumer, and clients that hang.
    clients_max: usize,
}

/// Clients that may hang while ending before the process should be restarted; each keeps threads and buffers.
const LEFT_MAX: usize = 64;

impl Seat {
    /// Keeps a pump running until the stop. After an error that a pump cannot recover from, a new one begins
    /// at the committed positions.
    fn keep(&self) -> Result<(), Ended> {
        let down = || Down::begin(&self.service, &self.route.name);
        let mut unready = Some(down());
        let mut again = Backoff::default();
        // Only a consumer that has written under its transactional id can have been replaced under it.
        let mut at_work = false;
        while self.stop.by().is_none() {
            // The process may have been frozen during the wait.
            self.end_if_replaced(at_work, "it would begin anew")?;
            let clients = clients_alive();
            if clients > self.clients_max {
                return Err(self.ended(format!(
                    "{clients} clients are there, {LEFT_MAX} more than the routes need: they do not end"
                )));
            }
            let committed = self.progress.commits();
            let mut ran_for = Duration::ZERO;
            let why = match self.open(at_work) {
                Ok(mut pump) => {
                    unready = None;
                    at_work = true;
                    let since = Instant::now();
                    let ran = catch_unwind(AssertUnwindSafe(|| pump.run()));
                    ran_for = since.elapsed();
                    if let Some(lasted) = pump.writer.open_for() {
                        pump.metrics.aborted(lasted);
                    }
                    pump.remember();
                    unready.get_or_insert_with(down);
                    self.progress.press("letting the clients go");
                    let why = match ran {
                        Ok(Ok(())) => return Ok(()),
                        Ok(Err(Trouble::Fatal(reason))) => return Err(self.ended(reason)),
                        Ok(Err(Trouble::Abort(why) | Trouble::Restart(why))) => why,
                        Err(_) => "the pump panicked".into(),
                    };
                    self.end_if_replaced(at_work, &why)?;
                    // Logged first, because dropping the clients may take a while.
                    warn!(route = self.route.name, reason = why, "the route begins anew");
                    why
                }
                Err(why) => why,
            };
            let wait = again.failed(ran_for, self.progress.commits() > committed);
            error!(route = self.route.name, reason = why, retry_in = ?wait, "not reading");
            self.progress.rest("waiting to begin anew");
            self.stop.wait(Instant::now() + wait);
        }
        drop(unready);
        Ok(())
    }

    /// New clients fence any other holder of the transactional id. A process frozen for longer than its
    /// transaction may last cannot know whether it was replaced, so it ends.
    fn end_if_replaced(&self, at_work: bool, why: &str) -> Result<(), Ended> {
        if at_work && self.may_be_replaced() {
            let reason = format!("{why}; the process stood still for so long that another may have its name");
            return Err(self.ended(reason));
        }
        Ok(())
    }

    fn may_be_replaced(&self) -> bool {
        let named = self.route.instance_given && self.route.delivery == Delivery::ExactlyOnce;
        named && self.progress.frozen(Instant::now()) >= self.route.transaction_timeout
    }

    fn open(&self, at_work: bool) -> Result<Pump, String> {
        let route = &self.route;
        self.progress.press("connecting");
        let Clients {
            consumer,
            producer,
            partitions,
        } = Clients::connect(route, self.thread)?;
        // The next clients take over the transactional id.
        if at_work && self.may_be_replaced() {
            return Err("the process stood still while it connected".into());
        }
        // The broker aborts a transaction after its timeout, so waiting longer for its end is useless.
        let patience = route.transaction_timeout.max(PATIENCE_MIN);
        let writer = Writer::open(
            producer,
            partitions,
            route.delivery,
            (patience, route.transaction_timeout),
            Arc::clone(&self.progress),
        )
        .map_err(|e| format!("{e}; output topic {}", route.output))?;
        let names: Vec<&str> = match &route.input {
            KafkaInput::Topics(topics) => topics.iter().map(String::as_str).collect(),
            KafkaInput::Pattern(pattern) => vec![pattern],
        };
        consumer
            .subscribe(&names)
            .map_err(|e| format!("group {} cannot subscribe to {names:?}: {e}", route.group))?;
        let bounds = InFlightBounds {
            records_max: route.in_flight_records_max,
            bytes_max: route.in_flight_bytes_max,
            partition_records_max: route.partition_in_flight_records_max,
            partition_bytes_max: route.partition_in_flight_bytes_max,
            stall_max: STALL_MAX,
        };
        let clock = self.service.clock();
        let places = PartitionIds::new(self.series());
        let answers = Arc::new(RecordCodec::new(Arc::clone(route)));
        let chunks_max = 2 * route.in_flight_records_max + CHUNKS_BESIDE;
        Ok(Pump {
            inside: InFlightRecords::new(bounds, self.pace(clock), route.record_bytes_max, places, clock)
                .map_err(|e| e.to_string())?,
            chunks: Chunks::new(self.service.limits()),
            scorer: Scorer::new(
                Arc::clone(&self.service),
                Arc::clone(&answers),
                self.runtime.clone(),
                chunks_max,
            ),
            held: RetryQueue::default(),
            identities: Identities::default(),
            remembered: Arc::clone(&self.remembered),
            asked_last: String::new(),
            vouch_at: Instant::now(),
            // Records of one transaction: as many as make a commit due, and those that finish at once.
            refusals: RejectedRecords::new(route.commit_records_max + route.in_flight_records_max),
            ready: Ready::new(Arc::clone(&self.service), &route.name),
            metrics: self.service.metrics().kafka(&route.name),
            behind: ConsumerLag::default(),
            cadence: CommitInterval::new(route.commit_interval, route.commit_interval_max),
            lag: 0,
            progress: Arc::clone(&self.progress),
            stop: Arc::clone(&self.stop),
            route: Arc::clone(route),
            consumer,
            writer,
            answers,
            clock,
            aborts: 0,
            times: Vec::new(),
        })
    }

    /// Configured topics have series of their own; of the pattern's topics, `topics_max` have.
    fn series(&self) -> partition_ids::Series {
        let found_max = match self.route.input {
            KafkaInput::Topics(_) => None,
            KafkaInput::Pattern(_) => Some(self.route.topics_max),
        };
        let service = Arc::clone(&self.service);
        Box::new(move |name| service.metrics().topic(name, found_max))
    }

    fn pace(&self, clock: Clock) -> ReadAhead {
        let ahead = self.route.revoke_timeout.mul_f64(AHEAD_SHARE);
        ReadAhead::new(
            ahead,
            AHEAD_RECORDS_MIN,
            self.route.in_flight_records_max,
            clock.now(),
        )
    }

    fn ended(&self, reason: String) -> Ended {
        Ended {
            route: self.route.name.clone(),
            reason,
        }
    }
}
