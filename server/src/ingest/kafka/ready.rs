//! Whether a pump does its work, for the server's readiness.

use std::sync::Arc;

use tracing::{info, warn};

use crate::front::{Front, Unready};

/// What keeps a pump from its work. As long as anything does, the server is not ready.
pub struct Ready {
    front: Arc<Front>,
    route: String,
    unready: Option<Unready>,
    connects: bool,
    writes: bool,
    scores: bool,
}

impl Ready {
    /// Not ready: nothing is connected yet.
    pub fn new(front: Arc<Front>, route: &str) -> Ready {
        let unready = Some(front.unready());
        Ready {
            front,
            route: route.to_owned(),
            unready,
            connects: false,
            writes: true,
            scores: true,
        }
    }

    /// Whether a broker is there.
    pub fn connects(&mut self, yes: bool) {
        self.connects = yes;
        self.tell();
    }

    /// Whether what leaves is taken.
    pub fn writes(&mut self, yes: bool) {
        self.writes = yes;
        self.tell();
    }

    /// Whether records are scored.
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
        match (connects && writes && scores, self.unready.is_some()) {
            (true, true) => {
                info!(route, "ready");
                self.unready = None;
            }
            (false, false) => {
                warn!(route, connects, writes, scores, "not ready");
                self.unready = Some(self.front.unready());
            }
            _ => {}
        }
    }
}
