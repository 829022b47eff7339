//! What a pump tells of itself: whether it is ready, and how far it is behind.

use rdkafka::consumer::Consumer;
use tracing::debug;

use super::pump::Pump;

impl Pump {
    /// Looks at what the client has counted since the last time.
    pub(super) fn watch(&mut self) {
        self.ready.scores(!self.held.alarm());
        let Some(statistics) = self.consumer.context().take_statistics() else {
            return;
        };
        self.ready.connects(statistics.connected());
        let mut behind = 0;
        for (topic, known) in statistics.partitions() {
            let place = self.inside.places.find(topic, known.number);
            let Some(ours) = place.and_then(|place| self.inside.partition(place)) else {
                continue;
            };
            behind += known.lag(ours.committed, ours.is_empty()).unwrap_or(0);
        }
        let (inside, paused) = (self.inside.records(), self.inside.paused());
        debug!(route = self.route.name, behind, inside, paused, "progress");
    }
}
