//! `CamemBERT`: `RoBERTa` in French.

use super::Properties;
use super::roberta::ROBERTA;

pub(super) const CAMEMBERT: Properties = Properties {
    name: "camembert",
    tokenizer_class: "CamembertTokenizer",
    ..ROBERTA
};
