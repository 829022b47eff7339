//! The models: which are configured, which versions serve, and how a new version replaces another.

mod load;

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use penstock_core::Rejection;
use penstock_core::lifecycle::{LoadId, ModelLifecycle, VersionState};
use tokio::sync::Semaphore;
use tracing::{error, info};

use crate::device_lost::DeviceLost;
use crate::placement::Devices;
use crate::served_model::{ModelThreads, ServedModel, Shared};
use crate::settings::ModelConfig;
use load::Loader;
use penstock_telemetry::metrics::Metrics;

/// Versions of a model that serve at a time, as in Triton's default version policy.
const SERVING_MAX: usize = 1;

/// A version's state by Triton's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelState {
    /// Being loaded or warmed.
    Loading,
    /// Serves.
    Ready,
    /// Answers accepted requests only.
    Unloading,
    /// Does not serve; the reason is in the index.
    Unavailable,
}

impl ModelState {
    /// The name in the repository index.
    pub fn name(self) -> &'static str {
        match self {
            ModelState::Loading => "LOADING",
            ModelState::Ready => "READY",
            ModelState::Unloading => "UNLOADING",
            ModelState::Unavailable => "UNAVAILABLE",
        }
    }
}

/// One line of the repository index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The model's name.
    pub name: String,
    /// Its version; empty if none was ever loaded.
    pub version: String,
    /// Its state.
    pub state: ModelState,
    /// Reason why it is unavailable; otherwise empty.
    pub reason: String,
}

/// The configured models.
pub struct Repository {
    entries: BTreeMap<String, Arc<Entry>>,
    /// Devices of every model.
    devices: Arc<Devices>,
    shared: Shared,
    metrics: Arc<Metrics>,
}

/// Loads of one model at once: one runs, one waits for it.
const LOADS_MAX: usize = 2;

struct Entry {
    config: ModelConfig,
    serving: RwLock<Serving>,
    /// Serialises loads and unloads of a model.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Bounds the loads that run or wait, since each takes seconds and the memory of a second model.
    loads: Arc<Semaphore>,
    /// Joins of served models that are ending.
    leaving: Mutex<Vec<tokio::task::JoinHandle<()>>>,
}

/// The lifecycle and the served models that it governs.
struct Serving {
    lifecycle: ModelLifecycle,
    served: HashMap<LoadId, (Arc<ServedModel>, ModelThreads)>,
}

impl Repository {
    /// The configured models, not yet loaded; each will run on `devices`.
    pub fn new(
        models: &[ModelConfig],
        devices: Devices,
        shared: Shared,
        metrics: Arc<Metrics>,
    ) -> Repository {
        let entry = |config: &ModelConfig| {
            let lifecycle = ModelLifecycle::new(&config.name, SERVING_MAX);
            let serving = RwLock::new(Serving {
                lifecycle,
                served: HashMap::new(),
            });
            let (turn, leaving) = (Arc::default(), Mutex::default());
            (
                config.name.clone(),
                Arc::new(Entry {
                    config: config.clone(),
                    serving,
                    turn,
                    loads: Arc::new(Semaphore::new(LOADS_MAX)),
                    leaving,
                }),
            )
        };
        Repository {
            entries: models.iter().map(entry).collect(),
            devices: Arc::new(devices),
            shared,
            metrics,
        }
    }

    /// The served model that answers for `name` and `version`.
    pub fn find(&self, name: &str, version: &str) -> Result<Arc<ServedModel>, Rejection> {
        let entry = self.entry(name)?;
        let serving = entry.serving.read();
        let id = serving.lifecycle.resolve(version)?;
        let served = serving.served.get(&id).map(|(served, _)| Arc::clone(served));
        drop(serving);
        match served {
            Some(served) if served.is_alive() => Ok(served),
            _ => {
                let why = "its executor ended; load it again";
                // An error means that the version was unloaded meanwhile.
                let _ = entry.serving.write().lifecycle.failed(id, why);
                error!(model = name, reason = why, "a model no longer serves");
                Err(Rejection::NotReady(format!("model {name}: {why}")))
            }
        }
    }

