//! Location of a model folder: a path, or a Hugging Face id in the local cache.

use std::path::{Path, PathBuf};

use hf_hub::api::sync::ApiBuilder;
use hf_hub::{Cache, Repo, RepoType};

use crate::ModelError;
use crate::sentence::{MODULE_FILES, encoder_folder, module_paths};

/// Optional files of an encoder, read where they exist, besides those of its sentence-transformers module.
const ENCODER: [&str; 6] = [
    "tokenizer.json",
    "vocab.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "adapter_config.json",
];

/// Optional files of a model beside its encoder.
const MODEL: [&str; 2] = ["config_sentence_transformers.json", "parity.json"];

/// Weight files in the order in which they are preferred. An index is followed to its shards.
pub(crate) const WEIGHTS: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// The folder behind `reference`: a folder as it is, or a Hugging Face id `ORG/NAME[@REVISION]`.
///
/// A cached id is used as it is, from `HF_HUB_CACHE`, `HF_HOME` or the default cache, so a start without
/// network works. Missing files are downloaded unless `HF_HUB_OFFLINE` is set. `HF_ENDPOINT` and `HF_TOKEN`
/// are honoured. Weights in a pickle are neither looked for nor downloaded unless `allow_pickle` is set.
pub fn locate(reference: &str, allow_pickle: bool) -> Result<PathBuf, ModelError> {
    let hub = Hub {
        allow_pickle,
        cache: cache_folder(&|name| std::env::var(name).ok()),
        endpoint: std::env::var("HF_ENDPOINT").ok(),
        token: std::env::var("HF_TOKEN").ok(),
        offline: is_on(std::env::var("HF_HUB_OFFLINE").ok().as_deref()),
    };
    hub.locate(reference)
}

