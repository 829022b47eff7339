//! A pump's part of the server's readiness.

use std::sync::Arc;

use tracing::{info, warn};

use penstock_engine::service::{InferenceService, Unready};
use penstock_telemetry::metrics::Counted;

/// A consumer that does not work: the server is not ready, and the metrics name the route.
pub struct Down {
    _unready: Unready,
    _counted: Counted,
}

impl Down {
    /// Not ready from now on, until it is dropped.
    pub fn begin(service: &InferenceService, route: &str) -> Down {
        Down {
            _unready: service.unready(),
            _counted: service.metrics().unready(route),
        }
    }
}

/// Conditions of a pump's work. The server is not ready unless all of them hold.
pub struct Ready {
    service: Arc<InferenceService>,
    route: String,
    down: Option<Down>,
    connects: bool,
    writes: bool,
    scores: bool,
}

impl Ready {
    /// Not ready, because nothing is connected yet.
    pub fn new(service: Arc<InferenceService>, route: &str) -> Ready {
        let down = Some(Down::begin(&service, route));
        Ready {
            service,
            route: route.to_owned(),
            down,
            connects: false,
            writes: true,
            scores: true,
        }
    }

    /// Sets whether a broker is connected.
    pub fn connects(&mut self, yes: bool) {
        self.connects = yes;
        self.tell();
    }

    /// Sets whether the output is written.
    pub fn writes(&mut self, yes: bool) {
        self.writes = yes;
        self.tell();
    }

    /// Sets whether records are scored.
    pub fn scores(&mut self, yes: bool) {
        self.scores = yes;
        self.tell();
    }

    fn tell(&mut self) {
        let Ready {
            connects,
            writes,
            scores,
            ..
        } = *self;
        let route = self.route.as_str();
        match (connects && writes && scores, self.down.is_some()) {
            (true, true) => {
                info!(route, "ready");
                self.down = None;
            }
            (false, false) => {
                warn!(route, connects, writes, scores, "not ready");
                self.down = Some(Down::begin(&self.service, route));
            }
            _ => {}
        }
    }
}
