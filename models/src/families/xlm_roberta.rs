//! `XLM-RoBERTa`: `RoBERTa` over many languages.

use super::Properties;
use super::roberta::ROBERTA;

pub(super) const XLM_ROBERTA: Properties = Properties {
    name: "xlm-roberta",
    tokenizer_class: "XLMRobertaTokenizer",
    ..ROBERTA
};
