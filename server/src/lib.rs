//! The inference server. The modules stand in the order in which a text passes them:
//! `ingest` reads it, `front` admits it, `tokenize`, `scheduler` and `executor` work on it, `respond`
//! answers it. What stands beside the line comes after.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod cli;
pub mod commands;
pub mod config;

pub mod device;

pub mod app;

pub mod ingest;

pub mod front;
pub mod lane;

pub mod tokenize;

pub mod scheduler;

pub mod executor;
pub mod fault;

pub mod respond;

pub mod backlog;
pub mod clock;
pub mod drain;
pub mod logging;
pub mod metrics;
pub mod repository;
pub mod status;
