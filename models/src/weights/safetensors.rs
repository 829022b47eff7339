//! One safetensors file: the header is in memory, the tensors stay in the file.

use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::{Info, Values};
use crate::{ModelError, files};

/// Bytes that are read at a time and then converted, which stay in the processor's cache.
const CHUNK_BYTES: usize = 128 << 10;

/// Largest header that is read, with room for 200,000 tensors. A greater length shows that the file is of another kind.
const HEADER_BYTES_MAX: u64 = 16 << 20;

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
        let missing = || ModelError::malformed(path, "the file does not exist");
        let (mut file, length) = files::open(path)?.ok_or_else(missing)?;
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
        let info = self.find(name)?;
        match info.dtype {
            Dtype::F32 => self.values(info.data_offsets, f32::from_le_bytes),
            Dtype::F16 => self.values(info.data_offsets, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => self.values(info.data_offsets, |b| bf16::from_le_bytes(b).to_f32()),
            other => Err(self.unsupported(name, other)),
        }
    }

    pub(super) fn check_type(&self, name: &str) -> Result<(), ModelError> {
        match self.find(name)?.dtype {
            Dtype::F32 | Dtype::F16 | Dtype::BF16 => Ok(()),
            other => Err(self.unsupported(name, other)),
        }
    }

    fn find(&self, name: &str) -> Result<&TensorInfo, ModelError> {
        let missing = || ModelError::malformed(&self.path, format!("tensor {name} is missing"));
        self.header.info(name).ok_or_else(missing)
    }

    fn unsupported(&self, name: &str, dtype: Dtype) -> ModelError {
        let key = format!("the type of tensor {name}");
        ModelError::unsupported(&self.path, &key, format!("{dtype:?}"), "F32, F16, BF16")
    }

    /// The values between two offsets of the data. They are read, not mapped: a mapped file that somebody shortens in
    /// place ends the process by a signal, while a read gives an error.
    fn values<const N: usize>(
        &self,
        (from, to): (usize, usize),
        value: impl Fn([u8; N]) -> f32,
    ) -> Result<Values, ModelError> {
        let mut values = Vec::with_capacity((to - from) / N);
        let mut chunk = vec![0; CHUNK_BYTES.min(to - from)];
        let mut at = from;
        while at < to {
            let part = &mut chunk[..CHUNK_BYTES.min(to - at)];
            let read = self.data.read_exact_at(part, self.start + at as u64);
            read.map_err(|e| match e.kind() {
                ErrorKind::UnexpectedEof => {
                    let end = self.start + to as u64;
                    let reason = format!("truncated since it was opened: a tensor ends at byte {end}");
                    ModelError::malformed(&self.path, reason)
                }
                _ => ModelError::io(&self.path, e),
            })?;
            values.extend(part.as_chunks::<N>().0.iter().map(|&bytes| value(bytes)));
            at += part.len();
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_cut_after_it_was_opened_gives_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let bytes: Vec<u8> = (0..100_000_u32)
            .flat_map(|value| (value as f32).to_le_bytes())
            .collect();
        let view = safetensors::tensor::TensorView::new(Dtype::F32, vec![100_000], &bytes).unwrap();
        safetensors::serialize_to_file([("values", view)], None, &path).unwrap();
        let opened = SafetensorsFile::open(&path).unwrap();
        let values = opened.read("values").unwrap();
        let expected: Vec<f32> = (0..100_000_u32).map(|value| value as f32).collect();
        assert_eq!(values, expected);
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(200_000).unwrap();
        let message = opened.read("values").unwrap_err().to_string();
        assert!(
            message.contains("model.safetensors: truncated since it was opened: a tensor ends at byte"),
            "{message}"
        );
    }
}
