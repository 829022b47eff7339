//! Packed operations of a transformer encoder: one trait, a processor that runs it, and the slow truth that tests it.
//!
//! A batch is never padded: the tokens of all its texts stand one after the other as the rows of one
//! matrix, and `cu_seqlens` (`[0, len₀, len₀+len₁, …]`) says where each text begins.

mod check;
pub mod cpu;
pub mod cuda;
pub mod dispatch;
pub mod ops;
pub mod precision;
pub mod reference;

pub use cpu::{Cpu, Threads};
pub use dispatch::Path;
pub use ops::{
    Activation, Embedding, KernelError, Norm, Ops, Pooling, Priority, Sharing, Tokens, relative_bias,
};
pub use precision::{Format, Precision};
