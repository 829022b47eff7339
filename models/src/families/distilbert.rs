//! `DistilBERT`: BERT without token types and pooler.

use super::bert::BERT;
use super::{Dense, Names, Properties};

pub(super) const DISTILBERT: Properties = Properties {
    name: "distilbert",
    names: Names {
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
    },
    ..BERT
};
