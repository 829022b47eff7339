//! Every figure the server publishes. Stages hold handles; names and labels stand in `names` alone.

mod names;

mod device;
mod kafka;
mod labels;
mod level;
mod model;
mod series;
mod topics;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use penstock_core::Class;

use crate::clock::Clock;
use labels::{Cells, Outcomes};
use names::UNKNOWN_MODEL;
use series::Series;
use topics::Topics;

pub use device::BusyMeter;
pub use kafka::{Counted, KafkaMetrics, Left};
pub use labels::{DeadReason, OutcomeLabel, ResetReason, Source};
pub use model::{ModelMetrics, Statistics, Tally};
pub use topics::{Drain, Lag, TopicMetrics};

/// All series of one server.
pub struct Metrics {
    clock: Clock,
    series: Arc<Series>,
    models: Mutex<BTreeMap<(String, String), Arc<ModelMetrics>>>,
    /// Requests that named no model that serves: their name is input, so it is no label.
    unknown: Cells<Outcomes>,
    devices: Mutex<BTreeMap<String, BusyMeter>>,
    topics: Topics,
}

impl Metrics {
    /// No series yet, apart from the build's own.
    pub fn new(clock: Clock) -> Metrics {
        let series = Series::start();
        series
            .gauge(&names::BUILD_INFO, &[env!("CARGO_PKG_VERSION"), "cpu"])
            .set(1);
        Metrics {
            clock,
            series: Arc::new(series),
            models: Mutex::default(),
            unknown: Cells::default(),
            devices: Mutex::default(),
            topics: Topics::default(),
        }
    }

    /// The handles of one model version. Asked for twice, as after a reload, they are the same, so that
    /// no counter goes back.
    pub fn model(&self, name: &str, version: &str) -> Arc<ModelMetrics> {
        let mut models = self.models.lock();
        let handles = models
            .entry((name.to_owned(), version.to_owned()))
            .or_insert_with(|| Arc::new(ModelMetrics::new(name, version, Arc::clone(&self.series))));
        Arc::clone(handles)
    }

    /// Counts a request whose model does not exist or does not serve.
    pub fn unknown_model(&self, source: Source, class: Class, outcome: OutcomeLabel) {
        self.unknown
            .at(source, class, || {
                Outcomes::new(&self.series, UNKNOWN_MODEL, source, class)
            })
            .count(outcome);
    }

    /// The handles of one consumer of a Kafka route.
    pub fn kafka(&self, route: &str) -> KafkaMetrics {
        KafkaMetrics::new(&self.series, route)
    }

    /// Counts a consumer of a route that does not do its work.
    pub fn unready(&self, route: &str) -> Counted {
        Counted::new(self.series.gauge(&names::KAFKA_UNREADY, &[route]))
    }

    /// The handles of a topic, to be held while it is read. Those that a pattern finds share one set of them where
    /// `found_max` others are read; one that stands in the configuration has its own.
    pub fn topic(&self, name: &str, found_max: Option<usize>) -> Arc<TopicMetrics> {
        self.topics.get(name, found_max)
    }

    /// The handle of a device.
    pub fn device_busy(&self, device: &str) -> BusyMeter {
        let mut devices = self.devices.lock();
        let meter = devices
            .entry(device.to_owned())
            .or_insert_with(|| BusyMeter::new(self.clock, self.series.gauge(&names::DEVICE_BUSY, &[device])));
        meter.clone()
    }

    /// The page that Prometheus reads.
    pub fn render(&self) -> String {
        self.models.lock().values().for_each(|model| model.publish());
        self.devices.lock().values().for_each(BusyMeter::publish);
        let mut page = self.series.render();
        self.topics.render(&mut page);
        page
    }
}
