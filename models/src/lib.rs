//! Models: from a folder to a packed encoder with its tokenizer, pooling and head.
//!
//! [`locate`] finds the folder, [`inspect`] describes it, [`load`] makes it ready to run. The crate knows no
//! request, socket or metric.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod error;
mod guard;
mod spec;

mod locate;
mod versions;

mod config;
mod device;
mod sentence;
mod tokenizer;
mod weights;

mod encoder;
mod head;
mod pooling;

mod load;
mod model;
mod parity;
mod registry;

pub use device::Device;
pub use error::ModelError;
pub use load::{LoadOptions, Loaded, inspect, load, load_on};
pub use locate::locate;
pub use model::{Model, Pipelined};
pub use penstock_kernels::cuda::nvidia::probe;
pub use penstock_kernels::cuda::{Dtype, Unavailable};
pub use penstock_kernels::{Format, KernelError, Pooling, Precision, Sharing, Threads};
pub use pooling::normalize;
pub use registry::Family;
pub use spec::{ModelSpec, Problem, Task};
pub use tokenizer::{TextTokenizer, TokenizeError};
pub use versions::versions;
