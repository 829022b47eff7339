//! Classes of tokenizers and the files beside them: forms that have one meaning, and those that are refused.

use super::*;

const CONFIG: &str = "tokenizer_config.json";

/// `tokenizer.json` of a test family with its own tokenizer class, and one change.
fn as_class(family: &str, class: &str, change: impl FnOnce(&mut Value)) -> Result<TextTokenizer, ModelError> {
    let config = format!(r#"{{"tokenizer_class":"{class}"}}"#);
    of_files(&[("tokenizer.json", &changed(family, change)), (CONFIG, &config)])
}

fn has_two_meanings(family: &str, class: &str, change: impl FnOnce(&mut Value), part: &str) {
    let message = as_class(family, class, change)
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert!(message.contains(part), "{message} lacks {part}");
}

#[test]
fn a_class_of_another_tokenizer_is_refused_with_the_known_ones() {
    for class in [
        "BertJapaneseTokenizer",
        "KoBertTokenizer",
        "PhobertTokenizer",
        "GPT2TokenizerFast",
    ] {
        let part = format!("tokenizer_class is {class}; supported: BertTokenizer, DistilBertTokenizer");
        let config = format!(r#"{{"tokenizer_class":"{class}"}}"#);
        refused(
            &[
                (CONFIG, &config),
                ("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n"),
            ],
            &part,
        );
    }
    refused(
        &[
            (CONFIG, r#"{"tokenizer_class":"RobertaTokenizer"}"#),
            ("vocab.txt", "a\n"),
        ],
        "tokenizer.json (vocab.txt is no tokenizer of class RobertaTokenizer) is missing",
    );
    for class in ["BertTokenizerFast", "PreTrainedTokenizerFast", "ElectraTokenizer"] {
        assert!(as_class("bert", class, |_| {}).is_ok(), "{class}");
    }
}

#[test]
fn a_word_piece_file_that_is_not_that_of_its_class_is_refused() {
    let bert = "BertTokenizer";
    let whole = "or tokenizer_class PreTrainedTokenizerFast";
    has_two_meanings(
        "bert",
        bert,
        |json| json["normalizer"] = serde_json::json!({"type": "Lowercase"}),
        whole,
    );
    has_two_meanings(
        "bert",
        bert,
        |json| json["normalizer"]["clean_text"] = false.into(),
        "cleans text",
    );
    has_two_meanings(
        "bert",
        bert,
        |json| json["pre_tokenizer"] = Value::Null,
        "pre_tokenizer is none",
    );
    has_two_meanings(
        "bert",
        bert,
        |json| json["model"]["max_input_chars_per_word"] = 50.into(),
        "model is another",
    );
    has_two_meanings(
        "bert",
        bert,
        |json| json["model"]["unk_token"] = "[PAD]".into(),
        "model is another",
    );
    has_two_meanings(
        "bert",
        bert,
        |json| json["post_processor"] = Value::Null,
        "post_processor is  before a text and  after it; supported: [CLS] and [SEP], which BertTokenizer puts there",
    );
    has_two_meanings("roberta", bert, |_| {}, "normalizer is none");
}

#[test]
fn a_byte_level_file_that_is_not_that_of_its_class_is_refused() {
    let class = "RobertaTokenizer";
    assert!(as_class("roberta", class, |_| {}).is_ok());
    has_two_meanings(
        "roberta",
        class,
        |json| json["normalizer"] = serde_json::json!({"type": "NFC"}),
        "normalizer is NFC; supported: none with tokenizer_class RobertaTokenizer",
    );
    has_two_meanings(
        "roberta",
        class,
        |json| json["pre_tokenizer"]["use_regex"] = false.into(),
        "without its pattern",
    );
    has_two_meanings(
        "roberta",
        class,
        |json| json["model"]["ignore_merges"] = true.into(),
        "model is another",
    );
    has_two_meanings(
        "roberta",
        class,
        |json| json["model"]["dropout"] = 0.1.into(),
        "model.dropout is 0.1",
    );
    has_two_meanings("bert", class, |_| {}, "normalizer is BertNormalizer");
}

#[test]
fn the_blank_before_a_text_is_set_by_the_class_and_not_beside_a_whole_file() {
    let spaced = |json: &mut Value| json["pre_tokenizer"]["add_prefix_space"] = true.into();
    // The class has no blank unless the settings ask for one, whatever the file says.
    let plain = as_class("roberta", "RobertaTokenizer", |_| {}).unwrap();
    let without = as_class("roberta", "RobertaTokenizer", spaced).unwrap();
    assert_eq!(plain.encode("film", true), without.encode("film", true));
    let asked = r#"{"tokenizer_class":"RobertaTokenizer","add_prefix_space":true}"#;
    let with = of_files(&[("tokenizer.json", &changed("roberta", |_| {})), (CONFIG, asked)]).unwrap();
    assert_eq!(with.encode("film", true), plain.encode(" film", true));
    let whole = r#"{"tokenizer_class":"PreTrainedTokenizerFast","add_prefix_space":false}"#;
    refused(
        &[("tokenizer.json", &changed("roberta", spaced)), (CONFIG, whole)],
        "add_prefix_space is true; supported: false, as tokenizer_config.json has it",
    );
}

#[test]
fn a_sentence_piece_file_that_is_not_that_of_its_class_is_refused() {
    let class = "XLMRobertaTokenizer";
    let blanks = serde_json::json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "\u{2581}"});
    let metaspace = serde_json::json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true});
    assert!(as_class("xlm-roberta", class, |json| json["normalizer"] = Value::Null).is_ok());
    let map = STANDARD.encode([4, 0, 0, 0, 0, 0, 0, 0]);
    let map = serde_json::json!({"type": "Precompiled", "precompiled_charsmap": map});
    let alone = |json: &mut Value| {
        json["normalizer"] = serde_json::json!({"type": "Sequence", "normalizers": [map, blanks]});
        json["pre_tokenizer"] = metaspace.clone();
    };
    assert!(as_class("xlm-roberta", class, alone).is_ok());
    has_two_meanings(
        "xlm-roberta",
        class,
        |_| {},
        "normalizer and pre_tokenizer is Sequence, Sequence",
    );
    let unmapped = |json: &mut Value| {
        json["normalizer"] = blanks.clone();
        json["pre_tokenizer"] = metaspace.clone();
    };
    has_two_meanings(
        "xlm-roberta",
        class,
        unmapped,
        "supported: those of SentencePiece with tokenizer_class",
    );
    let swapped = |json: &mut Value| {
        json["normalizer"] = Value::Null;
        json["model"]["vocab"][3][0] = "<unk2>".into();
    };
    has_two_meanings("xlm-roberta", class, swapped, "model is another");
    let config = r#"{"tokenizer_class":"XLMRobertaTokenizer","add_prefix_space":false}"#;
    let json = changed("xlm-roberta", |json| json["normalizer"] = Value::Null);
    refused(
        &[("tokenizer.json", &json), (CONFIG, config)],
        "add_prefix_space is false; supported: true",
    );
}