    /// True when every configured model serves and no device is lost. A process with a lost device still
    /// serves, but is about to end.
    pub fn is_ready(&self) -> bool {
        let serves = |entry: &Arc<Entry>| {
            let serving = entry.serving.read();
            serving.lifecycle.is_ready() && serving.served.values().any(|(served, _)| served.is_alive())
        };
        !self.fault().is_raised() && self.entries.values().all(serves)
    }

    /// Whether a device is lost.
    pub fn fault(&self) -> &DeviceLost {
        &self.shared.fault
    }

    /// The versions of `name` that answer, lowest first.
    pub fn versions(&self, name: &str) -> Result<Vec<String>, Rejection> {
        let serving = self.entry(name)?.serving.read();
        let ready = serving
            .lifecycle
            .loads()
            .iter()
            .filter(|load| load.state == VersionState::Ready);
        let mut numbers: Vec<u64> = ready.map(|load| load.version).collect();
        numbers.sort_unstable();
        Ok(numbers.into_iter().map(|number| number.to_string()).collect())
    }

    /// Every version of every model, with its state.
    pub fn index(&self) -> Vec<IndexEntry> {
        self.entries
            .iter()
            .flat_map(|(name, entry)| entry.index(name))
            .collect()
    }

    /// Loads every configured model; the first failure is the error.
    pub async fn load_all(&self) -> Result<(), Rejection> {
        for name in self.entries.keys() {
            self.load(name).await?;
        }
        Ok(())
    }

    /// Loads and warms the newest version in the model's folder, then replaces the serving one. The old
    /// version serves until then, and answers its accepted requests. One load runs and one waits for it, which
    /// sees all that its folder has by then; a further one is refused.
    pub async fn load(&self, name: &str) -> Result<(), Rejection> {
        let entry = Arc::clone(self.entry(name)?);
        let place = Arc::clone(&entry.loads).try_acquire_owned();
        let place = place.map_err(|_| Rejection::Overloaded {
            what: "the line of loads of this model",
            used: LOADS_MAX,
            bound: LOADS_MAX,
            unit: "loads",
        })?;
        let turn = Arc::clone(&entry.turn).lock_owned().await;
        let (devices, shared, metrics) = (
            Arc::clone(&self.devices),
            self.shared.clone(),
            Arc::clone(&self.metrics),
        );
        // All steps, the lock included, run on the blocking thread, so a caller that leaves interrupts
        // nothing half-way.
        let loading = tokio::task::spawn_blocking(move || {
            let _turn = (place, turn);
            let leaving = entry.load(&devices, shared, &metrics)?;
            entry.retire(leaving);
            Ok(())
        });
        let loaded = loading.await;
        loaded
            .unwrap_or_else(|e| {
                Err(Rejection::NotReady(format!(
                    "model {name}: loading it panicked: {e}"
                )))
            })
            .inspect_err(|e| error!(model = name, error = %e, "a model could not be loaded"))
    }

    /// Takes a model out of service; its accepted requests are answered.
    pub async fn unload(&self, name: &str) -> Result<(), Rejection> {
        let entry = self.entry(name)?;
        let _turn = entry.turn.lock().await;
        let leaving = entry.serving.write().lifecycle.unload(None);
        if !leaving.is_empty() {
            info!(model = name, "unloading");
        }
        entry.retire(leaving);
        Ok(())
    }

    /// Unloads every model and waits until their threads end.
    pub async fn close(&self) {
        for entry in self.entries.values() {
            let leaving = entry.serving.write().lifecycle.unload(None);
            entry.retire(leaving);
            let joins = std::mem::take(&mut *entry.leaving.lock());
            for join in joins {
                // An error means that a thread panicked, which its panic hook has reported.
                let _ = join.await;
            }
        }
    }

    fn entry(&self, name: &str) -> Result<&Arc<Entry>, Rejection> {
        self.entries.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.entries.keys().map(String::as_str).collect();
            Rejection::NotFound(format!("unknown model {name:?}; configured are {known:?}"))
        })
    }
}

