//! Kafka: the routes, each with its pumps. `source` reads records and `transaction` writes them with their
//! positions; `penstock_runtime` drives both.

mod client;
mod events;
mod statistics;

mod source;

mod headers;
mod identity;
mod native;
mod remembered;

mod call_with_timeout;
mod client_shutdown;
mod deliveries;
mod produce;
mod transaction;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use penstock_core::InFlightBounds;
use rdkafka::consumer::Consumer;
use tokio::runtime::Handle;
use tokio::sync::watch as latest;
use tracing::{error, warn};

pub use client::check;

use client::Clients;
use client_shutdown::clients_alive;
use remembered::Remembered;
use source::KafkaSource;
use transaction::Writer;

use penstock_config::{Delivery, KafkaInput, KafkaRoute};
use penstock_engine::service::InferenceService;
use penstock_runtime::backoff::Backoff;
use penstock_runtime::progress::Progress;
use penstock_runtime::pump::{Pump, Surroundings};
use penstock_runtime::ready::Down;
use penstock_runtime::record_codec::RecordCodec;
use penstock_runtime::route::{Honour, Route};
use penstock_runtime::scoring::ServiceScorer;
use penstock_runtime::stall_watchdog::{self, Watched};
use penstock_runtime::stop::Stop;
use penstock_runtime::trouble::Trouble;

/// Time for which a partition, or all, may be full before they are paused.
const STALL_MAX: Duration = Duration::from_secs(1);

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
                    pump.close();
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
            self.stop.wait(Instant::now() + wait, &self.service.clock());
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

    fn open(&self, at_work: bool) -> Result<Pump<KafkaSource, Writer, ServiceScorer>, String> {
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
            partitions.clone(),
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
        let settings = Arc::new(settings(route));
        let codec = Arc::new(RecordCodec::new(Arc::clone(&settings)));
        let source = KafkaSource::new(
            consumer,
            writer.share(),
            Arc::clone(&self.remembered),
            partitions,
            Arc::clone(route),
        );
        let scorer = ServiceScorer::new(
            Arc::clone(&self.service),
            Arc::clone(&codec),
            self.runtime.clone(),
            2 * route.in_flight_records_max + CHUNKS_BESIDE,
        );
        let surroundings = Surroundings {
            service: Arc::clone(&self.service),
            progress: Arc::clone(&self.progress),
            stop: Arc::clone(&self.stop),
            time: Arc::new(self.service.clock()),
        };
        Pump::new(settings, (source, writer), (codec, scorer), surroundings).map_err(|e| e.to_string())
    }

    fn ended(&self, reason: String) -> Ended {
        Ended {
            route: self.route.name.clone(),
            reason,
        }
    }
}

/// Settings of a route that its pumps need, whatever the source.
fn settings(route: &KafkaRoute) -> Route {
    Route {
        name: route.name.clone(),
        model: route.model.clone(),
        version: route.version.clone(),
        class: route.class,
        truncate: route.truncate,
        field: route.field.clone(),
        honour: Honour {
            model: route.honour.model,
            priority: route.honour.priority,
            deadline: route.honour.deadline,
        },
        output: route.output.as_str().into(),
        dead_letter: route.dead_letter.as_str().into(),
        record_bytes_max: route.record_bytes_max,
        written_bytes_max: route.written_bytes_max(),
        bounds: InFlightBounds {
            records_max: route.in_flight_records_max,
            bytes_max: route.in_flight_bytes_max,
            partition_records_max: route.partition_in_flight_records_max,
            partition_bytes_max: route.partition_in_flight_bytes_max,
            stall_max: STALL_MAX,
        },
        commit_interval: route.commit_interval,
        commit_interval_max: route.commit_interval_max,
        commit_records_max: route.commit_records_max,
        revoke_timeout: route.revoke_timeout,
        // Configured topics have series of their own; of the pattern's topics, `topics_max` have.
        topics_max: match route.input {
            KafkaInput::Topics(_) => None,
            KafkaInput::Pattern(_) => Some(route.topics_max),
        },
    }
}
