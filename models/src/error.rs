//! Why a model cannot be served: closed, each with the file, the thing, the value and what would be right.

use std::path::{Path, PathBuf};

/// What can be wrong with a model folder, or with a batch given to its model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Neither a folder nor something that reads as a Hugging Face id.
    #[error("{reference}: not a folder, and not a Hugging Face id of the form ORG/NAME or ORG/NAME@REVISION")]
    NotFound {
        /// What was given.
        reference: String,
    },
    /// A Hugging Face id that is neither cached nor could be downloaded.
    #[error("{id}: {file} is not in the cache {cache} and could not be downloaded: {reason}")]
    Download {
        /// The id, with its revision.
        id: String,
        /// The file that was asked for.
        file: String,
        /// The cache that was looked in.
        cache: PathBuf,
        /// Why the download failed.
        reason: String,
    },
    /// The folder lacks a file.
    #[error("{folder}: {missing} is missing")]
    MissingFile {
        /// The model folder.
        folder: PathBuf,
        /// What was looked for.
        missing: String,
    },
    /// A file that cannot be read.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file whose content is not what its name says: bad JSON, a cut safetensors file.
    #[error("{file}: {reason}")]
    Malformed {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// `model_type` names a family without a packed encoder.
    #[error("{file}: model_type \"{family}\" is not supported; supported are {supported}")]
    UnsupportedFamily {
        /// The file.
        file: PathBuf,
        /// What it names.
        family: String,
        /// All supported families.
        supported: String,
    },
    /// A setting of a known family that is not supported.
    #[error("{file}: {key} is {value}; supported: {supported}")]
    Unsupported {
        /// The file.
        file: PathBuf,
        /// The setting.
        key: String,
        /// Its value.
        value: String,
        /// What would work.
        supported: String,
    },
    /// The weights lack a tensor that the configuration promises.
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
    /// A tensor of another shape than the configuration promises.
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
    /// As many labels as the classifier has rows, or it is refused.
    #[error("{file}: config.json names {labels} labels, but {tensor} has {rows} rows")]
    LabelCount {
        /// The weights file.
        file: PathBuf,
        /// The classifier's weight.
        tensor: String,
        /// How many labels are named.
        labels: usize,
        /// How many rows the classifier has.
        rows: usize,
    },
    /// The tokenizer can make ids for which the embedding table has no row.
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
        /// What differs, by how much, and what is allowed.
        difference: String,
    },
    /// The loaded model's outputs point elsewhere than those of `parity.json`.
    #[error("{file}: the mean cosine with the outputs is {mean}, at least {mean_min} is needed")]
    Cosine {
        /// The parity file.
        file: PathBuf,
        /// Over all its texts.
        mean: f32,
        /// What it must be.
        mean_min: f32,
    },
    /// The loaded model names other labels than `parity.json` for too many texts.
    #[error("{file}: {others} of {cases} texts get another label, at least {share_min} must get the same")]
    Labels {
        /// The parity file.
        file: PathBuf,
        /// Texts with another label.
        others: usize,
        /// Texts in all.
        cases: usize,
        /// The share of texts whose label must be the same.
        share_min: f32,
    },
    /// A batch that the model cannot run: an id beyond the vocabulary, a text beyond the window.
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
