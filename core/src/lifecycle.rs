//! States of a model's versions, from loading to unloaded, and of the server.
//!
//! ```text
//! version:  loading -> warming -> ready -> draining -> unloaded      (or failed, from any but the last)
//! server:   starting -> ready -> draining -> stopped
//! ```
//! The old version answers until the new one is warm: [`ModelLifecycle::ready`] alone names the versions that
//! the new one replaces.

use crate::batching::reply::Rejection;

/// State of one load of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionState {
    /// The weights are being read.
    Loading,
    /// The first batches run; no request waits for them.
    Warming,
    /// The version answers.
    Ready,
    /// The version answers what it has accepted and accepts nothing new.
    Draining,
    /// The version is gone.
    Unloaded,
    /// The version cannot answer.
    Failed {
        /// The reason.
        reason: String,
    },
}

impl VersionState {
    /// The name that errors and the repository index use.
    pub fn name(&self) -> &'static str {
        match self {
            VersionState::Loading => "loading",
            VersionState::Warming => "warming",
            VersionState::Ready => "ready",
            VersionState::Draining => "draining",
            VersionState::Unloaded => "unloaded",
            VersionState::Failed { .. } => "failed",
        }
    }

    /// True for a final state.
    pub fn is_over(&self) -> bool {
        matches!(self, VersionState::Unloaded | VersionState::Failed { .. })
    }

    fn may_become(&self, next: &VersionState) -> bool {
        use VersionState::{Draining, Failed, Loading, Ready, Unloaded, Warming};
        matches!(
            (self, next),
            (Loading, Warming | Unloaded | Failed { .. })
                | (Warming, Ready | Unloaded | Failed { .. })
                | (Ready, Draining | Failed { .. })
                | (Draining, Unloaded | Failed { .. })
        )
    }
}

/// A step that the present state forbids.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransitionError {
    /// The step is out of order.
    #[error("{what} cannot become {to}: it is {from}")]
    NotAllowed {
        /// The version, or the server.
        what: String,
        /// The present state.
        from: &'static str,
        /// The state that was to follow.
        to: &'static str,
    },
    /// The version is being loaded already.
    #[error("model {model} version {version} is being loaded already")]
    AlreadyLoading {
        /// The model.
        model: String,
        /// The version.
        version: u64,
    },
    /// The load does not exist, or was replaced before.
    #[error("model {model} has no load number {load}")]
    Unknown {
        /// The model.
        model: String,
        /// The load's number.
        load: u64,
    },
}

/// Id of one load of a version. Loading the same version again, because its files changed, is another load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LoadId(u64);

/// One load of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// Its id.
    pub id: LoadId,
    /// The version's number.
    pub version: u64,
    /// Its state.
    pub state: VersionState,
}

/// The versions of one model.
#[derive(Clone, Debug)]
pub struct ModelLifecycle {
    name: String,
    serving_max: usize,
    loads: Vec<Load>,
    /// The loads that are ready, in the order in which they became ready.
    serving: Vec<LoadId>,
    next: u64,
}

impl ModelLifecycle {
    /// A model without a loaded version. Up to `serving_max` versions, at least one, answer side by side: those
    /// that became ready last, so that loading an older version rolls back to it.
    pub fn new(name: impl Into<String>, serving_max: usize) -> ModelLifecycle {
        ModelLifecycle {
            name: name.into(),
            serving_max: serving_max.max(1),
            loads: Vec::new(),
            serving: Vec::new(),
            next: 0,
        }
    }

    /// Begins to load `version`. Ready versions go on serving.
    pub fn load(&mut self, version: u64) -> Result<LoadId, TransitionError> {
        let under_way = |l: &Load| matches!(l.state, VersionState::Loading | VersionState::Warming);
        if self.loads.iter().any(|l| l.version == version && under_way(l)) {
            return Err(TransitionError::AlreadyLoading {
                model: self.name.clone(),
                version,
            });
        }
        // Earlier loads of this version that are over are dropped, so that the list stays as short as the list
        // of versions.
        self.loads.retain(|l| l.version != version || !l.state.is_over());
        let id = LoadId(self.next);
        self.next += 1;
        self.loads.push(Load {
            id,
            version,
            state: VersionState::Loading,
        });
        Ok(id)
    }

    /// Notes that the weights are read; warming begins.
    pub fn loaded(&mut self, id: LoadId) -> Result<(), TransitionError> {
        self.enter(id, VersionState::Warming).map(|_| ())
    }

    /// Notes that the load is warm; it answers from now on. Returns the loads that drain from now on: an earlier
    /// load of the same version, and the oldest beyond the number of versions that answer side by side.
    pub fn ready(&mut self, id: LoadId) -> Result<Vec<LoadId>, TransitionError> {
        let version = self.enter(id, VersionState::Ready)?;
        let same = |serving: &LoadId| self.find(*serving).is_some_and(|l| l.version == version);
        let mut leaving: Vec<LoadId> = self.serving.iter().copied().filter(same).collect();
        self.serving.push(id);
        let excess = (self.serving.len() - leaving.len()).saturating_sub(self.serving_max);
        let others = self.serving.iter().copied().filter(|s| !leaving.contains(s));
        let oldest: Vec<LoadId> = others.take(excess).collect();
        leaving.extend(oldest);
        for &old in &leaving {
            self.enter(old, VersionState::Draining)?;
        }
        Ok(leaving)
    }

