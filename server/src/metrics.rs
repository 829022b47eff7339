//! Every figure the server publishes. Stages hold handles; names and labels stand in `names` alone.
//!
//! The series are plain atomics that belong to a `Metrics` value, not to a process-wide recorder: two
//! engines in one test do not mix, memory is fixed once a series exists (a recorder that keeps raw
//! samples until the next scrape grows with the load), and a page is rendered in a fixed order.

mod names;

mod histogram;
mod window;

mod device;
mod labels;
mod model;

mod http;
mod page;
mod render;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use penstock_core::Class;

use crate::clock::Clock;
use labels::{Cells, Outcomes};

pub use device::BusyMeter;
pub use http::serve;
pub use labels::{OutcomeLabel, Source};
pub use model::{ModelMetrics, Statistics, Tally};
pub use names::{FAMILIES, Family, Kind, Unit};

/// All series of one server.
pub struct Metrics {
    clock: Clock,
    models: Mutex<BTreeMap<(String, String), Arc<ModelMetrics>>>,
    /// Requests that named no model that serves: their name is input, so it is no label.
    unknown: Cells<Outcomes>,
    devices: Mutex<BTreeMap<String, BusyMeter>>,
}

impl Metrics {
    /// No series yet, apart from the build's own.
    pub fn new(clock: Clock) -> Metrics {
        Metrics {
            clock,
            models: Mutex::default(),
            unknown: Cells::default(),
            devices: Mutex::default(),
        }
    }

    /// The handles of one model version. Asked for twice, as after a reload, they are the same, so that
    /// no counter goes back.
    pub fn model(&self, name: &str, version: &str) -> Arc<ModelMetrics> {
        let mut models = self.models.lock();
        let handles = models
            .entry((name.to_owned(), version.to_owned()))
            .or_insert_with(|| Arc::new(ModelMetrics::new(name, version, self.clock)));
        Arc::clone(handles)
    }

    /// Counts a request whose model does not exist or does not serve.
    pub fn unknown_model(&self, source: Source, class: Class, outcome: OutcomeLabel) {
        self.unknown.at(source, class).count(outcome);
    }

    /// The handle of a device.
    pub fn device_busy(&self, device: &str) -> BusyMeter {
        self.devices
            .lock()
            .entry(device.to_owned())
            .or_insert_with(|| BusyMeter::new(self.clock))
            .clone()
    }

    /// The page that Prometheus reads.
    pub fn render(&self) -> String {
        render::render(self)
    }
}
