//! One `pytorch_model.bin`, through candle's pickle reader, which reads the data and executes nothing.

mod scan;

use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use candle_core::DType;
use candle_core::pickle::PthTensors;
use zip::ZipArchive;

use super::{Info, Values};
use crate::guard::guard;
use crate::{ModelError, files};

/// Message for a panic of the reader, which indexes a pickle's tuples without checking their length.
const TOO_SHORT: &str = "not a PyTorch state dict: a record is too short";

/// Largest pickle in the file. It describes the tensors, whose values lie beside it: a large model has some 100 KB.
const PICKLE_BYTES_MAX: u64 = 16 << 20;

pub(super) struct PickleFile {
    path: PathBuf,
    tensors: PthTensors,
}

impl PickleFile {
    pub(super) fn open(path: &Path) -> Result<PickleFile, ModelError> {
        check(path)?;
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
        guard(&self.path, TOO_SHORT, || {
            tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
        })
    }
}

/// Refuses a file whose pickles would take too much memory to read.
fn check(path: &Path) -> Result<(), ModelError> {
    let missing = || ModelError::malformed(path, "the file does not exist");
    let (file, _) = files::open(path)?.ok_or_else(missing)?;
    let mut archive = guard(path, TOO_SHORT, || ZipArchive::new(BufReader::new(file)))?;
    for at in 0..archive.len() {
        let entry = guard(path, TOO_SHORT, || archive.by_index(at))?;
        if entry.name().is_ok_and(|name| !name.ends_with("data.pkl")) {
            continue;
        }
        let mut pickle = Vec::new();
        let read = entry.take(PICKLE_BYTES_MAX + 1).read_to_end(&mut pickle);
        read.map_err(|e| ModelError::io(path, e))?;
        if pickle.len() as u64 > PICKLE_BYTES_MAX {
            let reason = format!("data.pkl has more than the {PICKLE_BYTES_MAX} bytes that are read");
            return Err(ModelError::malformed(path, reason));
        }
        let scanned = scan::scan(&pickle);
        scanned.map_err(|reason| ModelError::malformed(path, format!("data.pkl: {reason}")))?;
    }
    Ok(())
}
