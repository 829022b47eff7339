//! Models: from a folder to a packed encoder with its tokenizer, pooling and head.
//!
//! [`locate`] finds the folder, [`inspect`] describes it, [`load`] makes it ready to run. The crate knows no
//! request, socket or metric.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod error;
mod files;
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
mod families;
mod heads;

mod check;
mod load;
mod model;
mod parity;

pub mod testing;

pub use device::Device;
pub use error::ModelError;
pub use families::Family;
pub use heads::{Classified, Form, Output, Problem, Task, Value, classified, embedded, normalize};
pub use load::{LoadOptions, Loaded, inspect, load, load_on};
pub use locate::locate;
pub use model::{Model, Pipelined};
pub use penstock_kernels::cuda::nvidia::probe;
pub use penstock_kernels::cuda::{Dtype, Unavailable};
pub use penstock_kernels::{Format, KernelError, Pooling, Precision, Sharing, Threads};
pub use spec::ModelSpec;
pub use tokenizer::{Prompt, PromptError, TextTokenizer, TokenizeError};
pub use versions::versions;
