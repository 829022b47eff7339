//! Which versions of a model answer, which come up and which go, and whether the server takes work.
//!
//! ```text
//! version:  loading -> warming -> ready -> draining -> unloaded      (or failed, from any but the last)
//! server:   starting -> ready -> draining -> stopped
//! ```
//! The old version answers until the new one is warm: only [`ModelLifecycle::ready`] names a version
//! that has to go.

use crate::batching::reply::Rejection;

/// Where one load of one version stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionState {
    /// Its weights are being read.
    Loading,
    /// It runs its first batches, which nobody waits for.
    Warming,
    /// It answers.
    Ready,
    /// It answers what it has taken and takes nothing new.
    Draining,
    /// It is gone.
    Unloaded,
    /// It cannot answer.
    Failed {
        /// Why.
        reason: String,
    },
}

impl VersionState {
    /// The name used in errors and in the repository index.
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

    /// True when nothing comes after it.
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

/// A step that the present state does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransitionError {
    /// Out of order.
    #[error("{what} cannot become {to}: it is {from}")]
    NotAllowed {
        /// Whose step.
        what: String,
        /// The state it is in.
        from: &'static str,
        /// The state it was to enter.
        to: &'static str,
    },
    /// The same version is being loaded already.
    #[error("model {model} version {version} is being loaded already")]
    AlreadyLoading {
        /// The model.
        model: String,
        /// The version.
        version: u64,
    },
    /// No such load, or one that was replaced long ago.
    #[error("model {model} has no load number {load}")]
    Unknown {
        /// The model.
        model: String,
        /// The load's number.
        load: u64,
    },
}

/// One load of a version. The same version loaded again, because its files changed, is another load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LoadId(u64);

/// What is known of one load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// Which load.
    pub id: LoadId,
    /// The version's number.
    pub version: u64,
    /// Where it stands.
    pub state: VersionState,
}

/// The versions of one model.
#[derive(Clone, Debug)]
pub struct ModelLifecycle {
    name: String,
    serving_max: usize,
    loads: Vec<Load>,
    /// The loads that are ready, in the order in which they became so.
    serving: Vec<LoadId>,
    next: u64,
}

impl ModelLifecycle {
    /// A model of which nothing is loaded. `serving_max` versions, at least one, answer side by side:
    /// those that became ready last, so that loading an older version is the way back to it.
    pub fn new(name: impl Into<String>, serving_max: usize) -> ModelLifecycle {
        ModelLifecycle {
            name: name.into(),
            serving_max: serving_max.max(1),
            loads: Vec::new(),
            serving: Vec::new(),
            next: 0,
        }
    }

    /// Begins to load `version`. Whatever serves goes on serving.
    pub fn load(&mut self, version: u64) -> Result<LoadId, TransitionError> {
        let under_way = |l: &Load| matches!(l.state, VersionState::Loading | VersionState::Warming);
        if self.loads.iter().any(|l| l.version == version && under_way(l)) {
            return Err(TransitionError::AlreadyLoading {
                model: self.name.clone(),
                version,
            });
        }
        // What became of earlier loads of this version is of no interest any more, and the list stays
        // as short as the list of versions.
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

    /// The weights are there; warming begins.
    pub fn loaded(&mut self, id: LoadId) -> Result<(), TransitionError> {
        self.enter(id, VersionState::Warming).map(|_| ())
    }

    /// It is warm and answers from now on. Returns the loads that are draining from now on: the same
    /// version's earlier load, and what exceeds the number of versions that answer side by side.
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

    /// What it had taken is answered and its memory is free.
    pub fn drained(&mut self, id: LoadId) -> Result<(), TransitionError> {
        self.enter(id, VersionState::Unloaded).map(|_| ())
    }

    /// It cannot be loaded or warmed, or its executor died.
    pub fn failed(&mut self, id: LoadId, reason: impl Into<String>) -> Result<(), TransitionError> {
        self.enter(
            id,
            VersionState::Failed {
                reason: reason.into(),
            },
        )
        .map(|_| ())
    }

    /// Takes one version, or all, out of service. Returns the loads that are draining from now on. A
    /// load under way is unloaded at once: whoever loads it learns so at its next step, and drops it.
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

    /// Which load answers a request for `version`: a number, or `latest` or nothing for the highest
    /// that is ready.
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

    /// Every load that is under way, serving or draining, and what became of the last one of each version.
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

    /// Makes the step, keeps `serving` true, and returns the version.
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

/// Where the server stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerState {
    /// Models are loading.
    #[default]
    Starting,
    /// Work is taken.
    Ready,
    /// What was taken is answered, nothing new is taken.
    Draining,
    /// All is answered.
    Stopped,
}

impl ServerState {
    /// The name used in errors and logs.
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

    /// Goes on to `next`. A server that is told to stop while it starts never becomes ready.
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