impl Entry {
    /// Reads, checks, warms and opens the newest version. Returns the loads that it replaced.
    fn load(&self, devices: &Devices, shared: Shared, metrics: &Metrics) -> Result<Vec<LoadId>, Rejection> {
        let name = &self.config.name;
        let started = Instant::now();
        let refuse = |e: &dyn std::fmt::Display| Rejection::NotReady(format!("model {name}: {e}"));
        let folder =
            penstock_models::locate(&self.config.source, self.config.allow_pickle).map_err(|e| refuse(&e))?;
        let newest = penstock_models::versions(&folder).pop();
        let (version, folder) = newest.unwrap_or((1, folder));
        let id = self
            .serving
            .write()
            .lifecycle
            .load(version)
            .map_err(|e| refuse(&e))?;
        // A panic must not leave the version in the state of loading for ever.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            self.open(id, (version, &folder), devices, shared, metrics)
        }))
        .unwrap_or_else(|_| Err(refuse(&"loading it panicked")));
        let mut serving = self.serving.write();
        let leaving = opened.and_then(|served| {
            let leaving = serving.lifecycle.ready(id).map_err(|e| refuse(&e))?;
            serving.served.insert(id, served);
            Ok(leaving)
        });
        match &leaving {
            Ok(_) => info!(model = name, version, took = ?started.elapsed(), "serving"),
            Err(e) => {
                // An error means that it was unloaded during the load; that state stays.
                let _ = serving.lifecycle.failed(id, e.to_string());
            }
        }
        leaving
    }

    fn open(
        &self,
        id: LoadId,
        (version, folder): (u64, &std::path::Path),
        devices: &Devices,
        shared: Shared,
        metrics: &Metrics,
    ) -> Result<(Arc<ServedModel>, ModelThreads), Rejection> {
        let ModelConfig { name, batching, .. } = &self.config;
        let loader = Loader {
            config: &self.config,
            folder,
            devices,
            metrics,
            fault: &shared.fault,
            wrap: shared.wrap.as_ref(),
        };
        // An error means that it was unloaded meanwhile; the step to serving detects this again.
        let loaded = || drop(self.serving.write().lifecycle.loaded(id));
        let (copies, policy) = loader
            .copies(loaded)
            .map_err(|e| Rejection::NotReady(format!("model {name}: {e}")))?;
        let version = version.to_string();
        let metrics = metrics.model(name, &version);
        ServedModel::open(name, &version, copies, policy, batching.prefetch, shared, metrics)
    }

    /// Drops served models that the lifecycle has taken out of service. Requests that still hold one finish
    /// on it; the threads end with the last reference.
    fn retire(self: &Arc<Self>, leaving: Vec<LoadId>) {
        let mut joins = self.leaving.lock();
        joins.retain(|join| !join.is_finished());
        for id in leaving {
            let Some((served, threads)) = self.serving.write().served.remove(&id) else {
                continue;
            };
            let entry = Arc::clone(self);
            joins.push(tokio::task::spawn_blocking(move || {
                drop(served);
                threads.join();
                // An error means that it was marked as failed before; that state stays.
                let _ = entry.serving.write().lifecycle.drained(id);
                info!(model = entry.config.name, "a version has left");
            }));
        }
    }

    fn index(&self, name: &str) -> Vec<IndexEntry> {
        let serving = self.serving.read();
        let line = |version: String, state, reason: &str| IndexEntry {
            name: name.to_owned(),
            version,
            state,
            reason: reason.to_owned(),
        };
        let loads = serving.lifecycle.loads();
        if loads.is_empty() {
            return vec![line(String::new(), ModelState::Unavailable, "never loaded")];
        }
        let state = |load: &VersionState| match load {
            VersionState::Loading | VersionState::Warming => ModelState::Loading,
            VersionState::Ready => ModelState::Ready,
            VersionState::Draining => ModelState::Unloading,
            VersionState::Unloaded | VersionState::Failed { .. } => ModelState::Unavailable,
        };
        let reason = |load: &VersionState| match load {
            VersionState::Failed { reason } => reason.clone(),
            VersionState::Unloaded => "unloaded".to_owned(),
            _ => String::new(),
        };
        loads
            .iter()
            .map(|load| line(load.version.to_string(), state(&load.state), &reason(&load.state)))
            .collect()
    }
}
