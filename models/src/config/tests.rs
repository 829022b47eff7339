//! Settings of a `config.json` that are read, and those that are refused with their message.

use super::*;

/// A small config of `family`, changed by `changes`.
fn config(family: &str, changes: &str) -> Result<Config, ModelError> {
    let mut json: serde_json::Map<String, serde_json::Value> = serde_json::from_str(
        r#"{"architectures":["XForSequenceClassification"],"hidden_size":8,"num_hidden_layers":2,
        "num_attention_heads":2,"intermediate_size":16,"vocab_size":32,"max_position_embeddings":66}"#,
    )
    .unwrap();
    json.insert("model_type".to_owned(), family.into());
    let changes: serde_json::Map<String, serde_json::Value> = serde_json::from_str(changes).unwrap();
    json.extend(changes);
    json.retain(|_, value| !value.is_null());
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("config.json"),
        serde_json::to_vec(&json).unwrap(),
    )
    .unwrap();
    Config::read(folder.path())
}

fn refused(family: &str, changes: &str, part: &str) {
    let message = config(family, changes).unwrap_err().to_string();
    assert!(message.contains(part), "{message} lacks {part}");
    assert!(
        message.contains("config.json"),
        "{message} does not name the file"
    );
}

#[test]
fn the_keys_of_distilbert_are_read() {
    let own = r#"{"dim":8,"n_layers":3,"n_heads":4,"hidden_dim":24,"activation":"relu","hidden_size":null,
        "num_hidden_layers":null,"num_attention_heads":null,"intermediate_size":null}"#;
    let c = config("distilbert", own).unwrap();
    assert_eq!(
        (c.hidden, c.layers, c.heads, c.intermediate, c.kinds),
        (8, 3, 4, 24, 0)
    );
    assert_eq!(c.activation, Activation::Relu);
}

