//! Connections of both listeners.

mod accept;

pub mod grpc {
    //! HTTP/2 connections.
    use crate::grpc::inbound;

    pub mod connection;
}
pub mod http {
    //! HTTP/1.1 connections.
    pub mod connection;
    mod stall;
}

