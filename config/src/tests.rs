//! Tests of the configuration: settings, defaults and error messages.

use std::path::Path;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser};

use penstock_engine::placement::choice::{DeviceChoice, DtypeChoice};
use penstock_engine::settings::Batching;
use penstock_models::Task;
use penstock_telemetry::logging::LogFormat;

use super::sections::{RawBatching, RawLimits, RawServer};
use super::table::{Flags as _, Row, Unset};
use super::*;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    settings: Settings,
}

fn given(flags: &[&str]) -> Settings {
    Flags::try_parse_from(["penstock"].iter().chain(flags))
        .unwrap()
        .settings
}

pub(super) fn read(text: &str, flags: &[&str]) -> Result<Config, String> {
    parse(
        Path::new("penstock.toml"),
        text,
        given(flags),
        Settings::default(),
    )
    .map_err(|e| e.to_string())
}

/// The whole message, as a user sees it.
pub(super) fn refused(text: &str, flags: &[&str], message: &str) {
    assert_eq!(read(text, flags).unwrap_err(), message);
}

const FULL: &str = r#"
[server]
grpc_addr = "0.0.0.0:9001"
http_addr = "[::1]:9000"
metrics_addr = "127.0.0.1:0"
device = "cpu"
dtype = "f32"
threads = 3
cuda_graphs = false
pin_threads = true
tokenizer_threads = 2
io_threads = 1
drain_timeout = "1m 30s"
model_control = "on"
log = "warn,penstock=debug"
log_format = "json"

[limits]
max_request_texts = 10
max_request_bytes = "1MiB"
stream_in_flight_max = 5
queue_texts_max = 100
queue_tokens_max = 4096
queue_bytes_max = 5000
connections_max = 7
connections_per_address_max = 3
streams_max = 8

[batching]
tokens_max = 2048
texts_max = 64
bulk_age_max = "500ms"
queue_delay_max = "2ms"
interactive_target = "100ms"
prefetch = 2
executors = 3

[[model]]
name = "sentiment"
path = "models/sentiment"
task = "sequence-classification"
max_length = 128
check_parity = false

[model.batching]
tokens_max = 512

[[model]]
name = "minilm"
path = "org/minilm@v2"
"#;

#[test]
fn every_setting_of_a_file_arrives() {
    let config = read(FULL, &[]).unwrap();
    assert_eq!(config.grpc_addr, "0.0.0.0:9001".parse().unwrap());
    assert_eq!(
        (config.threads, config.tokenizer_threads, config.io_threads),
        (3, 2, 1)
    );
    assert!(config.pin_threads && !config.cuda_graphs);
    assert_eq!(config.drain_timeout, Duration::from_secs(90));
    assert_eq!(config.model_control, ModelControl::On);
    assert_eq!(read("", &[]).unwrap().model_control, ModelControl::Off);
    assert_eq!(
        (config.log.as_str(), config.log_format),
        ("warn,penstock=debug", LogFormat::Json)
    );
    let limits = Limits {
        max_request_texts: 10,
        max_request_bytes: 1 << 20,
        stream_in_flight_max: 5,
        queue_texts_max: 100,
        queue_tokens_max: 4096,
        queue_bytes_max: 5000,
        connections_max: 7,
        connections_per_address_max: Some(3),
        streams_max: 8,
    };
    assert_eq!(config.limits, limits);
    let inherited = Batching {
        tokens_max: Some(2048),
        texts_max: 64,
        bulk_age_max: Duration::from_millis(500),
        queue_delay_max: Duration::from_millis(2),
        interactive_target: Duration::from_millis(100),
        prefetch: Some(2),
        executors: 3,
    };
    let [sentiment, minilm] = config.models.as_slice() else {
        panic!("{:?}", config.models)
    };
    assert_eq!(minilm.batching, inherited);
    assert_eq!(
        sentiment.batching,
        Batching {
            tokens_max: Some(512),
            ..inherited
        }
    );
    assert_eq!(
        (sentiment.task, sentiment.max_length),
        (Some(Task::SequenceClassification), Some(128))
    );
    assert!(!sentiment.check_parity && minilm.check_parity);
    assert_eq!(minilm.source, "org/minilm@v2");
}

