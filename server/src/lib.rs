//! The server: listeners, protocols, Kafka routes and the command line around the engine. `listen` accepts
//! connections, `ingest` reads requests, `penstock_engine` scores them, `respond` answers them; `app` joins all parts.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod cli;
pub mod commands;

pub mod app;

pub mod listen;

pub mod ingest;
pub mod respond;

pub mod admin;
mod control;
pub mod status;
