//! Reading a stream: records in flight, read-ahead, offsets that are safe to commit, throughput.

pub mod in_flight;
pub mod read_ahead;
pub mod throughput;

pub mod assignment;
pub mod offsets;
