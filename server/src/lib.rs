//! server

pub mod config;

pub mod clock;
pub mod metrics;
