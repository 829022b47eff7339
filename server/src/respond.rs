//! Results of Kafka records: rows to records, and the transactions that hold them.

pub mod kafka;