#[test]
fn defaults_are_the_documented_ones() {
    let config = resolve::resolve(Settings::default(), 8).unwrap();
    assert_eq!(config.grpc_addr.to_string(), "127.0.0.1:8001");
    assert_eq!(config.http_addr.to_string(), "127.0.0.1:8000");
    assert_eq!(config.metrics_addr.to_string(), "127.0.0.1:8002");
    assert_eq!(
        (config.threads, config.tokenizer_threads, config.io_threads),
        (8, 2, 2)
    );
    assert_eq!(
        (config.device, config.dtype),
        (DeviceChoice::Auto, DtypeChoice::Auto)
    );
    assert_eq!(config.limits.max_request_bytes, 64 << 20);
    assert_eq!(
        resolve::resolve(Settings::default(), 1)
            .unwrap()
            .tokenizer_threads,
        1
    );
}

#[test]
fn flags_beat_the_file() {
    let flags = [
        "--threads",
        "5",
        "--queue-bytes-max",
        "2KiB",
        "--model",
        "minilm=elsewhere",
    ];
    let config = read(FULL, &flags).unwrap();
    assert_eq!((config.threads, config.limits.queue_bytes_max), (5, 2048));
    assert_eq!(config.tokenizer_threads, 2, "what no flag says stays");
    let sources: Vec<_> = config
        .models
        .iter()
        .map(|m| (m.name.as_str(), m.source.as_str()))
        .collect();
    assert_eq!(
        sources,
        [("sentiment", "models/sentiment"), ("minilm", "elsewhere")]
    );
}

#[test]
fn rust_log_is_the_lowest_layer() {
    let base = || Settings::of_environment(Some("trace".to_owned()));
    let log = |text, flags| {
        parse(Path::new("penstock.toml"), text, given(flags), base())
            .unwrap()
            .log
    };
    assert_eq!(log("", &[]), "trace");
    assert_eq!(log("[server]\nlog = \"warn\"", &[]), "warn");
    assert_eq!(log("[server]\nlog = \"warn\"", &["--log", "debug"]), "debug");
}

#[test]
fn models_by_flag_need_no_file() {
    let config = load(
        None,
        given(&["--model", "a=x/y@main", "--model", "b=dir=with=signs"]),
    )
    .unwrap();
    let sources: Vec<_> = config
        .models
        .iter()
        .map(|m| (m.name.as_str(), m.source.as_str()))
        .collect();
    assert_eq!(sources, [("a", "x/y@main"), ("b", "dir=with=signs")]);
    let unnamed = Flags::try_parse_from(["penstock", "--model", "x/y"])
        .err()
        .unwrap()
        .to_string();
    assert!(
        unnamed.contains("write NAME=DIR_OR_HF_ID, such as sentiment=x/y"),
        "{unnamed}"
    );
}

#[test]
fn shown_settings_give_the_same_config() {
    for text in [
        FULL,
        "",
        "[[model]]\nname = \"quo'te\\\"d\"\npath = \"p\""
            .replace("quo'te\\\"d", "x")
            .as_str(),
    ] {
        let config = read(text, &[]).unwrap();
        let again = read(&config.to_toml(), &[]).unwrap();
        assert_eq!(again, config, "{}", config.to_toml());
    }
    let odd = load(None, given(&["--model", "a=C:\\new\\\"dir\""])).unwrap();
    assert_eq!(read(&odd.to_toml(), &[]).unwrap().models, odd.models);
}

#[test]
fn unknown_keys_get_a_suggestion() {
    refused(
        "[server]\nthreads = 2\ngrcp_addr = \"x\"",
        &[],
        "penstock.toml:3:1: unknown key `grcp_addr`; did you mean `grpc_addr`?",
    );
    refused(
        "[batching]\n  tokens = 2",
        &[],
        "penstock.toml:2:3: unknown key `tokens`; did you mean `tokens_max`?",
    );
    refused(
        "[[kafak]]\nname = \"reviews\"",
        &[],
        "penstock.toml:1:3: unknown key `kafak`; did you mean `kafka`?",
    );
    refused(
        "[[model]]\nname = \"a\"\npath = \"b\"\n[model.batching]\nüprefetch = 1",
        &[],
        "penstock.toml:5:1: invalid unquoted key, expected letters, numbers, `-`, `_`",
    );
}