    /// Notes that all accepted work is answered and the memory is free.
    pub fn drained(&mut self, id: LoadId) -> Result<(), TransitionError> {
        self.enter(id, VersionState::Unloaded).map(|_| ())
    }

    /// Notes that the load failed, or that its executor died.
    pub fn failed(&mut self, id: LoadId, reason: impl Into<String>) -> Result<(), TransitionError> {
        self.enter(
            id,
            VersionState::Failed {
                reason: reason.into(),
            },
        )
        .map(|_| ())
    }

    /// Takes one version, or all, out of service. Returns the loads that drain from now on. A load under way is
    /// unloaded at once: the loading thread learns it at its next step and drops the version.
    pub fn unload(&mut self, version: Option<u64>) -> Vec<LoadId> {
        let mut leaving = Vec::new();
        for load in self
            .loads
            .iter_mut()
            .filter(|l| version.is_none_or(|v| v == l.version))
        {
            match load.state {
                VersionState::Loading | VersionState::Warming => load.state = VersionState::Unloaded,
                VersionState::Ready => {
                    load.state = VersionState::Draining;
                    leaving.push(load.id);
                }
                VersionState::Draining | VersionState::Unloaded | VersionState::Failed { .. } => {}
            }
        }
        self.serving.retain(|s| !leaving.contains(s));
        leaving
    }

    /// The load that answers a request for `version`: a number; or `latest` or an empty text for the highest
    /// version that is ready.
    pub fn resolve(&self, version: &str) -> Result<LoadId, Rejection> {
        let ready = self.serving.iter().filter_map(|&id| self.find(id));
        if version.is_empty() || version == "latest" {
            let highest = ready.max_by_key(|l| l.version);
            return highest
                .map(|l| l.id)
                .ok_or_else(|| self.not_ready(self.loads.last()));
        }
        let Ok(number) = version.parse::<u64>() else {
            let why = format!(
                "version {version} of model {} is neither a number nor latest",
                self.name
            );
            return Err(Rejection::Invalid(why));
        };
        if let Some(load) = ready.into_iter().find(|l| l.version == number) {
            return Ok(load.id);
        }
        match self.loads.iter().rev().find(|l| l.version == number) {
            Some(load) => Err(self.not_ready(Some(load))),
            None => Err(Rejection::NotFound(format!(
                "model {} has no version {number}",
                self.name
            ))),
        }
    }

    /// True when a request without a version is answered.
    pub fn is_ready(&self) -> bool {
        !self.serving.is_empty()
    }

    /// Every load under way, serving or draining, and finished ones until their version is loaded again.
    pub fn loads(&self) -> &[Load] {
        &self.loads
    }

    fn find(&self, id: LoadId) -> Option<&Load> {
        self.loads.iter().find(|l| l.id == id)
    }

    fn not_ready(&self, load: Option<&Load>) -> Rejection {
        let name = &self.name;
        Rejection::NotReady(match load {
            None => format!("model {name} is not loaded"),
            Some(Load {
                version,
                state: VersionState::Failed { reason },
                ..
            }) => {
                format!("model {name} version {version} failed: {reason}")
            }
            Some(Load { version, state, .. }) => {
                format!("model {name} version {version} is {}", state.name())
            }
        })
    }

    /// Makes the step, keeps `serving` up to date, and returns the version.
    fn enter(&mut self, id: LoadId, next: VersionState) -> Result<u64, TransitionError> {
        let Some(load) = self.loads.iter_mut().find(|l| l.id == id) else {
            return Err(TransitionError::Unknown {
                model: self.name.clone(),
                load: id.0,
            });
        };
        if !load.state.may_become(&next) {
            let what = format!("model {} version {}", self.name, load.version);
            return Err(TransitionError::NotAllowed {
                what,
                from: load.state.name(),
                to: next.name(),
            });
        }
        if load.state == VersionState::Ready {
            self.serving.retain(|&s| s != id);
        }
        load.state = next;
        Ok(load.version)
    }
}

/// State of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerState {
    /// Models are loading.
    #[default]
    Starting,
    /// Work is accepted.
    Ready,
    /// Accepted work is answered, new work is refused.
    Draining,
    /// All work is answered.
    Stopped,
}

impl ServerState {
    /// The name that errors and logs use.
    pub fn name(self) -> &'static str {
        match self {
            ServerState::Starting => "starting",
            ServerState::Ready => "ready",
            ServerState::Draining => "draining",
            ServerState::Stopped => "stopped",
        }
    }

    /// True when a load balancer should send work.
    pub fn is_ready(self) -> bool {
        self == ServerState::Ready
    }

    /// True when the process should not be restarted.
    pub fn is_live(self) -> bool {
        self != ServerState::Stopped
    }

    /// Enters the state `next`. A server that is told to stop while it starts never becomes ready.
    pub fn enter(&mut self, next: ServerState) -> Result<(), TransitionError> {
        use ServerState::{Draining, Ready, Starting, Stopped};
        if !matches!(
            (*self, next),
            (Starting, Ready) | (Starting | Ready, Draining) | (Draining, Stopped)
        ) {
            let what = "the server".to_owned();
            return Err(TransitionError::NotAllowed {
                what,
                from: self.name(),
                to: next.name(),
            });
        }
        *self = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
