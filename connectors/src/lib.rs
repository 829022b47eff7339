//! Connectors: the streams that records come from and go to, a folder each. Kafka's is the only place of the
//! workspace that names rdkafka.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod kafka;
