//! Listeners: one kind of connection under every protocol, each within its bounds. Protocols never name a socket.

mod activity;
mod addresses;
mod answers;
mod connection;
mod descriptors;
mod heads;
mod listener;
mod memory;
mod progress;
mod serve;
mod stall;

pub mod http1;
pub mod http2;

pub use activity::RequestBody;
pub use answers::AnswerMemory;
pub use connection::Peer;
pub use descriptors::{PortLimits, TooFewDescriptors, share_out};
pub use listener::BoundedListener;
pub use memory::{ConnectionBytes, ConnectionMemory, ReceiveMemory, ReceiveShare};
pub use progress::{Pace, RequestProgress};

use std::time::Duration;

/// Longest silence of a client that a shutdown waits for.
pub const DRAIN_SILENCE_MAX: Duration = Duration::from_secs(1);
