//! A pump's reports: readiness and lag.

use tracing::debug;

use crate::consumer_lag::Outlook;
use crate::pump::Pump;
use crate::scoring::Scorer;
use crate::sink::Sink;
use crate::source::{LogIdentity, Source};

impl<S, K, C> Pump<S, K, C>
where
    S: Source + LogIdentity,
    K: Sink<Group = S::Group>,
    C: Scorer,
{
    /// Reads the source's newest statistics.
    pub(super) fn watch(&mut self) {
        self.held
            .settle(self.scorer.out(), self.time.now(), &self.route.name);
        self.ready.scores(!self.held.alarm());
        let Some(statistics) = self.source.statistics() else {
            return;
        };
        self.ready.connects(statistics.connected);
        let Outlook {
            lag: behind,
            drain,
            beyond,
        } = self.behind.look(&statistics, &mut self.inside, self.time.nanos());
        if beyond {
            self.source.hurry();
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
