//! The server: listeners, protocols and the command line around the engine. `listen` accepts connections. Each
//! protocol is a folder that reads requests and answers them; `penstock_engine` scores in between, and `app` joins
//! all parts.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod cli;
pub mod commands;

pub mod app;

pub mod grpc;
pub mod http;
pub mod listen;
pub mod v2;

mod inflate;

#[cfg(fuzzing)]
pub mod fuzzing;

pub mod admin;
mod control;
pub mod status;