#[test]
fn wrong_values_say_where_and_why() {
    refused(
        "[server]\ngrpc_addr = \"localhost\"",
        &[],
        "penstock.toml:2:13: `localhost` is no address to listen on; write ADDR:PORT, such as 127.0.0.1:8000, \
         localhost:8000, or :8000 for every IPv4 interface",
    );
    refused(
        "[server]\n\"threads\" = 0",
        &[],
        "penstock.toml:2:13: invalid value: integer `0`, expected a nonzero usize",
    );
    refused(
        "[server]\ndrain_timeout = \"30\"",
        &[],
        "penstock.toml:2:17: `30` is no length of time; write a number and a unit, such as 100ms, 5s or 2m",
    );
    refused(
        "[limits]\nqueue_bytes_max = \"2MB\"",
        &[],
        "penstock.toml:2:19: `2MB` is no size; write bytes as an integer, or with KiB, MiB or GiB, such as 64MiB",
    );
    refused(
        "[limits]\nqueue_bytes_max = 0",
        &[],
        "penstock.toml:2:19: a size of 0 bytes holds nothing",
    );
    refused(
        "[server]\ndevice = \"gpu\"",
        &[],
        "penstock.toml:2:10: unknown device `gpu`; known are auto, cpu, cuda, cuda:N and cuda:N,M,…",
    );
    refused(
        "[[model]]\nname = \"a\"\npath = \"b\"\ntask = \"ner\"",
        &[],
        "penstock.toml:4:8: unknown task `ner`; known are sequence-classification, embedding",
    );
    refused(
        "[[model]]\nname = \"a\"",
        &[],
        "penstock.toml:1:1: missing field `path`",
    );
}

#[test]
fn contradictions_say_where_and_why() {
    refused(
        "[server]\nhttp_addr = \"127.0.0.1:8001\"",
        &[],
        "penstock.toml:2:13: http_addr and grpc_addr are both 127.0.0.1:8001; each needs its own port",
    );
    refused(
        "[limits]\nqueue_tokens_max = 1000\n[batching]\ntokens_max = 1001\n[[model]]\nname = \"a\"\npath = \"b\"",
        &[],
        "penstock.toml:4:14: model `a`: a batch of 1001 tokens never fills from a queue of 1000 \
         (limits.queue_tokens_max)",
    );
    refused(
        "[[model]]\nname = \"a\"\npath = \"b\"\nmax_length = 9000\n[model.batching]\ntokens_max = 8192",
        &[],
        "penstock.toml:4:14: a batch of 8192 tokens cannot hold one text of 9000",
    );
    refused(
        "[[model]]\nname = \"a\"\npath = \"b\"\n[model.batching]\nqueue_delay_max = \"5ms\"\ninteractive_target = \"5ms\"",
        &[],
        "penstock.toml:5:19: model `a`: waiting 5ms for more texts leaves nothing of interactive_target = 5ms",
    );
    let two = "[[model]]\nname = \"a\"\npath = \"b\"\n[[model]]\nname = \"a\"\npath = \"c\"";
    refused(
        two,
        &[],
        "penstock.toml:5:8: two models are named `a`; a request could not say which",
    );
    refused(
        "[[model]]\nname = \"a/b\"\npath = \"b\"",
        &[],
        "penstock.toml:2:8: model name `a/b` holds '/'; letters, digits, `-`, `_` and `.` are allowed",
    );
    let filter = read("[server]\nlog = \"penstock=loud\"", &[]).unwrap_err();
    assert!(
        filter.starts_with("penstock.toml:2:7: log filter `penstock=loud`: "),
        "{filter}"
    );
    // An error in a flag has no place in the file.
    refused(
        "",
        &["--batching-prefetch", "9", "--model", "a=b"],
        "model `a`: prefetch is 9; 8 is the most",
    );
    refused(
        "[[model]]\nname = \"a\"\npath = \"b\"\n[model.batching]\nexecutors = 9",
        &[],
        "penstock.toml:5:13: model `a`: executors is 9; 8 is the most",
    );
    refused(
        "[server]\nio_threads = 5000",
        &[],
        "penstock.toml:2:14: io_threads is 5000; 4096 is the most",
    );
    refused(
        "[limits]\nqueue_texts_max = 9000000",
        &[],
        "penstock.toml:2:19: queue_texts_max is 9000000; 4194304 is the most",
    );
}

