//! Joins the stages; no other module knows all of them.

use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use penstock_core::lifecycle::ServerState;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::listen::{self, AnswerMemory, BoundedListener, TooFewDescriptors};
use crate::{admin, grpc, http};
use penstock_config::Config;
use penstock_connectors::kafka;
use penstock_engine::engine::{Engine, EngineError};
use penstock_engine::placement::Placement;
use penstock_engine::served_model::Wrap;
use penstock_engine::service::InferenceService;

/// Reason why the server could not start, or did not end cleanly.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A thread or the runtime could not be started.
    #[error("cannot start {what}: {source}")]
    Start {
        /// Name of the thread.
        what: &'static str,
        /// Error of the system.
        source: std::io::Error,
    },
    /// An address is taken or not local.
    #[error("cannot listen on {what} address {addr}: {source}")]
    Bind {
        /// Name of the listener.
        what: &'static str,
        /// The requested address.
        addr: SocketAddr,
        /// Error of the system.
        source: std::io::Error,
    },
    /// The process may open too few files.
    #[error(transparent)]
    Descriptors(#[from] TooFewDescriptors),
    /// The engine could not start, or did not end cleanly.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A device is lost to this process; a new process may get it back.
    #[error("{0}")]
    DeviceLost(String),
    /// A listener failed while serving.
    #[error("the {what} listener failed: {reason}")]
    Listener {
        /// Name of the listener.
        what: &'static str,
        /// Reason of the failure.
        reason: String,
    },
    /// A Kafka route has ended.
    #[error("{0}")]
    Kafka(#[from] kafka::Ended),
    /// A Kafka route had not committed when `drain_timeout` passed.
    #[error(
        "a kafka route had not committed when drain_timeout = {timeout:?} passed: its last records are read again"
    )]
    Uncommitted {
        /// The drain timeout.
        timeout: Duration,
    },
    /// Requests were still in flight when `drain_timeout` passed.
    #[error("{inside} requests were still running when drain_timeout = {timeout:?} passed")]
    Drain {
        /// Number of requests.
        inside: usize,
        /// The drain timeout.
        timeout: Duration,
    },
}

/// Share of a drain in which records that were read may still be scored.
const SCORING_SHARE: f64 = 0.7;

/// Bytes of unread pages of the metrics port, which other ports' clients cannot take.
const METRICS_UNREAD_MAX: usize = 32 << 20;

/// Runs the server until SIGTERM or SIGINT, then drains it.
pub fn serve(config: Config, placement: &Placement) -> Result<(), AppError> {
    serve_with(config, placement, None)
}

/// Like `serve`, with `wrap` around every loaded model.
pub fn serve_with(config: Config, placement: &Placement, wrap: Option<Wrap>) -> Result<(), AppError> {
    let runtime = runtime(config.io_threads)?;
    let served = runtime.block_on(run(config, placement, wrap));
    // A request that outlived the drain must not keep the process alive.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

/// The runtime for sockets, timers and signals. No model computes on it.
pub fn runtime(threads: usize) -> Result<tokio::runtime::Runtime, AppError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("io")
        .enable_all()
        .build()
        .map_err(|source| AppError::Start {
            what: "the io threads",
            source,
        })
}

async fn run(config: Config, placement: &Placement, wrap: Option<Wrap>) -> Result<(), AppError> {
    // Bound before the models load, so that a taken port is reported at once; readiness follows later.
    let (grpc, grpc_addr) = bind("grpc", config.grpc_addr).await?;
    let (http, http_addr) = bind("http", config.http_addr).await?;
    let (scrape, metrics_addr) = bind("metrics", config.metrics_addr).await?;
    let limits = listen::share_out(config.limits.connections_max, config.kafka.len())?;
    let engine = Engine::prepare(&config.engine(), placement, wrap)?;
    let service = engine.service();
    // Held until the routes hold reasons of their own, so that readiness does not flicker.
    let unready = service.unready();

    let answers = |bytes_max| AnswerMemory::new(bytes_max, service.metrics().unread_bytes());
    let unread = answers(config.limits.queue_bytes_max);
    let bounded = |name, listener, connections_max, answers: &Arc<AnswerMemory>| {
        let metrics = service.metrics().listener(name);
        BoundedListener::new(listener, connections_max, Arc::clone(answers), metrics)
    };
    let each_max = config.limits.connections_per_address_max;
    let grpc = bounded("grpc", grpc, limits.protocol, &unread).limit_addresses(each_max);
    let http = bounded("http", http, limits.protocol, &unread).limit_addresses(each_max);
    // Scrapers and probes of one node share its address.
    let scrape = bounded("metrics", scrape, limits.metrics, &answers(METRICS_UNREAD_MAX));

    let closing = watch::Sender::new(false);
    let mut listeners = JoinSet::new();
    listeners.spawn(named(
        "grpc",
        grpc::serve(Arc::clone(service), config.model_control, grpc, closed(&closing)),
    ));
    listeners.spawn(named(
        "http",
        http::serve(Arc::clone(service), config.model_control, http, closed(&closing)),
    ));
    listeners.spawn(named(
        "metrics",
        admin::serve(Arc::clone(service), scrape, closed(&closing)),
    ));

    let fault = service.repository().fault().clone();
    let stop = stop_signal()?;
    tokio::pin!(stop);
    let outcome = tokio::select! {
        loaded = engine.load() => loaded.map(|()| true).map_err(AppError::from),
        failed = first_failure(&mut listeners) => Err(failed),
        () = &mut stop => Ok(false),
    };
    let (mut routes, outcome) = match outcome {
        Ok(true) => {
            let mut routes = streams(service, &config)?;
            drop(unready);
            announce(grpc_addr, http_addr, metrics_addr);
            let outcome = tokio::select! {
                failed = first_failure(&mut listeners) => Err(failed),
                ended = routes.ended() => Err(ended.into()),
                why = fault.raised() => Err(AppError::DeviceLost(why)),
                () = &mut stop => Ok(()),
            };
            (Some(routes), outcome)
        }
        Ok(false) => (None, Ok(())),
        Err(failed) => (None, Err(failed)),
    };
    info!(drain_timeout = ?config.drain_timeout, "shutting down: taking no new requests");
    let drained = drain(engine, routes.take(), closing, listeners, config.drain_timeout).await;
    match fault.reason() {
        // Other failures are consequences of the lost device.
        Some(why) => Err(AppError::DeviceLost(why)),
        None => drained.and(outcome),
    }
}

