//! Files that sentence-transformers adds to a model: modules, pooling, prompts, settings of the encoder's module.

mod module;
mod pooling;
mod prompts;

use std::path::{Component, Path, PathBuf};

use penstock_kernels::Pooling;
use serde::Deserialize;

use crate::ModelError;
use crate::files::{read_json, read_object};

pub(crate) use module::{EncoderModule, FILES as MODULE_FILES};
use pooling::PoolingModule;
pub(crate) use prompts::Prompts;

/// One entry of `modules.json`.
#[derive(Deserialize)]
struct Module {
    #[serde(default)]
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

/// Settings of a sentence-transformers folder; a plain transformers folder has none.
#[derive(Debug)]
pub(crate) struct Sentence {
    /// Folder of the encoder: weights, configuration, tokenizer. Older releases put them into `0_Transformer`.
    pub encoder: PathBuf,
    /// Pooling of tokens to one vector; `None` where the folder has no pooling.
    pub pooling: Option<Pooling>,
    /// The file that says that the tokens of a prompt take no part in pooling.
    pub prompt_excluded: Option<PathBuf>,
    /// True where the vector is scaled to length one.
    pub normalize: bool,
    /// Settings of the encoder's module.
    pub module: EncoderModule,
    /// Texts that are put in front of a text.
    pub prompts: Prompts,
}

impl Sentence {
    /// Reads the files that `folder` has.
    pub fn read(folder: &Path) -> Result<Sentence, ModelError> {
        let file = folder.join("modules.json");
        let mut sentence = Sentence {
            encoder: folder.to_path_buf(),
            pooling: None,
            prompt_excluded: None,
            normalize: false,
            module: EncoderModule::default(),
            prompts: Prompts::read(folder)?,
        };
        match read_json::<Vec<Module>>(&file)? {
            Some(modules) => sentence.add(folder, &file, &modules)?,
            None => sentence.pool(&folder.join("1_Pooling/config.json"))?,
        }
        sentence.module = EncoderModule::read(&sentence.encoder)?;
        Ok(sentence)
    }

    fn add(&mut self, folder: &Path, file: &Path, modules: &[Module]) -> Result<(), ModelError> {
        for (at, module) in modules.iter().enumerate() {
            let path = inside(file, folder, &module.path)?;
            match class(module) {
                Some("Transformer") if at == 0 => self.encoder = path,
                Some("Dropout") => {}
                Some("Pooling") => {
                    let config = path.join("config.json");
                    self.pool(&config)?;
                    if self.pooling.is_none() {
                        return Err(ModelError::MissingFile {
                            folder: folder.to_path_buf(),
                            missing: format!("{}/config.json", module.path),
                        });
                    }
                }
                Some("Normalize") => {
                    self.normalize = true;
                    normalizes_the_sentence(&path.join("config.json"))?;
                }
                _ => {
                    let supported = "sentence_transformers' Transformer (first), Pooling, Dropout, Normalize";
                    return Err(ModelError::unsupported(file, "module", &module.kind, supported));
                }
            }
        }
        Ok(())
    }

    fn pool(&mut self, file: &Path) -> Result<(), ModelError> {
        if let Some(PoolingModule { mode, with_prompt }) = PoolingModule::read(file)? {
            self.pooling = Some(mode);
            self.prompt_excluded = (!with_prompt).then(|| file.to_path_buf());
        }
        Ok(())
    }
}

/// The folder of the encoder of a model in `folder`.
pub(crate) fn encoder_folder(folder: &Path) -> Result<PathBuf, ModelError> {
    let file = folder.join("modules.json");
    if !file.exists() {
        return Ok(folder.to_path_buf());
    }
    let paths = module_paths(&file)?;
    Ok(paths
        .first()
        .filter(|path| !path.is_empty())
        .map_or_else(|| folder.to_path_buf(), |path| folder.join(path)))
}

/// The folders that `file`, a `modules.json`, names, the encoder's first.
pub(crate) fn module_paths(file: &Path) -> Result<Vec<String>, ModelError> {
    let modules: Vec<Module> = read_json(file)?.unwrap_or_default();
    let folder = file.parent().unwrap_or(file);
    let checked = |module: Module| inside(file, folder, &module.path).map(|_| module.path);
    modules.into_iter().map(checked).collect()
}

/// The class of a module of sentence-transformers. Its place has changed between releases, its name has not; a class
/// of another package is code of the folder's own.
fn class(module: &Module) -> Option<&str> {
    let name = module.kind.strip_prefix("sentence_transformers.")?;
    name.rsplit('.').next()
}

/// The folder that `path` names in `folder`.
fn inside(file: &Path, folder: &Path, path: &str) -> Result<PathBuf, ModelError> {
    let plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if Path::new(path).components().all(plain) {
        return Ok(if path.is_empty() {
            folder.to_path_buf()
        } else {
            folder.join(path)
        });
    }
    Err(ModelError::malformed(
        file,
        format!("path \"{path}\" lies outside of the folder"),
    ))
}

/// Refuses a Normalize module that scales something else than the sentence's vector.
fn normalizes_the_sentence(file: &Path) -> Result<(), ModelError> {
    let config = read_object(file)?.unwrap_or_default();
    for key in ["module_input_name", "module_output_name"] {
        match config.get(key) {
            None | Some(serde_json::Value::Null) => {}
            Some(value) if value == "sentence_embedding" => {}
            Some(value) => return Err(ModelError::unsupported(file, key, value, "sentence_embedding")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
