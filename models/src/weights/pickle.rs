//! One `pytorch_model.bin`, through candle's pickle reader, which reads the data and executes nothing.

use std::path::{Path, PathBuf};

use candle_core::DType;
use candle_core::pickle::PthTensors;

use super::{Info, Values};
use crate::ModelError;
use crate::guard::guard;

/// Message for a panic of the reader, which indexes a pickle's tuples without checking their length.
const TOO_SHORT: &str = "not a PyTorch state dict: a record is too short";

pub(super) struct PickleFile {
    path: PathBuf,
    tensors: PthTensors,
}

impl PickleFile {
    pub(super) fn open(path: &Path) -> Result<PickleFile, ModelError> {
        let tensors = guard(path, TOO_SHORT, || PthTensors::new(path, None))?;
        if tensors.tensor_infos().is_empty() {
            return Err(ModelError::malformed(
                path,
                "not a PyTorch state dict: no tensor found",
            ));
        }
        Ok(PickleFile {
            path: path.to_path_buf(),
            tensors,
        })
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.tensors.tensor_infos().keys().cloned().collect()
    }

    pub(super) fn info(&self, name: &str) -> Option<Info> {
        let info = self.tensors.tensor_infos().get(name)?;
        let floating = matches!(info.dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16);
        Some(Info {
            dtype: info.dtype.as_str().to_uppercase(),
            shape: info.layout.shape().dims().to_vec(),
            floating,
        })
    }

    pub(super) fn read(&self, name: &str) -> Result<Values, ModelError> {
        let tensor = guard(&self.path, TOO_SHORT, || self.tensors.get(name))?;
        let tensor =
            tensor.ok_or_else(|| ModelError::malformed(&self.path, format!("tensor {name} is missing")))?;
        let values = guard(&self.path, TOO_SHORT, || {
            tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
        });
        values.map(Values::Owned)
    }
}
