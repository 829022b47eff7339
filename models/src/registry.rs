//! Supported families, and the names of their weights.

use std::path::Path;

use crate::ModelError;

/// A family of encoders, by the `model_type` of its `config.json`. `MiniLM` and the like are `Bert`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// BERT, and models of its shape: `MiniLM`, BGE, E5, GTE.
    Bert,
    /// `DistilBERT`: BERT without token types and pooler.
    DistilBert,
    /// `RoBERTa`: BERT with positions that start after the padding id.
    Roberta,
    /// `XLM-RoBERTa`: `RoBERTa` over many languages.
    XlmRoberta,
    /// `CamemBERT`: `RoBERTa` in French.
    Camembert,
    /// `MPNet`: BERT without token types, with a relative attention bias shared by all layers.
    Mpnet,
}

impl Family {
    /// Every family.
    pub const ALL: [Family; 6] = [
        Family::Bert,
        Family::DistilBert,
        Family::Roberta,
        Family::XlmRoberta,
        Family::Camembert,
        Family::Mpnet,
    ];

    /// The name in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Family::Bert => "bert",
            Family::DistilBert => "distilbert",
            Family::Roberta => "roberta",
            Family::XlmRoberta => "xlm-roberta",
            Family::Camembert => "camembert",
            Family::Mpnet => "mpnet",
        }
    }

    /// The family that `file` names, or an error that names them all.
    pub(crate) fn parse(file: &Path, model_type: &str) -> Result<Family, ModelError> {
        Family::ALL
            .into_iter()
            .find(|f| f.name() == model_type)
            .ok_or_else(|| ModelError::UnsupportedFamily {
                file: file.to_path_buf(),
                family: model_type.to_owned(),
                supported: Family::ALL.map(Family::name).join(", "),
            })
    }

    /// Names of the weights of this family.
    pub(crate) fn names(self) -> &'static Names {
        match self {
            Family::Bert => &BERT,
            Family::Roberta | Family::XlmRoberta | Family::Camembert => &ROBERTA,
            Family::DistilBert => &DISTILBERT,
            Family::Mpnet => &MPNET,
        }
    }

    /// True where positions start at the padding id plus one.
    pub(crate) fn positions_after_padding(self) -> bool {
        match self {
            Family::Bert | Family::DistilBert => false,
            Family::Roberta | Family::XlmRoberta | Family::Camembert | Family::Mpnet => true,
        }
    }
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

const BERT: Names = Names {
    prefix: "bert.",
    kinds: true,
    layer: "encoder.layer.",
    qkv: [
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
    ],
    attention_out: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    output_norm: "output.LayerNorm",
    relative_bias: None,
    dense: Dense::Pooler("pooler.dense"),
    classifier: "classifier",
};

const ROBERTA: Names = Names {
    prefix: "roberta.",
    dense: Dense::Tanh("classifier.dense"),
    classifier: "classifier.out_proj",
    ..BERT
};

const MPNET: Names = Names {
    prefix: "mpnet.",
    kinds: false,
    qkv: ["attention.attn.q", "attention.attn.k", "attention.attn.v"],
    attention_out: "attention.attn.o",
    attention_norm: "attention.LayerNorm",
    relative_bias: Some("encoder.relative_attention_bias.weight"),
    ..ROBERTA
};

const DISTILBERT: Names = Names {
    prefix: "distilbert.",
    kinds: false,
    layer: "transformer.layer.",
    qkv: ["attention.q_lin", "attention.k_lin", "attention.v_lin"],
    attention_out: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    up: "ffn.lin1",
    down: "ffn.lin2",
    output_norm: "output_layer_norm",
    relative_bias: None,
    dense: Dense::Relu("pre_classifier"),
    classifier: "classifier",
};
