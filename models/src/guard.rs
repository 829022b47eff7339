//! Other crates' readers of files, kept from ending the thread: what they panic on becomes an error.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::ModelError;

/// Runs a reader of `file` that indexes and unwraps what a broken or hostile file need not have. Its panic, which
/// the process's hook reports with its place, is then `malformed: reason`.
pub(crate) fn guard<T, E: Display>(
    file: &Path,
    reason: &str,
    read: impl FnOnce() -> Result<T, E>,
) -> Result<T, ModelError> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(read) => read.map_err(|e| ModelError::malformed(file, e)),
        Err(_) => Err(ModelError::malformed(file, reason)),
    }
}
