//! The v2 protocol (KServe, Triton), as gRPC and HTTP share it: requests and answers without wire types.

pub mod description;
pub mod request;
pub mod response;

mod parameters;
pub(crate) mod token_ids;
