//! `RoBERTa`: BERT with positions that start after the padding id.

use super::bert::BERT;
use super::{Dense, Names, Properties};

pub(super) const ROBERTA: Properties = Properties {
    name: "roberta",
    names: Names {
        prefix: "roberta.",
        dense: Dense::Tanh("classifier.dense"),
        classifier: "classifier.out_proj",
        ..BERT.names
    },
    positions_after_padding: true,
    tokenizer_class: "RobertaTokenizer",
};
