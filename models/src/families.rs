//! Supported families of encoders. A family is a file in this folder and a row of [`Family::ALL`].

mod bert;
mod camembert;
mod distilbert;
mod mpnet;
mod roberta;
mod xlm_roberta;

use std::fmt;
use std::path::Path;

use crate::ModelError;

/// A family of encoders, by the `model_type` of its `config.json`.
#[derive(Clone, Copy)]
pub struct Family(&'static Properties);

impl Family {
    /// Every family.
    pub const ALL: [Family; 6] = [
        Family(&bert::BERT),
        Family(&distilbert::DISTILBERT),
        Family(&roberta::ROBERTA),
        Family(&xlm_roberta::XLM_ROBERTA),
        Family(&camembert::CAMEMBERT),
        Family(&mpnet::MPNET),
    ];

    /// The name in `config.json`.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// The family called `name`, where it is supported.
    pub fn named(name: &str) -> Option<Family> {
        Family::ALL.into_iter().find(|family| family.name() == name)
    }

    /// The family that `file` names, or an error that lists all families.
    pub(crate) fn parse(file: &Path, model_type: &str) -> Result<Family, ModelError> {
        Family::named(model_type).ok_or_else(|| ModelError::UnsupportedFamily {
            file: file.to_path_buf(),
            family: model_type.to_owned(),
            supported: Family::ALL.map(Family::name).join(", "),
        })
    }

    /// Names of the weights.
    pub(crate) fn names(self) -> &'static Names {
        &self.0.names
    }

    /// True where positions start at the padding id plus one.
    pub(crate) fn positions_after_padding(self) -> bool {
        self.0.positions_after_padding
    }

    /// Class of the tokenizer where no file names one, as transformers chooses it.
    pub(crate) fn tokenizer_class(self) -> &'static str {
        self.0.tokenizer_class
    }
}

impl PartialEq for Family {
    fn eq(&self, other: &Family) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Family {}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Properties that distinguish one family from another.
struct Properties {
    name: &'static str,
    names: Names,
    positions_after_padding: bool,
    tokenizer_class: &'static str,
}

/// Tensor names of a family. Names in the encoder follow its prefix (`bert.`, or none), those of a layer follow
/// the layer's number, those of the classifier follow neither.
pub(crate) struct Names {
    /// The name of the encoder inside a model with a head.
    pub prefix: &'static str,
    /// True where the encoder has a token type table.
    pub kinds: bool,
    /// Part before a layer's number.
    pub layer: &'static str,
    /// Query, key and value projections.
    pub qkv: [&'static str; 3],
    /// The projection after attention.
    pub attention_out: &'static str,
    /// The norm after attention.
    pub attention_norm: &'static str,
    /// The widening half of the feed-forward block.
    pub up: &'static str,
    /// The narrowing half.
    pub down: &'static str,
    /// The norm after the feed-forward block.
    pub output_norm: &'static str,
    /// The relative attention bias, where there is one.
    pub relative_bias: Option<&'static str>,
    /// The classifier's hidden layer. BERT keeps it inside the encoder, as its pooler.
    pub dense: Dense,
    /// The classifier's last layer.
    pub classifier: &'static str,
}

/// The hidden layer of a classifier.
pub(crate) enum Dense {
    /// Inside the encoder: its name follows the prefix.
    Pooler(&'static str),
    /// Outside the encoder, with tanh.
    Tanh(&'static str),
    /// Outside the encoder, with `ReLU`.
    Relu(&'static str),
}
