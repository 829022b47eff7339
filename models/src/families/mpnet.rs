//! `MPNet`: BERT without token types, with a relative attention bias that all layers share.

use super::roberta::ROBERTA;
use super::{Names, Properties};

pub(super) const MPNET: Properties = Properties {
    name: "mpnet",
    names: Names {
        prefix: "mpnet.",
        kinds: false,
        qkv: ["attention.attn.q", "attention.attn.k", "attention.attn.v"],
        attention_out: "attention.attn.o",
        attention_norm: "attention.LayerNorm",
        relative_bias: Some("encoder.relative_attention_bias.weight"),
        ..ROBERTA.names
    },
    tokenizer_class: "MPNetTokenizer",
    ..ROBERTA
};