#[test]
fn the_window_follows_from_the_position_table() {
    assert_eq!(config("bert", "{}").unwrap().window(), 66);
    assert_eq!(config("roberta", "{}").unwrap().window(), 64);
    assert_eq!(
        config("xlm-roberta", r#"{"pad_token_id":3}"#).unwrap().window(),
        62
    );
    refused(
        "roberta",
        r#"{"max_position_embeddings":2}"#,
        "more than pad_token_id 1 plus one",
    );
}

#[test]
fn an_unknown_family_is_refused_with_the_known_ones() {
    refused(
        "llama",
        "{}",
        "\"llama\" is not supported; supported are bert, distilbert, roberta, xlm-roberta, camembert, mpnet",
    );
}

#[test]
fn unsupported_settings_are_refused_by_name() {
    refused(
        "bert",
        r#"{"position_embedding_type":"relative_key"}"#,
        "position_embedding_type is relative_key; supported: absolute",
    );
    refused(
        "bert",
        r#"{"hidden_act":"silu"}"#,
        "hidden_act is silu; supported: gelu, gelu_new, gelu_pytorch_tanh, relu",
    );
    refused("bert", r#"{"is_decoder":true}"#, "is_decoder is true");
    refused(
        "bert",
        r#"{"problem_type":"ranking"}"#,
        "problem_type is ranking; supported: regression",
    );
    refused("bert", r#"{"layer_norm_eps":-1.0}"#, "layer_norm_eps is -1");
    refused(
        "mpnet",
        r#"{"relative_attention_num_buckets":6}"#,
        "relative_attention_num_buckets is 6",
    );
}

#[test]
fn sizes_that_no_encoder_has_are_refused() {
    refused(
        "bert",
        r#"{"num_attention_heads":3}"#,
        "a divisor of hidden_size 8",
    );
    refused("bert", r#"{"num_attention_heads":0}"#, "num_attention_heads is 0");
    refused(
        "bert",
        r#"{"hidden_size":99999999999}"#,
        "hidden_size is 99999999999; supported: 1 to",
    );
    refused("bert", r#"{"vocab_size":null}"#, "vocab_size is missing");
    refused("bert", r#"{"vocab_size":"many"}"#, "vocab_size: invalid type");
    refused(
        "bert",
        r#"{"num_hidden_layers":-2}"#,
        "num_hidden_layers: invalid value",
    );
}

#[test]
fn labels_are_ordered_by_their_numbers() {
    let many: Vec<String> = (0..12).map(|i| format!(r#""{i}":"l{i}""#)).collect();
    let c = config("bert", &format!(r#"{{"id2label":{{{}}}}}"#, many.join(","))).unwrap();
    assert_eq!(c.labels[10], "l10");
    assert_eq!(config("bert", "{}").unwrap().labels, ["LABEL_0", "LABEL_1"]);
    assert_eq!(config("bert", r#"{"num_labels":3}"#).unwrap().labels.len(), 3);
    refused(
        "bert",
        r#"{"id2label":{"0":"a","2":"b"}}"#,
        "id2label has the key \"2\"; its 2 keys must be each number from 0 to 1 once",
    );
}

#[test]
fn labels_are_read_as_by_transformers() {
    let labels = |map: &str| {
        config("bert", &format!(r#"{{"id2label":{map}}}"#))
            .unwrap()
            .labels
    };
    assert_eq!(labels(r#"{"0":0,"1":-1}"#), ["0", "-1"]);
    assert_eq!(labels(r#"{"01":"b","00":"a"}"#), ["a", "b"]);
    let c = config("bert", r#"{"num_labels":5,"id2label":{"0":"a","1":"b"}}"#).unwrap();
    assert_eq!(c.labels, ["a", "b"]);
    refused(
        "bert",
        r#"{"id2label":{"0":"a","00":"b"}}"#,
        "its 2 keys must be each number from 0 to 1 once",
    );
    refused(
        "bert",
        r#"{"id2label":{"first":"a"}}"#,
        "id2label has the key \"first\"",
    );
    refused(
        "bert",
        r#"{"id2label":{"0":"a","1":null}}"#,
        "id2label: expected a string or an integer",
    );
    refused(
        "bert",
        r#"{"num_labels":1099511627776}"#,
        "num_labels is 1099511627776; supported: 1 to 131072 labels",
    );
    refused("bert", r#"{"num_labels":0}"#, "num_labels is 0; supported: 1 to");
}

#[test]
fn settings_that_would_need_other_code_are_refused_by_name() {
    refused(
        "bert",
        r#"{"auto_map":{"AutoConfig":"own.Config","AutoModel":"own.Model"}}"#,
        "auto_map is AutoModel; supported: none",
    );
    assert!(config("bert", r#"{"auto_map":{"AutoConfig":"own.Config"}}"#).is_ok());
    refused("bert", r#"{"pruned_heads":{"0":[1]}}"#, "pruned_heads is set");
    assert!(config("bert", r#"{"pruned_heads":{}}"#).is_ok());
    refused(
        "bert",
        r#"{"quantization_config":{"bits":4}}"#,
        "quantization_config is set",
    );
}

#[test]
fn the_problem_is_read_as_by_transformers_pipeline() {
    let problem = |changes: &str| config("bert", changes).unwrap().problem;
    assert_eq!(problem("{}"), Problem::SingleLabel);
    assert_eq!(problem(r#"{"num_labels":1}"#), Problem::MultiLabel);
    assert_eq!(
        problem(r#"{"num_labels":1,"problem_type":"regression"}"#),
        Problem::Regression
    );
    assert_eq!(
        problem(r#"{"problem_type":"multi_label_classification"}"#),
        Problem::MultiLabel
    );
}

#[test]
fn the_architecture_decides_the_task() {
    let task = |architectures: &str| {
        config("bert", &format!(r#"{{"architectures":{architectures}}}"#))
            .unwrap()
            .task
    };
    assert_eq!(
        task(r#"["BertForSequenceClassification"]"#),
        Some(Task::SequenceClassification)
    );
    assert_eq!(task(r#"["BertModel"]"#), Some(Task::Embedding));
    assert_eq!(task(r#"["BertForMaskedLM"]"#), Some(Task::Embedding));
    assert_eq!(task("null"), Some(Task::Embedding));
    assert_eq!(task(r#"["BertForTokenClassification"]"#), None);
}
