//! A pump's reports: readiness and lag.

use std::time::Instant;

use rdkafka::consumer::Consumer;
use tracing::debug;

use super::consumer_lag::Outlook;
use super::pump::Pump;

impl Pump {
    /// Reads the client's newest statistics.
    pub(super) fn watch(&mut self) {
        self.held
            .settle(self.scorer.out(), Instant::now(), &self.route.name);
        self.ready.scores(!self.held.alarm());
        let Some(statistics) = self.consumer.context().take_statistics() else {
            return;
        };
        self.ready.connects(statistics.connected());
        let Outlook {
            lag: behind,
            drain,
            beyond,
        } = self.behind.look(&statistics, &mut self.inside, self.clock.now());
        if beyond {
            self.identities.hurry();
        }
        self.lag = behind;
        self.cadence.behind(drain);
        let commits_every = self.cadence.interval();
        let (inside, paused) = (self.inside.records(), self.inside.paused());
        self.metrics.inside(inside, self.inside.bytes(), paused);
        debug!(
            route = self.route.name,
            behind,
            inside,
            paused,
            ?commits_every,
            "progress"
        );
    }
}
