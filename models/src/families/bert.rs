//! BERT, and models of its shape: `MiniLM`, BGE, E5, GTE.

use super::{Dense, Names, Properties};

pub(super) const BERT: Properties = Properties {
    name: "bert",
    names: Names {
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
    },
    positions_after_padding: false,
    tokenizer_class: "BertTokenizer",
};
