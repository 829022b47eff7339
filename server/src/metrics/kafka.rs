//! What is published of the Kafka routes.

use std::time::Duration;

/// The series of one route.
#[derive(Debug, Default)]
pub struct KafkaMetrics;

impl KafkaMetrics {
    /// A transaction was committed.
    pub fn committed(&self, _: Duration, times: &mut Vec<i64>) {
        times.clear();
    }

    /// One was aborted.
    pub fn aborted(&self, _: Duration) {}

    /// Partitions came.
    pub fn assigned(&self) {}

    /// Partitions went.
    pub fn revoked(&self, _: bool) {}
}
