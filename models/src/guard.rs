//! A guard around file readers of other crates: their panic becomes an error.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::ModelError;

/// Runs a reader of `file` that may panic on a broken or hostile file. The process's hook reports the panic with
/// its place, and the caller gets a malformed file with `reason`.
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
