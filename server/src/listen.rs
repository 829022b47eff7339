//! Listeners: one kind of connection under every protocol, each within its bounds. Protocols never name a socket.

mod activity;
mod addresses;
mod connection;
mod descriptors;
mod listener;
mod serve;
mod stall;

pub mod http1;
pub mod http2;

pub use activity::RequestBody;
pub use connection::Peer;
pub use descriptors::{PortLimits, TooFewDescriptors, share_out};
pub use listener::BoundedListener;

use std::time::Duration;

/// Longest silence of a client that a shutdown waits for.
pub const DRAIN_SILENCE_MAX: Duration = Duration::from_secs(1);