/// The pumps of the Kafka routes. They start when the models serve, so that no record waits for a model.
fn streams(service: &Arc<InferenceService>, config: &Config) -> Result<kafka::Routes, AppError> {
    kafka::Routes::start(service, &config.kafka, &tokio::runtime::Handle::current()).map_err(|source| {
        AppError::Start {
            what: "the Kafka pumps",
            source,
        }
    })
}

/// Drains in the order of the data path. New requests are refused, requests in flight finish, streams commit,
/// connections close, and the threads end.
async fn drain(
    engine: Engine,
    routes: Option<kafka::Routes>,
    closing: watch::Sender<bool>,
    mut listeners: JoinSet<Result<(), AppError>>,
    timeout: Duration,
) -> Result<(), AppError> {
    let started = tokio::time::Instant::now();
    let drain = engine.service().drain();
    drain.go(ServerState::Draining);
    if let Some(routes) = &routes {
        // The remaining time is for the commit and for leaving the groups.
        routes.stop((started + timeout.mul_f64(SCORING_SHARE)).into_std());
    }
    let emptied = drain.emptied(timeout).await;
    let inside = drain.inside();
    let left = timeout
        .saturating_sub(started.elapsed())
        .max(Duration::from_secs(1));
    let committed = match routes {
        Some(routes) => tokio::time::timeout(left, routes.join()).await.is_ok(),
        None => true,
    };
    closing.send_replace(true);
    let left = timeout
        .saturating_sub(started.elapsed())
        .max(Duration::from_millis(100));
    let closed = async { while listeners.join_next().await.is_some() {} };
    if tokio::time::timeout(left, closed).await.is_err() {
        warn!("connections were still open when drain_timeout passed; they are cut");
        listeners.shutdown().await;
    }
    if !emptied {
        return Err(AppError::Drain { inside, timeout });
    }
    if !committed {
        return Err(AppError::Uncommitted { timeout });
    }
    let left = timeout.saturating_sub(started.elapsed());
    engine.stop(left.max(Duration::from_millis(100))).await?;
    info!(took = ?started.elapsed(), "drained");
    Ok(())
}

async fn bind(what: &'static str, addr: SocketAddr) -> Result<(TcpListener, SocketAddr), AppError> {
    let failed = |source| AppError::Bind { what, addr, source };
    let listener = TcpListener::bind(addr).await.map_err(failed)?;
    // Port 0 asks for any port; the log names the one in use.
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

async fn named<E: std::fmt::Display>(
    what: &'static str,
    serving: impl Future<Output = Result<(), E>>,
) -> Result<(), AppError> {
    serving.await.map_err(|e| AppError::Listener {
        what,
        reason: e.to_string(),
    })
}

fn closed(closing: &watch::Sender<bool>) -> impl Future<Output = ()> + Send + 'static {
    let mut closing = closing.subscribe();
    async move {
        // An error means that the sender is gone, which closes as well.
        let _ = closing.wait_for(|closed| *closed).await;
    }
}

/// Resolves only when a listener ends before the shutdown.
async fn first_failure(listeners: &mut JoinSet<Result<(), AppError>>) -> AppError {
    match listeners.join_next().await {
        Some(Ok(Err(failed))) => failed,
        Some(Ok(Ok(()))) | None => AppError::Listener {
            what: "first",
            reason: "it ended without being told to".into(),
        },
        Some(Err(panicked)) => AppError::Listener {
            what: "first",
            reason: panicked.to_string(),
        },
    }
}

fn stop_signal() -> Result<impl Future<Output = ()>, AppError> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |source| AppError::Start {
        what: "the signal handlers",
        source,
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Prints the one line that scripts wait for. A closed stdout does not stop the server.
fn announce(grpc: SocketAddr, http: SocketAddr, metrics: SocketAddr) {
    info!(%grpc, %http, %metrics, "ready");
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "ready grpc={grpc} http={http} metrics={metrics}").and_then(|()| out.flush());
}