#[test]
fn a_format_that_the_device_never_has_is_refused() {
    refused(
        "[server]\ndevice = \"cuda:1\"\ndtype = \"int8\"",
        &[],
        "penstock.toml:3:9: dtype int8 is not computed on a gpu, which has f32, f16 and bf16; auto takes the best of them",
    );
    refused(
        "",
        &["--device", "cpu", "--dtype", "f16"],
        "dtype f16 is not computed on the cpu, which has f32, bf16 and int8; auto takes the best of them",
    );
    // The file is valid whether or not this machine has a GPU.
    for device in ["auto", "cuda", "cuda:0,1"] {
        assert!(read("", &["--device", device, "--dtype", "f16"]).is_ok());
    }
}

#[test]
fn a_setting_has_one_name_in_all_three_places() {
    let command = Settings::augment_args(Flags::command());
    for (section, keys) in sections() {
        for key in keys {
            let name = if section == "batching" {
                format!("batching_{key}")
            } else {
                key.clone()
            };
            let flag = name.replace('_', "-");
            let arg = command
                .get_arguments()
                .find(|arg| arg.get_long() == Some(flag.as_str()))
                .unwrap_or_else(|| panic!("[{section}] {key} has no flag --{flag}"));
            let env = format!("PENSTOCK_{}", name.to_uppercase());
            assert_eq!(
                arg.get_env().and_then(|env| env.to_str()),
                Some(env.as_str()),
                "--{flag}"
            );
        }
    }
}

/// Keys of each section, as the parser lists them when one is unknown.
fn sections() -> Vec<(&'static str, Vec<String>)> {
    ["server", "limits", "batching"]
        .into_iter()
        .map(|section| {
            let refused = read(&format!("[{section}]\n_______________ = 0"), &[]).unwrap_err();
            let known = refused.split_once("known here are ").unwrap().1;
            (section, known.split(", ").map(str::to_owned).collect())
        })
        .collect()
}

#[test]
fn the_manual_has_the_tables_of_the_rows() {
    let page = include_str!("../../docs/configuration.md");
    for (section, table) in manual() {
        let part = page.split(&format!("## `[{section}]`\n")).nth(1).unwrap();
        let part = part.split("\n## ").next().unwrap();
        let written: Vec<&str> = part.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(
            written,
            table.lines().collect::<Vec<_>>(),
            "[{section}] reads\n{table}"
        );
    }
}

fn rows() -> impl Iterator<Item = &'static Row> {
    let sections = [RawServer::rows(), RawLimits::rows(), RawBatching::rows()];
    sections.into_iter().flatten()
}

/// The file with one key, and a model that inherits it.
fn only(row: &Row, value: &str) -> String {
    format!(
        "[{}]\n{} = {value}\n[[model]]\nname = \"a\"\npath = \"b\"",
        row.section, row.key
    )
}

#[test]
fn the_default_of_a_row_is_what_a_flag_gives_and_a_file_shows() {
    for row in rows() {
        let Unset::Value(default) = &row.default else {
            continue;
        };
        let flag = format!("--{}={default}", row.flag);
        let flags = ["--model", "a=b", flag.as_str()];
        assert_eq!(read("", &flags), read("", &flags[..2]), "{flag}");
    }
}

#[test]
fn a_value_of_the_wrong_type_is_refused_at_its_place() {
    for row in rows() {
        let error = read(&only(row, "[]"), &[]).unwrap_err();
        let place = format!("penstock.toml:2:{}: ", row.key.len() + 4);
        assert!(error.starts_with(&place), "{error}");
    }
}

#[test]
fn a_bound_of_a_row_is_the_largest_value() {
    for row in rows() {
        let Some(most) = row.most else { continue };
        assert!(read(&only(row, &most.to_string()), &[]).is_ok(), "{}", row.key);
        let error = read(&only(row, &(most + 1).to_string()), &[]).unwrap_err();
        let reason = format!("{} is {}; {most} is the most", row.key, most + 1);
        assert!(error.ends_with(&reason), "{error}");
    }
}
