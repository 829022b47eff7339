//! One safetensors file: the header is in memory, the tensors stay in the file.

use std::io::Read;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use penstock_kernels::mapped::Mapped;
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::{Info, Values};
use crate::ModelError;

/// Largest header that the format allows. A greater length shows that the file is of another kind.
const HEADER_BYTES_MAX: u64 = 100_000_000;

pub(super) struct SafetensorsFile {
    path: PathBuf,
    data: std::fs::File,
    header: Metadata,
    /// Offset of the data.
    start: u64,
}

impl SafetensorsFile {
    pub(super) fn open(path: &Path) -> Result<SafetensorsFile, ModelError> {
        let io = |e| ModelError::io(path, e);
        let mut file = std::fs::File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        if length < 8 {
            let reason = format!("truncated: {length} bytes, less than the 8 of a header's length");
            return Err(ModelError::malformed(path, reason));
        }
        let mut word = [0; 8];
        file.read_exact(&mut word).map_err(io)?;
        let header_bytes = u64::from_le_bytes(word);
        if header_bytes > HEADER_BYTES_MAX {
            let reason = format!("not a safetensors file: a header of {header_bytes} bytes");
            return Err(ModelError::malformed(path, reason));
        }
        let start = 8 + header_bytes;
        if start > length {
            let reason = format!("truncated: the header ends at byte {start}, the file at {length}");
            return Err(ModelError::malformed(path, reason));
        }
        let mut text = vec![0; header_bytes as usize];
        file.read_exact(&mut text).map_err(io)?;
        let header: Metadata = serde_json::from_slice(&text)
            .map_err(|e| ModelError::malformed(path, format!("not a safetensors header: {e}")))?;
        let end = start + header.data_len() as u64;
        if end != length {
            let state = if length < end { "truncated" } else { "too long" };
            let reason = format!("{state}: the tensors end at byte {end}, the file at {length}");
            return Err(ModelError::malformed(path, reason));
        }
        Ok(SafetensorsFile {
            path: path.to_path_buf(),
            data: file,
            header,
            start,
        })
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    pub(super) fn info(&self, name: &str) -> Option<Info> {
        let info = self.header.info(name)?;
        Some(Info {
            dtype: format!("{:?}", info.dtype),
            shape: info.shape.clone(),
            floating: matches!(info.dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16),
        })
    }

    pub(super) fn read(&self, name: &str) -> Result<Values, ModelError> {
        let missing = || ModelError::malformed(&self.path, format!("tensor {name} is missing"));
        let info = self.header.info(name).ok_or_else(missing)?;
        let (from, to) = info.data_offsets;
        let mapped = || {
            Mapped::new(&self.data, self.start + from as u64, to - from)
                .map_err(|e| ModelError::io(&self.path, e))
        };
        Ok(match info.dtype {
            Dtype::F32 => match mapped()?.into_singles() {
                Ok(singles) => Values::Mapped(singles),
                Err(bytes) => decode(&bytes, f32::from_le_bytes),
            },
            Dtype::F16 => decode(&mapped()?, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => decode(&mapped()?, |b| bf16::from_le_bytes(b).to_f32()),
            other => {
                let key = format!("the type of tensor {name}");
                return Err(ModelError::unsupported(
                    &self.path,
                    &key,
                    format!("{other:?}"),
                    "F32, F16, BF16",
                ));
            }
        })
    }
}

fn decode<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32) -> Values {
    Values::Owned(bytes.as_chunks::<N>().0.iter().map(|&b| value(b)).collect())
}
