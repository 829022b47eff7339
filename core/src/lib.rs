//! The decisions of Penstock: what is admitted, what is batched, what is too late, what it will cost,
//! how much of a stream may be inside, and what of it may be committed.
//!
//! Nothing in here has a thread, a socket, a clock or a device. Every decision is told the time and
//! hands back what to do, so that a run can be replayed from a seed (`tests/simulation.rs`).

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod admission;
pub mod assignment;
pub mod batch;
pub mod batcher;
pub mod cost;
pub mod failure;
pub mod in_flight;
pub mod lifecycle;
pub mod offsets;
pub mod pace;
pub mod policy;
pub mod reply;
pub mod request;
#[cfg(test)]
mod testing;
pub mod throughput;
pub mod turns;

pub use admission::{Admission, AdmissionBounds, Permit};
pub use assignment::{Assignment, Epoch, position_after_going_back};
pub use batch::{Batch, BatchShape, PackedTokens};
pub use batcher::{Batcher, Lowered, Poll};
pub use cost::CostModel;
pub use failure::{Failure, Rescued, rescue};
pub use in_flight::{BoundsError, Flow, InFlight, InFlightBounds};
pub use lifecycle::{Load, LoadId, ModelLifecycle, ServerState, TransitionError, VersionState};
pub use offsets::{OffsetError, OffsetTracker};
pub use pace::Pace;
pub use policy::{BatchPolicy, PolicyError};
pub use reply::{Outcome, Rejection, Reply, Responder, Retry, Sink, Stages};
pub use request::{Class, Nanos, Request, TokenIds};
pub use throughput::Throughput;
pub use turns::Turns;
