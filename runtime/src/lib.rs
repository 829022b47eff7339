//! Drives records from a source over the engine to a sink. A record passes these files in order: `pump` polls
//! it, `in_flight_records` counts it, and `record_codec` decodes it. `scoring` has it scored by the service,
//! `partition` keeps its order, and the sink writes and commits it.
//!
//! Sources and sinks are the traits [`source::Source`] and [`sink::Sink`]. The simulation in `tests/` drives
//! the pump with a pair in memory.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod record;
pub mod sink;
pub mod source;
pub mod trouble;

pub mod pump;

mod rebalance;
mod report;
mod resets;

mod in_flight_records;
mod partition;
mod partition_ids;
mod rejected_records;

mod field;
mod header_options;
mod output;
pub mod record_codec;
pub mod route;

pub mod chunk;
mod retry_queue;
pub mod scoring;

pub mod backoff;
mod commit_interval;
mod consumer_lag;
pub mod progress;
pub mod ready;
pub mod stall_watchdog;
mod statistics;
pub mod stop;
pub mod time;
