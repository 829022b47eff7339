//! The engine: an admitted text becomes rows. The modules are in the order of the data path. `service` admits
//! a text, `tokenize`, `scheduler` and `executor` work on it, `gather` collects its rows, and `rows` renders
//! them.
//!
//! The crate has no wire type and no listener: a protocol, a Kafka route and a batch job all call
//! [`service`].

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod engine;
pub mod settings;

pub mod placement;
pub mod repository;

pub mod request;
pub mod served_model;
pub mod service;

pub mod tokenize;

pub mod scheduler;

pub mod device_lost;
pub mod executor;

pub mod gather;
pub mod rows;

pub mod backlog;
pub mod drain;
