//! The server's telemetry: metrics, log lines, and the clock that both read.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod clock;
pub mod logging;
pub mod metrics;