/// True for a switch that `huggingface_hub` reads as on.
fn is_on(value: Option<&str>) -> bool {
    value.is_some_and(|v| matches!(v.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"))
}

/// The cache of `huggingface_hub`, from the same variables in the same order.
fn cache_folder(env: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    if let Some(cache) = env("HF_HUB_CACHE") {
        return PathBuf::from(cache);
    }
    let home = env("HF_HOME").map_or_else(
        || {
            let caches = env("XDG_CACHE_HOME").map(PathBuf::from);
            let caches =
                caches.unwrap_or_else(|| PathBuf::from(env("HOME").unwrap_or_default()).join(".cache"));
            caches.join("huggingface")
        },
        PathBuf::from,
    );
    home.join("hub")
}

struct Hub {
    cache: PathBuf,
    endpoint: Option<String>,
    token: Option<String>,
    offline: bool,
    allow_pickle: bool,
}

impl Hub {
    fn locate(&self, reference: &str) -> Result<PathBuf, ModelError> {
        let folder = Path::new(reference);
        if folder.is_dir() {
            return Ok(folder.to_path_buf());
        }
        let not_found = || ModelError::NotFound {
            reference: reference.to_owned(),
        };
        let (id, revision) = reference.split_once('@').unwrap_or((reference, "main"));
        if !is_hub_id(id) || !is_revision(revision) {
            return Err(not_found());
        }
        if let Some(folder) = self.cached(id, revision) {
            return Ok(folder);
        }
        self.download(id, revision)
    }

    /// The snapshot of `id` at `revision` (a branch, a tag or a commit); `None` where it is too incomplete to
    /// be loaded.
    fn cached(&self, id: &str, revision: &str) -> Option<PathBuf> {
        let repo = self.cache.join(format!("models--{}", id.replace('/', "--")));
        let commit = std::fs::read_to_string(repo.join("refs").join(revision));
        let commit = commit.map_or_else(|_| revision.to_owned(), |c| c.trim().to_owned());
        let folder = repo.join("snapshots").join(commit);
        let encoder = encoder_folder(&folder).ok()?;
        let has = |name: &str| encoder.join(name).exists();
        // An interrupted download may have left an index without its shards.
        let whole = |weights: &&str| {
            has(weights)
                && (!weights.ends_with(".index.json")
                    || crate::weights::shards(&encoder.join(weights))
                        .is_ok_and(|shards| shards.iter().all(|shard| has(shard))))
        };
        (has("config.json") && WEIGHTS.iter().any(whole) && (has("tokenizer.json") || has("vocab.txt")))
            .then_some(folder)
    }

    fn download(&self, id: &str, revision: &str) -> Result<PathBuf, ModelError> {
        let failed = |file: &str, reason: &dyn std::fmt::Display| ModelError::Download {
            id: format!("{id}@{revision}"),
            file: file.to_owned(),
            cache: self.cache.clone(),
            reason: reason.to_string(),
        };
        if self.offline {
            return Err(failed("config.json", &"HF_HUB_OFFLINE is set"));
        }
        let mut builder = ApiBuilder::from_cache(Cache::new(self.cache.clone()))
            .with_progress(false)
            .with_retries(2);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        if let Some(token) = &self.token {
            builder = builder.with_token(Some(token.clone()));
        }
        let api = builder.build().map_err(|e| failed("config.json", &e))?;
        let repo = api.repo(Repo::with_revision(
            id.to_owned(),
            RepoType::Model,
            revision.to_owned(),
        ));
        let listing = repo.info().map_err(|e| failed("the list of files", &e))?;
        let names: Vec<&str> = listing.siblings.iter().map(|s| s.rfilename.as_str()).collect();

        let remote = Remote {
            names,
            allow_pickle: self.allow_pickle,
            get: &|file| repo.get(file).map_err(|e| failed(file, &e)),
            failed: &|file, reason| failed(file, &reason),
        };
        remote.fetch()
    }
}

/// Files of a model on the hub.
struct Remote<'a> {
    names: Vec<&'a str>,
    allow_pickle: bool,
    /// Downloads a file and returns its path in the cache.
    get: &'a dyn Fn(&str) -> Result<PathBuf, ModelError>,
    failed: &'a dyn Fn(&str, &str) -> ModelError,
}

impl Remote<'_> {
    fn optional(&self, file: &str) -> Result<(), ModelError> {
        if self.names.contains(&file) {
            (self.get)(file)?;
        }
        Ok(())
    }

    /// Downloads the files that the model needs and returns their folder in the cache.
    fn fetch(&self) -> Result<PathBuf, ModelError> {
        // The modules say where the encoder lies, in a folder of its own or at the top.
        let mut modules = vec![String::new(), "1_Pooling".to_owned()];
        if self.names.contains(&"modules.json") {
            modules = module_paths(&(self.get)("modules.json")?)?;
        }
        let folder = match modules.first().map(String::as_str) {
            None | Some("") => String::new(),
            Some(path) => format!("{path}/"),
        };
        let weights = format!("{folder}{}", self.weights(&folder)?);
        let config = (self.get)(&format!("{folder}config.json"))?;
        for file in ENCODER.iter().chain(&MODULE_FILES) {
            self.optional(&format!("{folder}{file}"))?;
        }
        for path in modules.iter().skip(1).filter(|path| !path.is_empty()) {
            self.optional(&format!("{path}/config.json"))?;
        }
        for file in MODEL {
            self.optional(file)?;
        }
        let weights_path = (self.get)(&weights)?;
        if weights.ends_with(".index.json") {
            for shard in crate::weights::shards(&weights_path)? {
                (self.get)(&format!("{folder}{shard}"))?;
            }
        }
        let top = config
            .ancestors()
            .nth(Path::new(&folder).components().count() + 1);
        top.map(Path::to_path_buf)
            .ok_or_else(|| (self.failed)("config.json", "it has no folder"))
    }

    /// The weights in `folder` that are preferred.
    fn weights(&self, folder: &str) -> Result<&'static str, ModelError> {
        let allowed = |w: &&&str| self.allow_pickle || !w.starts_with("pytorch_model");
        let is_there = |w: &&&str| self.names.contains(&format!("{folder}{w}").as_str());
        let found = WEIGHTS.iter().filter(allowed).find(is_there);
        found.copied().ok_or_else(|| {
            let reason = if self.allow_pickle {
                "the model has no weights in a known form"
            } else {
                "the model has no such weights; those in a pytorch_model.bin are read with --allow-pickle, \
                 or allow_pickle = true under [[model]]"
            };
            (self.failed)(&format!("{folder}{}", WEIGHTS[0]), reason)
        })
    }
}

/// True for `NAME` or `ORG/NAME` in the characters that the hub allows, so that no path passes for an id.
fn is_hub_id(id: &str) -> bool {
    let part = |p: &str| {
        !p.is_empty()
            && !p.starts_with('.')
            && p.len() <= 96
            && p.bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    let parts: Vec<&str> = id.split('/').collect();
    parts.len() <= 2 && parts.iter().all(|p| part(p))
}

/// True for a branch, a tag or a commit that cannot lead out of the cache.
fn is_revision(revision: &str) -> bool {
    !revision.is_empty()
        && !revision.starts_with('/')
        && !revision.split('/').any(|p| p.is_empty() || p == "..")
}

#[cfg(test)]
mod tests;
