//! All metrics of the server. Stages hold handles; names and labels are defined in `names` alone.

mod names;

mod device;
mod kafka;
mod labels;
mod level;
mod listener;
mod model;
mod process;
mod series;
mod topics;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics::Counter;
use parking_lot::Mutex;
use penstock_core::{Class, Source};

use crate::clock::Clock;
use crate::logging;
use labels::{Cells, Outcomes};
use names::UNKNOWN_MODEL;
use series::Series;
use topics::Topics;

pub use device::BusyMeter;
pub use kafka::{Counted, KafkaMetrics, Left};
pub use labels::{DeadReason, OutcomeLabel, ResetReason};
pub use listener::{ListenerMetrics, UnreadBytes};
pub use model::{ModelMetrics, Statistics, Tally};
pub use topics::{Drain, Lag, TopicMetrics};

/// All series of one server.
pub struct Metrics {
    clock: Clock,
    series: Arc<Series>,
    models: Mutex<BTreeMap<(String, String), Arc<ModelMetrics>>>,
    /// Requests whose model does not exist. The name is input, so it is no label value.
    unknown: Cells<Outcomes>,
    devices: Mutex<BTreeMap<String, BusyMeter>>,
    topics: Topics,
    log_lines_lost: Counter,
}

impl Metrics {
    /// Metrics without series, apart from the build's own.
    pub fn new(clock: Clock) -> Metrics {
        let series = Series::start();
        series
            .gauge(&names::BUILD_INFO, &[env!("CARGO_PKG_VERSION"), "cpu"])
            .set(1);
        Metrics {
            clock,
            log_lines_lost: series.counter(&names::LOG_LINES_LOST, &[]),
            series: Arc::new(series),
            models: Mutex::default(),
            unknown: Cells::default(),
            devices: Mutex::default(),
            topics: Topics::default(),
        }
    }

    /// Handles of one model version. A second call, as after a reload, returns the same handles, so that no
    /// counter goes back.
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

    /// The handles of a port.
    pub fn listener(&self, port: &'static str) -> ListenerMetrics {
        ListenerMetrics::new(&self.series, port)
    }

    /// The handle of the unread answers of all ports.
    pub fn unread_bytes(&self) -> UnreadBytes {
        UnreadBytes::new(&self.series)
    }

    /// The handles of one consumer of a Kafka route.
    pub fn kafka(&self, route: &str) -> KafkaMetrics {
        KafkaMetrics::new(&self.series, route)
    }

    /// Counts a consumer of a route that is not ready, until the handle is dropped.
    pub fn unready(&self, route: &str) -> Counted {
        Counted::new(self.series.gauge(&names::KAFKA_UNREADY, &[route]))
    }

    /// Handles of a topic, held while it is read. A configured topic has handles of its own. Topics that a
    /// pattern finds share one set once `found_max` others are read.
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
        self.log_lines_lost.absolute(logging::lines_lost());
        let mut page = self.series.render();
        self.topics.render(&mut page);
        process::render(&mut page);
        page
    }
}
