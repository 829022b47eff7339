//! Starts and stops the engine: its threads, its models, its metrics.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use penstock_core::lifecycle::ServerState;
use penstock_models::Threads;
use penstock_telemetry::clock::Clock;
use penstock_telemetry::metrics::Metrics;
use tracing::warn;

use crate::device_lost::DeviceLost;
use crate::placement::Placement;
use crate::repository::Repository;
use crate::served_model::{Shared, Wrap};
use crate::service::InferenceService;
use crate::settings::EngineSettings;
use crate::tokenize::TokenizerPool;

/// Longest wait of a shutdown for idle threads.
const TOKENIZERS_END_MAX: Duration = Duration::from_secs(1);

/// Reason why the engine could not start, or did not end cleanly.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A thread could not be started.
    #[error("cannot start {what}: {source}")]
    Start {
        /// Name of the thread.
        what: &'static str,
        /// Error of the system.
        source: std::io::Error,
    },
    /// A model could not be loaded.
    #[error("{0}")]
    Model(String),
    /// Requests were still in flight at the end of the drain timeout.
    #[error("{inside} requests were still running when drain_timeout = {timeout:?} passed")]
    Drain {
        /// Number of requests.
        inside: usize,
        /// The drain timeout.
        timeout: Duration,
    },
}

/// All parts behind the wire: models, threads, metrics. `serve` adds listeners, `score` a file.
pub struct Engine {
    service: Arc<InferenceService>,
    tokenizers: Vec<JoinHandle<()>>,
}

impl Engine {
    /// Starts the threads and loads every configured model.
    pub async fn start(settings: &EngineSettings, placement: &Placement) -> Result<Engine, EngineError> {
        let engine = Engine::prepare(settings, placement, None)?;
        engine.load().await?;
        Ok(engine)
    }

    /// Like `start`, with `wrap` around every loaded model.
    pub async fn start_with(
        settings: &EngineSettings,
        placement: &Placement,
        wrap: Wrap,
    ) -> Result<Engine, EngineError> {
        let engine = Engine::prepare(settings, placement, Some(wrap))?;
        engine.load().await?;
        Ok(engine)
    }

    /// Starts the threads; no model is loaded yet, so readiness is false.
    pub fn prepare(
        settings: &EngineSettings,
        placement: &Placement,
        wrap: Option<Wrap>,
    ) -> Result<Engine, EngineError> {
        let clock = Clock::start();
        let metrics = Arc::new(Metrics::new(clock));
        let (pool, tokenizers) =
            TokenizerPool::start(settings.tokenizer_threads, settings.limits.queue_texts_max, clock)
                .map_err(|source| EngineError::Start {
                    what: "the tokenizer threads",
                    source,
                })?;
        let threads = if settings.pin_threads {
            Threads::pinned(settings.threads)
        } else {
            Threads::new(settings.threads)
        };
        let threads = threads.map_err(|e| EngineError::Model(e.to_string()))?;
        let shared = Shared {
            pool: Arc::new(pool),
            limits: settings.limits.clone(),
            clock,
            fault: DeviceLost::default(),
            wrap,
        };
        let repository = Arc::new(Repository::new(
            &settings.models,
            placement.devices(&threads, settings.cuda_graphs),
            shared,
            Arc::clone(&metrics),
        ));
        let service = Arc::new(InferenceService::new(
            repository,
            metrics,
            settings.limits.clone(),
            clock,
        ));
        Ok(Engine { service, tokenizers })
    }

    /// Loads every configured model, after which the engine is ready.
    pub async fn load(&self) -> Result<(), EngineError> {
        self.service
            .repository()
            .load_all()
            .await
            .map_err(|e| EngineError::Model(e.to_string()))?;
        self.service.drain().go(ServerState::Ready);
        Ok(())
    }

    /// The inference service.
    pub fn service(&self) -> &Arc<InferenceService> {
        &self.service
    }

    /// Refuses new work, lets requests in flight finish within `timeout`, then ends every thread.
    pub async fn stop(self, timeout: Duration) -> Result<(), EngineError> {
        let drain = self.service.drain();
        drain.go(ServerState::Draining);
        if !drain.emptied(timeout).await {
            return Err(EngineError::Drain {
                inside: drain.inside(),
                timeout,
            });
        }
        if tokio::time::timeout(timeout, self.service.repository().close())
            .await
            .is_err()
        {
            warn!("a model was still held when drain_timeout passed");
        }
        drain.go(ServerState::Stopped);
        drop(self.service);
        // Every request is answered, so idle tokenizers end at once, unless a model that is still loading
        // holds them.
        let joined = tokio::task::spawn_blocking(move || {
            self.tokenizers.into_iter().for_each(|t| drop(t.join()));
        });
        if tokio::time::timeout(timeout.min(TOKENIZERS_END_MAX), joined)
            .await
            .is_err()
        {
            warn!("the tokenizer threads were still held when the process ended");
        }
        Ok(())
    }
}
