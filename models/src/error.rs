//! Reasons why a model cannot be served. Each names the file, the setting, its value and the right value.

use std::path::{Path, PathBuf};

/// Error of a model folder, or of a batch that is given to its model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The reference is neither a folder nor a Hugging Face id.
    #[error("{reference}: not a folder, and not a Hugging Face id of the form ORG/NAME or ORG/NAME@REVISION")]
    NotFound {
        /// The reference as given.
        reference: String,
    },
    /// The Hugging Face id is not cached and could not be downloaded.
    #[error("{id}: {file} is not in the cache {cache} and could not be downloaded: {reason}")]
    Download {
        /// The id, with its revision.
        id: String,
        /// The requested file.
        file: String,
        /// The searched cache.
        cache: PathBuf,
        /// Reason of the failed download.
        reason: String,
    },
    /// The folder lacks a file.
    #[error("{folder}: {missing} is missing")]
    MissingFile {
        /// The model folder.
        folder: PathBuf,
        /// The missing file.
        missing: String,
    },
    /// The file cannot be read.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The content of a file does not fit its name: bad JSON, a truncated safetensors file.
    #[error("{file}: {reason}")]
    Malformed {
        /// The file.
        file: PathBuf,
        /// The fault.
        reason: String,
    },
    /// `model_type` names a family without a packed encoder.
    #[error("{file}: model_type \"{family}\" is not supported; supported are {supported}")]
    UnsupportedFamily {
        /// The file.
        file: PathBuf,
        /// The family it names.
        family: String,
        /// All supported families.
        supported: String,
    },
    /// A known family has a setting that is not supported.
    #[error("{file}: {key} is {value}; supported: {supported}")]
    Unsupported {
        /// The file.
        file: PathBuf,
        /// The setting.
        key: String,
        /// Its value.
        value: String,
        /// The supported values.
        supported: String,
    },
    /// The weights lack a tensor that the configuration implies.
    #[error("{file}: tensor {tensor} is missing; {family} needs it with shape {shape:?}")]
    MissingTensor {
        /// The weights file.
        file: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The model's family.
        family: &'static str,
        /// The shape it should have.
        shape: Vec<usize>,
    },
    /// A tensor has another shape than the configuration implies.
    #[error("{file}: tensor {tensor} has shape {found:?}; config.json makes it {expected:?}")]
    Shape {
        /// The weights file.
        file: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// Its shape in the file.
        found: Vec<usize>,
        /// The shape that the configuration implies.
        expected: Vec<usize>,
    },
    /// The number of labels differs from the rows of the classifier.
    #[error("{file}: config.json names {labels} labels, but {tensor} has {rows} rows")]
    LabelCount {
        /// The weights file.
        file: PathBuf,
        /// The classifier's weight.
        tensor: String,
        /// Number of labels in the configuration.
        labels: usize,
        /// Rows of the classifier.
        rows: usize,
    },
    /// The tokenizer can produce ids for which the embedding table has no row.
    #[error("{file}: token \"{token}\" has id {id}, but the embedding table has {rows} rows")]
    Vocabulary {
        /// The tokenizer's file.
        file: PathBuf,
        /// The token with the largest id.
        token: String,
        /// Its id.
        id: u32,
        /// Rows of the embedding table.
        rows: usize,
    },
    /// The loaded model does not reproduce `parity.json`.
    #[error("{file}: case {case}: {difference}")]
    Parity {
        /// The parity file.
        file: PathBuf,
        /// Index of the case.
        case: usize,
        /// The difference, and the tolerance.
        difference: String,
    },
    /// The outputs of the loaded model differ in direction from those of `parity.json`.
    #[error("{file}: the mean cosine with the outputs is {mean}, at least {mean_min} is needed")]
    Cosine {
        /// The parity file.
        file: PathBuf,
        /// Mean cosine over all texts.
        mean: f32,
        /// The least mean that is accepted.
        mean_min: f32,
    },
    /// The loaded model gives too many texts another label than `parity.json`.
    #[error("{file}: {others} of {cases} texts get another label, at least {share_min} must get the same")]
    Labels {
        /// The parity file.
        file: PathBuf,
        /// Texts with another label.
        others: usize,
        /// Number of all texts.
        cases: usize,
        /// The share of texts whose label must be the same.
        share_min: f32,
    },
    /// The model cannot run the batch: an id is beyond the vocabulary, or a text beyond the window.
    #[error("{0}")]
    Batch(String),
    /// A packed operation refused its operands.
    #[error(transparent)]
    Kernel(#[from] penstock_kernels::KernelError),
}

impl ModelError {
    pub(crate) fn io(file: &Path, source: std::io::Error) -> ModelError {
        ModelError::Io {
            file: file.to_path_buf(),
            source,
        }
    }

    pub(crate) fn malformed(file: &Path, reason: impl std::fmt::Display) -> ModelError {
        ModelError::Malformed {
            file: file.to_path_buf(),
            reason: reason.to_string(),
        }
    }

    pub(crate) fn unsupported(
        file: &Path,
        key: &str,
        value: impl std::fmt::Display,
        supported: &str,
    ) -> ModelError {
        ModelError::Unsupported {
            file: file.to_path_buf(),
            key: key.to_owned(),
            value: value.to_string(),
            supported: supported.to_owned(),
        }
    }
}
