//! Files of sentence-transformers that are read, and those that are refused with their message.

use super::*;

fn read(files: &[(&str, &str)]) -> Result<Sentence, ModelError> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let file = folder.path().join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    Sentence::read(folder.path())
}

fn refused(files: &[(&str, &str)], part: &str) {
    let message = read(files).unwrap_err().to_string();
    assert!(message.contains(part), "{message} lacks {part}");
}

fn pooled(text: &str) -> Pooling {
    read(&[(POOLING, text)]).unwrap().pooling.unwrap()
}

const POOLING: &str = "1_Pooling/config.json";
const MODULE: &str = "sentence_bert_config.json";
const PROMPTS: &str = "config_sentence_transformers.json";

#[test]
fn a_plain_folder_has_no_settings() {
    let sentence = read(&[]).unwrap();
    assert_eq!((sentence.pooling, sentence.normalize), (None, false));
    assert!(sentence.module.tokenizer.is_empty() && !sentence.module.lowercase);
    assert_eq!(sentence.prompts.standard(), "");
}

#[test]
fn old_and_new_spellings_of_the_modes_are_read() {
    let old =
        r#"{"word_embedding_dimension":8,"pooling_mode_cls_token":false,"pooling_mode_mean_tokens":true}"#;
    assert_eq!(pooled(old), Pooling::Mean);
    let cls = r#"{"pooling_mode_cls_token":true,"pooling_mode_mean_tokens":false}"#;
    assert_eq!(pooled(cls), Pooling::Cls);
    assert_eq!(pooled(r#"{"pooling_mode":"cls"}"#), Pooling::Cls);
    assert_eq!(pooled(r#"{"pooling_mode":["mean"]}"#), Pooling::Mean);
    assert_eq!(pooled(r#"{"embedding_dimension":8}"#), Pooling::Mean);
}

#[test]
fn other_modes_and_sums_of_modes_are_refused_by_name() {
    refused(
        &[(POOLING, r#"{"pooling_mode":"max"}"#)],
        "pooling mode is max; supported: cls, mean",
    );
    let both = r#"{"pooling_mode_cls_token":true,"pooling_mode_mean_tokens":true}"#;
    refused(&[(POOLING, both)], "pooling mode is cls + mean");
    let root = r#"{"pooling_mode_mean_sqrt_len_tokens":true}"#;
    refused(&[(POOLING, root)], "pooling mode is mean_sqrt_len");
    refused(
        &[(POOLING, r#"{"include_prompt":"no"}"#)],
        "include_prompt is \"no\"",
    );
}

const MODULES: &str = r#"[{"idx":0,"name":"0","path":"0_Transformer","type":"sentence_transformers.models.Transformer"},
    {"idx":1,"name":"1","path":"1_Pooling","type":"sentence_transformers.sentence_transformer.modules.pooling.Pooling"},
    {"idx":2,"name":"2","path":"2_Normalize","type":"sentence_transformers.models.Normalize"}]"#;

#[test]
fn modules_name_the_folders_of_encoder_and_pooling() {
    let files = [
        ("modules.json", MODULES),
        (
            "0_Transformer/sentence_bert_config.json",
            r#"{"max_seq_length": 256}"#,
        ),
        (MODULE, r#"{"max_seq_length": 1}"#),
        (POOLING, r#"{"pooling_mode":"cls","include_prompt":false}"#),
    ];
    let sentence = read(&files).unwrap();
    assert!(sentence.encoder.ends_with("0_Transformer"));
    assert_eq!((sentence.pooling, sentence.normalize), (Some(Pooling::Cls), true));
    assert_eq!(sentence.module.tokenizer["model_max_length"], 256);
    assert!(sentence.prompt_excluded.unwrap().ends_with(POOLING));
}

#[test]
fn modules_without_their_files_or_of_other_packages_are_refused() {
    refused(&[("modules.json", MODULES)], "1_Pooling/config.json is missing");
    let dense = r#"[{"type":"sentence_transformers.models.Dense","path":"2_Dense"}]"#;
    refused(
        &[("modules.json", dense)],
        "module is sentence_transformers.models.Dense; supported: sentence_transformers' Transformer (first), Pooling",
    );
    let own = r#"[{"type":"custom_st.Transformer","path":""}]"#;
    refused(&[("modules.json", own)], "module is custom_st.Transformer");
    let outside = r#"[{"type":"sentence_transformers.models.Transformer","path":"../other"}]"#;
    refused(
        &[("modules.json", outside)],
        "modules.json: path \"../other\" lies outside of the folder",
    );
    let tokens = r#"{"module_input_name":"token_embeddings"}"#;
    let files = [
        ("modules.json", MODULES),
        (POOLING, "{}"),
        ("2_Normalize/config.json", tokens),
    ];
    refused(&files, "module_input_name is \"token_embeddings\"");
    refused(&[("modules.json", "[")], "modules.json: EOF");
}

#[test]
fn arguments_of_the_tokenizer_outrank_the_longest_text_of_the_module() {
    let limit = |text: &str| read(&[(MODULE, text)]).unwrap().module;
    let module =
        limit(r#"{"max_seq_length":256,"tokenizer_args":{"model_max_length":64,"padding_side":"left"}}"#);
    assert_eq!(module.tokenizer["model_max_length"], 64);
    let module = limit(r#"{"max_seq_length":null,"do_lower_case":true}"#);
    assert!(module.tokenizer.is_empty() && module.lowercase && module.tokens_max.is_none());
    let module =
        limit(r#"{"processing_kwargs":{"text":{"max_length":32,"truncation":true},"image":{"x":1}}}"#);
    assert_eq!(module.tokens_max, Some(32));
}

#[test]
fn settings_of_the_module_that_change_results_are_refused_by_name() {
    let cases = [
        (
            r#"{"max_sequence":256}"#,
            "max_sequence is 256; supported: the keys of",
        ),
        (
            r#"{"max_seq_length":0}"#,
            "max_seq_length is 0; supported: a number of tokens",
        ),
        (
            r#"{"do_lower_case":1}"#,
            "do_lower_case is 1; supported: true, false",
        ),
        (r#"{"query_expansion":{"length":32}}"#, "query_expansion is"),
        (
            r#"{"transformer_task":"fill-mask"}"#,
            "transformer_task is \"fill-mask\"",
        ),
        (
            r#"{"config_args":{"hidden_act":"relu"}}"#,
            "config_args is hidden_act",
        ),
        (
            r#"{"model_kwargs":{"dtype":"float16","revision":"x"}}"#,
            "model_kwargs is revision",
        ),
        (
            r#"{"processor_kwargs":{"vocab_file":"../x"}}"#,
            "processor_kwargs is vocab_file",
        ),
        (
            r#"{"processing_kwargs":{"text":{"add_special_tokens":false}}}"#,
            "processing_kwargs.text.add_special_tokens is false; supported: max_length",
        ),
        (
            r#"{"processing_kwargs":{"common":{"truncation":false}}}"#,
            "processing_kwargs.common.truncation is false",
        ),
        (
            r#"{"modality_config":{"message":{"method":"forward"}}}"#,
            "modality_config is message",
        ),
    ];
    for (text, part) in cases {
        refused(&[(MODULE, text)], part);
    }
    let usual = r#"{"modality_config":{"text":{"method":"forward","method_output_name":"last_hidden_state"}},
        "module_output_name":"token_embeddings","transformer_task":"feature-extraction","unpad_inputs":null}"#;
    assert!(read(&[(MODULE, usual)]).is_ok());
}

#[test]
fn prompts_are_read_by_name_and_the_default_must_be_one_of_them() {
    let text = r#"{"prompts":{"query":"query: ","document":"passage: "},"default_prompt_name":"query"}"#;
    let prompts = read(&[(PROMPTS, text)]).unwrap().prompts;
    assert_eq!(prompts.standard(), "query: ");
    assert_eq!(prompts.named["document"], "passage: ");
    let none = r#"{"prompts":{"query":null},"default_prompt_name":null}"#;
    let prompts = read(&[(PROMPTS, none)]).unwrap().prompts;
    assert_eq!((prompts.standard(), prompts.named["document"].as_str()), ("", ""));
    refused(
        &[(
            PROMPTS,
            r#"{"prompts":{"clustering":"topic: "},"default_prompt_name":"topic"}"#,
        )],
        "default_prompt_name is topic; supported: clustering, document, query",
    );
    refused(
        &[(PROMPTS, r#"{"prompts":["query: "]}"#)],
        "prompts: invalid type",
    );
}
