//! Tensors by name, from safetensors or `PyTorch`'s pickle, as f32 in the shape that the caller expects.
//!
//! A tensor is read when it is packed and dropped afterwards. So a model is never in memory twice, and its file is not
//! held while it serves. A file that is shortened meanwhile gives an error.

mod pickle;
mod safetensors;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use self::pickle::PickleFile;
use self::safetensors::SafetensorsFile;
use crate::files::read_json;
use crate::locate::WEIGHTS;
use crate::{Family, ModelError};

/// Table that every encoder of these families has; the part before its name is the prefix of all tensors.
const ANCHOR: &str = "embeddings.word_embeddings.weight";

/// The tensors of a model folder.
pub(crate) struct Weights {
    family: Family,
    /// File for messages: the weights, or their index.
    file: PathBuf,
    files: Vec<Storage>,
    /// Index of the file that holds each tensor.
    tensors: HashMap<String, usize>,
    /// Prefix of every tensor of the encoder: `bert.`, nothing, or the prefix of another program.
    encoder: String,
    /// Prefix of every tensor outside the encoder.
    outer: String,
    /// Read zeros in place of the values.
    shapes_only: bool,
}

/// One opened file.
enum Storage {
    Safetensors(SafetensorsFile),
    Pickle(PickleFile),
}

/// Description of a tensor, known without reading it.
pub(crate) struct Info {
    /// Stored type, as safetensors names it.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// False for indices and masks, which are not weights.
    pub floating: bool,
}

/// The values of a tensor, row-major.
pub(crate) type Values = Vec<f32>;

impl Storage {
    fn open(file: &Path, allow_pickle: bool) -> Result<Storage, ModelError> {
        if file.extension().is_none_or(|e| e != "bin") {
            return Ok(Storage::Safetensors(SafetensorsFile::open(file)?));
        }
        if !allow_pickle {
            let reason = "weights in a pickle are not read; convert them to model.safetensors, or trust this file: \
                          allow_pickle = true under [[model]], or --allow-pickle";
            return Err(ModelError::malformed(file, reason));
        }
        Ok(Storage::Pickle(PickleFile::open(file)?))
    }

    fn names(&self) -> Vec<String> {
        match self {
            Storage::Safetensors(f) => f.names(),
            Storage::Pickle(f) => f.names(),
        }
    }

    fn info(&self, name: &str) -> Option<Info> {
        match self {
            Storage::Safetensors(f) => f.info(name),
            Storage::Pickle(f) => f.info(name),
        }
    }

    /// Refuses a stored type that cannot be read.
    fn check_type(&self, name: &str) -> Result<(), ModelError> {
        match self {
            Storage::Safetensors(f) => f.check_type(name),
            // Every type is converted.
            Storage::Pickle(_) => Ok(()),
        }
    }

    fn read(&self, name: &str) -> Result<Values, ModelError> {
        match self {
            Storage::Safetensors(f) => f.read(name),
            Storage::Pickle(f) => f.read(name),
        }
    }
}

impl Weights {
    /// Opens the weights in `folder`, in the first known form; an index is followed to its shards.
    pub fn open(folder: &Path, family: Family, allow_pickle: bool) -> Result<Weights, ModelError> {
        let file = WEIGHTS.iter().map(|w| folder.join(w)).find(|f| f.exists());
        let file = file.ok_or_else(|| ModelError::MissingFile {
            folder: folder.to_path_buf(),
            missing: WEIGHTS.join(" or "),
        })?;
        let names = if file.extension().is_some_and(|e| e == "json") {
            shards(&file)?.iter().map(|s| folder.join(s)).collect()
        } else {
            vec![file.clone()]
        };
        let mut files = Vec::with_capacity(names.len());
        let mut tensors = HashMap::new();
        for (at, name) in names.iter().enumerate() {
            let opened = Storage::open(name, allow_pickle)?;
            tensors.extend(opened.names().into_iter().map(|tensor| (tensor, at)));
            files.push(opened);
        }
        let (encoder, outer) = prefixes(tensors.keys(), family);
        Ok(Weights {
            family,
            file,
            files,
            tensors,
            encoder,
            outer,
            shapes_only: false,
        })
    }

