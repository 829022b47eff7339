//! The decisions of Penstock. [`batching`] decides about texts: admission, batches, deadlines, cost.
//! [`stream`] decides about records: how many are in flight, and which offsets are safe to commit.
//! [`lifecycle`] decides which versions of a model serve.
//!
//! Nothing in here has a thread, a socket, a clock or a device. Every decision is told the time and
//! hands back what to do, so that a run can be replayed from a seed (`tests/simulation.rs`).

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod batching;
pub mod lifecycle;
pub mod stream;
#[cfg(test)]
mod testing;
pub mod time;

pub use batching::admission::{Admission, AdmissionBounds, Permit};
pub use batching::batch::{Batch, BatchShape, PackedTokens};
pub use batching::batcher::{Batcher, Lowered, Poll};
pub use batching::context::{RequestContext, Source};
pub use batching::cost::CostModel;
pub use batching::dispatch::LeastLoaded;
pub use batching::failure::{Failure, Rescued, rescue};
pub use batching::policy::{BatchPolicy, PolicyError};
pub use batching::reply::{Outcome, Rejection, Reply, Responder, Retry, Sink, Stages};
pub use batching::request::{Class, Request, TokenIds};
pub use lifecycle::{Load, LoadId, ModelLifecycle, ServerState, TransitionError, VersionState};
pub use stream::assignment::{Assignment, Epoch, position_after_going_back};
pub use stream::in_flight::{BoundsError, Flow, InFlight, InFlightBounds};
pub use stream::offsets::{OffsetError, OffsetTracker};
pub use stream::read_ahead::ReadAhead;
pub use stream::throughput::{self, Throughput};
pub use time::Nanos;