#[test]
fn settings_that_would_change_ids_in_other_ways_are_refused_by_name() {
    let json = changed("bert", |_| {});
    let cases = [
        (r#"{"do_basic_tokenize":false}"#, "do_basic_tokenize is false"),
        (r#"{"never_split":["word"]}"#, "never_split is a list of words"),
        (
            r#"{"auto_map":{"AutoTokenizer":["own.Own",null]}}"#,
            "auto_map is",
        ),
        (
            r#"{"fast_tokenizer_files":["tokenizer.4.0.json"]}"#,
            "fast_tokenizer_files is tokenizer.4.0.json",
        ),
        (
            r#"{"truncation_side":"middle"}"#,
            "truncation_side is middle; supported: left, right",
        ),
        (r#"{"do_lower_case":"no"}"#, "do_lower_case: invalid type"),
        (r#"{"cls_token":3}"#, "cls_token: expected a token"),
        (
            r#"{"model_max_length":0}"#,
            "model_max_length is 0; supported: a number of tokens",
        ),
        (r#"{"max_len":12.5}"#, "max_len is 12.5"),
        (
            r#"{"added_tokens_decoder":{"x":{"content":"a"}}}"#,
            "added_tokens_decoder: \"x\" is not an id",
        ),
        (
            r#"{"added_tokens_decoder":{"9999":{"content":"<a>"}}}"#,
            "\"<a>\" has id 9999 among the added tokens and",
        ),
        (
            r#"{"additional_special_tokens":"<a>"}"#,
            "additional_special_tokens: invalid type",
        ),
    ];
    for (config, part) in cases {
        refused(&[("tokenizer.json", &json), (CONFIG, config)], part);
    }
    let more = changed("bert", |json| {
        let token = serde_json::json!({"id": 405, "content": "<a>", "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": false});
        json["added_tokens"].as_array_mut().unwrap().push(token);
    });
    refused(
        &[
            ("tokenizer.json", &more),
            (CONFIG, r#"{"added_tokens_decoder":{}}"#),
        ],
        "added token \"<a>\" is missing in added_tokens_decoder",
    );
    refused(
        &[("tokenizer.json", &json), ("added_tokens.json", r#"{"<a>":-1}"#)],
        "added_tokens.json: \"<a>\" has the id -1",
    );
}

#[test]
fn limits_are_read_as_by_transformers() {
    let limit = |config: &str| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(CONFIG), config).unwrap();
        Settings::read(folder.path(), &Map::new()).unwrap().limit
    };
    assert_eq!(limit(r#"{"model_max_length":512}"#), Some(512));
    assert_eq!(limit(r#"{"max_len":128}"#), Some(128));
    assert_eq!(limit(r#"{"model_max_length":256,"max_len":128}"#), Some(256));
    assert_eq!(
        limit(r#"{"model_max_length":1000000000000000019884624838656}"#),
        None
    );
    assert_eq!(limit(r#"{"model_max_length":null,"max_len":128}"#), None);
    assert_eq!(limit(r#"{"model_max_length":Infinity}"#), None);
    assert_eq!(limit("{}"), None);
}