    /// The same weights, all of them zero: their names, shapes and types are still checked.
    pub fn shapes_only(self) -> Weights {
        Weights {
            shapes_only: true,
            ..self
        }
    }

    /// File for messages about the weights.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Number of weights for each stored type.
    pub fn dtypes(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for (name, &at) in &self.tensors {
            if let Some(info) = self.files[at].info(name).filter(|i| i.floating) {
                *counts.entry(info.dtype).or_insert(0) +=
                    info.shape.iter().map(|&d| d as u64).product::<u64>();
            }
        }
        counts
    }

    /// The full name of a tensor of the encoder.
    pub fn encoder(&self, name: &str) -> String {
        format!("{}{name}", self.encoder)
    }

    /// The full name of a tensor outside the encoder.
    pub fn outer(&self, name: &str) -> String {
        format!("{}{name}", self.outer)
    }

    /// The shape of `name`, where it exists.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let (at, name) = self.find(name)?;
        self.files[at].info(&name).map(|i| i.shape)
    }

    /// The values of `name`, row-major, if it has the shape `expected`.
    pub fn read(&self, name: &str, expected: &[usize]) -> Result<Values, ModelError> {
        let found = self
            .find(name)
            .and_then(|(at, name)| Some((at, self.files[at].info(&name)?, name)));
        let (at, info, stored) = found.ok_or_else(|| ModelError::MissingTensor {
            file: self.file.clone(),
            tensor: name.to_owned(),
            family: self.family.name(),
            shape: expected.to_vec(),
        })?;
        if info.shape != expected {
            return Err(ModelError::Shape {
                file: self.file.clone(),
                tensor: stored,
                found: info.shape,
                expected: expected.to_vec(),
            });
        }
        if self.shapes_only {
            self.files[at].check_type(&stored)?;
            return Ok(vec![0.0; expected.iter().product()]);
        }
        self.files[at].read(&stored)
    }

    /// File and stored name of `name`, also under the names that TensorFlow gave to the two halves of a norm.
    fn find(&self, name: &str) -> Option<(usize, String)> {
        let old = name
            .strip_suffix("LayerNorm.weight")
            .map(|start| format!("{start}LayerNorm.gamma"));
        let old = old.or_else(|| {
            name.strip_suffix("LayerNorm.bias")
                .map(|s| format!("{s}LayerNorm.beta"))
        });
        [Some(name.to_owned()), old]
            .into_iter()
            .flatten()
            .find_map(|n| Some((*self.tensors.get(&n)?, n)))
    }
}

/// The prefixes of the tensors of the encoder and of those outside it.
fn prefixes<'a>(names: impl Iterator<Item = &'a String>, family: Family) -> (String, String) {
    let own = family.names().prefix;
    // A file with two encoders has more than one anchor. The one named after the family is meant.
    let encoder = names
        .filter_map(|name| name.strip_suffix(ANCHOR))
        .min_by_key(|prefix| (!prefix.ends_with(own), prefix.len()))
        .unwrap_or(own)
        .to_owned();
    let outer = encoder.strip_suffix(own).unwrap_or(&encoder).to_owned();
    (encoder, outer)
}

/// The files that the index `file` names, each once, in the order of their names.
pub(crate) fn shards(file: &Path) -> Result<Vec<String>, ModelError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let index: Option<Index> = read_json(file)?;
    let index = index.ok_or_else(|| ModelError::malformed(file, "the file does not exist"))?;
    let mut names: Vec<String> = index.weight_map.into_values().collect();
    names.sort_unstable();
    names.dedup();
    match names
        .iter()
        .find(|n| Path::new(n).components().count() != 1 || n.contains(".."))
    {
        Some(name) => Err(ModelError::malformed(
            file,
            format!("shard \"{name}\" lies outside of the folder"),
        )),
        None => Ok(names),
    }
}
