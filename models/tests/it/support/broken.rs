//! A copy of a model folder, for changes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde_json::{Map, Value};

/// A tensor to be written to a file.
#[derive(Clone)]
pub struct Tensor {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

/// A copy of a folder of `tests/families`, removed when dropped.
pub struct Copy {
    folder: tempfile::TempDir,
}

impl Copy {
    pub fn of(family: &str) -> Copy {
        let folder = tempfile::tempdir().expect("a temporary folder");
        copy(&super::here("tests/families").join(family), folder.path());
        Copy { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.file(name)).expect(name);
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.file(name), bytes).expect(name);
    }

    /// Keeps the first `bytes` of a file.
    pub fn cut(&self, name: &str, bytes: usize) {
        let whole = std::fs::read(self.file(name)).expect(name);
        self.write(name, &whole[..bytes]);
    }

    /// Merges `changes` into a JSON file; null removes a key.
    pub fn json(&self, name: &str, changes: &str) {
        let text = std::fs::read(self.file(name)).expect(name);
        let mut json: Map<String, Value> = serde_json::from_slice(&text).expect(name);
        let changes: Map<String, Value> = serde_json::from_str(changes).expect("changes");
        json.extend(changes);
        json.retain(|_, value| !value.is_null());
        self.write(name, &serde_json::to_vec(&json).expect("json"));
    }

    /// Rewrites the weights.
    pub fn tensors(&self, change: impl FnOnce(&mut BTreeMap<String, Tensor>)) {
        let file = self.file("model.safetensors");
        let bytes = std::fs::read(&file).expect("model.safetensors");
        let mut tensors: BTreeMap<String, Tensor> = SafeTensors::deserialize(&bytes)
            .expect("model.safetensors")
            .tensors()
            .into_iter()
            .map(|(name, view)| {
                let (dtype, shape) = (view.dtype(), view.shape().to_vec());
                (
                    name,
                    Tensor {
                        dtype,
                        shape,
                        bytes: view.data().to_vec(),
                    },
                )
            })
            .collect();
        change(&mut tensors);
        let views = tensors.iter().map(|(name, tensor)| {
            (
                name,
                TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes).expect("a tensor"),
            )
        });
        serialize_to_file(views, None, &file).expect("model.safetensors");
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a model folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir(&target).expect("a folder");
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

impl Tensor {
    /// The values of an f32 tensor.
    pub fn values(&self) -> Vec<f32> {
        self.bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|&b| f32::from_le_bytes(b))
            .collect()
    }
}
