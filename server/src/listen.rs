//! Listeners: one kind of connection under every protocol, each within its bounds. Protocols never name a socket.

mod connection;
mod listener;
mod serve;
mod stall;

pub mod http1;
pub mod http2;

pub use connection::Peer;
pub use listener::BoundedListener;
