//! Files that sentence-transformers adds to `config.json`: modules, pooling, the longest text.

use std::path::{Path, PathBuf};

use penstock_kernels::Pooling;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::ModelError;
use crate::config::read_json;

/// One entry of `modules.json`.
#[derive(Deserialize)]
struct Module {
    #[serde(default)]
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

/// Content of `sentence_bert_config.json`, which older releases named after the model.
#[derive(Default, Deserialize)]
struct Limits {
    max_seq_length: Option<usize>,
    #[serde(default)]
    do_lower_case: bool,
}

const LIMIT_FILES: [&str; 5] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_xlm-roberta_config.json",
];

/// Settings of a sentence-transformers folder; a plain transformers folder has none.
#[derive(Debug, Default)]
pub(crate) struct Sentence {
    /// Pooling of tokens to one vector; `None` where the folder has no pooling.
    pub pooling: Option<Pooling>,
    /// True where the vector is scaled to length one.
    pub normalize: bool,
    /// Length of the longest text in tokens.
    pub max_length: Option<usize>,
    /// True where texts are converted to lower case before they reach the tokenizer.
    pub lowercase: bool,
}

impl Sentence {
    /// Reads the files that `folder` has.
    pub fn read(folder: &Path) -> Result<Sentence, ModelError> {
        let mut sentence = Sentence::default();
        for name in LIMIT_FILES {
            if let Some(limits) = read_json::<Limits>(&folder.join(name))? {
                sentence.max_length = limits.max_seq_length;
                sentence.lowercase = limits.do_lower_case;
                break;
            }
        }
        let file = folder.join("modules.json");
        let Some(modules) = read_json::<Vec<Module>>(&file)? else {
            sentence.pooling = pooling(&folder.join("1_Pooling/config.json"))?;
            return Ok(sentence);
        };
        for module in modules {
            // The path of the module has changed between releases, its class name has not.
            match module.kind.rsplit('.').next().unwrap_or_default() {
                "Transformer" | "Dropout" => {}
                "Pooling" => {
                    let file = pooling_file(folder, &module.path);
                    sentence.pooling = Some(pooling(&file)?.unwrap_or(Pooling::Mean));
                }
                "Normalize" => sentence.normalize = true,
                other => {
                    let supported = "Transformer, Pooling, Dropout, Normalize";
                    return Err(ModelError::unsupported(&file, "module", other, supported));
                }
            }
        }
        Ok(sentence)
    }
}

fn pooling_file(folder: &Path, path: &str) -> PathBuf {
    folder
        .join(if path.is_empty() { "1_Pooling" } else { path })
        .join("config.json")
}

/// The pooling mode in `file`. Newer releases name it, older ones have a switch for each mode.
fn pooling(file: &Path) -> Result<Option<Pooling>, ModelError> {
    let Some(config) = read_json::<Map<String, Value>>(file)? else {
        return Ok(None);
    };
    let modes: Vec<String> = match config.get("pooling_mode") {
        Some(Value::String(mode)) => vec![mode.clone()],
        Some(Value::Array(modes)) => modes
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        _ => config
            .iter()
            .filter(|(_, on)| **on == Value::Bool(true))
            .filter_map(|(key, _)| key.strip_prefix("pooling_mode_"))
            .map(|mode| {
                mode.trim_end_matches("_tokens")
                    .trim_end_matches("_token")
                    .to_owned()
            })
            .collect(),
    };
    match modes.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["cls"] => Ok(Some(Pooling::Cls)),
        ["mean"] | [] => Ok(Some(Pooling::Mean)),
        _ => Err(ModelError::unsupported(
            file,
            "pooling mode",
            modes.join(" + "),
            "cls, mean",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)], expected: Result<(Option<Pooling>, bool, Option<usize>), &str>) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("1_Pooling")).unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        match (Sentence::read(folder.path()), expected) {
            (Ok(s), Ok(e)) => assert_eq!((s.pooling, s.normalize, s.max_length), e),
            (Err(e), Err(part)) => assert!(e.to_string().contains(part), "{e} lacks {part}"),
            (found, expected) => panic!("{found:?} is not {expected:?}"),
        }
    }

    const POOLING: &str = "1_Pooling/config.json";

    #[test]
    fn a_plain_folder_has_no_settings() {
        check(&[], Ok((None, false, None)));
    }

    #[test]
    fn old_and_new_spellings_of_the_modes_are_read() {
        let old = r#"{"word_embedding_dimension":8,"pooling_mode_cls_token":false,"pooling_mode_mean_tokens":true}"#;
        check(&[(POOLING, old)], Ok((Some(Pooling::Mean), false, None)));
        let cls = r#"{"pooling_mode_cls_token":true,"pooling_mode_mean_tokens":false}"#;
        check(&[(POOLING, cls)], Ok((Some(Pooling::Cls), false, None)));
        check(
            &[(POOLING, r#"{"pooling_mode":"cls"}"#)],
            Ok((Some(Pooling::Cls), false, None)),
        );
        check(
            &[(POOLING, r#"{"pooling_mode":["mean"]}"#)],
            Ok((Some(Pooling::Mean), false, None)),
        );
        check(
            &[(POOLING, r#"{"embedding_dimension":8}"#)],
            Ok((Some(Pooling::Mean), false, None)),
        );
    }

    #[test]
    fn other_modes_and_sums_of_modes_are_refused_by_name() {
        check(
            &[(POOLING, r#"{"pooling_mode":"max"}"#)],
            Err("pooling mode is max; supported: cls, mean"),
        );
        let both = r#"{"pooling_mode_cls_token":true,"pooling_mode_mean_tokens":true}"#;
        check(&[(POOLING, both)], Err("pooling mode is cls + mean"));
        let root = r#"{"pooling_mode_mean_sqrt_len_tokens":true}"#;
        check(&[(POOLING, root)], Err("pooling mode is mean_sqrt_len"));
    }

    #[test]
    fn modules_decide_about_normalisation() {
        let modules = r#"[{"idx":0,"name":"0","path":"","type":"sentence_transformers.models.Transformer"},
            {"idx":1,"name":"1","path":"1_Pooling","type":"sentence_transformers.sentence_transformer.modules.pooling.Pooling"},
            {"idx":2,"name":"2","path":"2_Normalize","type":"sentence_transformers.models.Normalize"}]"#;
        let limits = r#"{"max_seq_length": 256, "do_lower_case": false}"#;
        let files = [("modules.json", modules), ("sentence_bert_config.json", limits)];
        check(&files, Ok((Some(Pooling::Mean), true, Some(256))));
    }

    #[test]
    fn an_unknown_module_is_refused_by_name() {
        let modules = r#"[{"type":"sentence_transformers.models.Dense","path":"2_Dense"}]"#;
        check(
            &[("modules.json", modules)],
            Err("module is Dense; supported: Transformer, Pooling"),
        );
    }

    #[test]
    fn bad_json_names_its_file() {
        check(&[("modules.json", "[")], Err("modules.json: EOF"));
    }
}
