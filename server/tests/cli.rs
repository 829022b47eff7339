//! Tests of the program as a user runs it: help, exit codes, stdout and stderr.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "cli/connections.rs"]
mod connections;
#[path = "cli/logs.rs"]
mod logs;
#[path = "cli/output.rs"]
mod output;
#[path = "cli/serving.rs"]
mod serving;
#[path = "cli/stop.rs"]
mod stop;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::tempdir;

/// The sentiment model that lives in the repository.
fn sentiment() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../models/sentiment")
        .display()
        .to_string()
}

fn penstock() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_penstock"));
    // Penstock's variables of the calling shell must not reach the child.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PENSTOCK_") || name == "RUST_LOG")
    {
        command.env_remove(name);
    }
    command
}

/// Runs to the end with `input` on stdin.
fn run(args: &[&str], input: &[u8]) -> Output {
    let mut child = penstock()
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A child that ends early closes its stdin, which is no failure of the test.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Checks the exit code, and parts of stdout and stderr.
fn check(args: &[&str], code: i32, stdout: &[&str], stderr: &[&str]) {
    let output = run(args, b"");
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(
        output.status.code(),
        Some(code),
        "{args:?}\nstdout: {out}\nstderr: {err}"
    );
    for wanted in stdout {
        assert!(out.contains(wanted), "{args:?}: stdout lacks {wanted:?}:\n{out}");
    }
    for wanted in stderr {
        assert!(err.contains(wanted), "{args:?}: stderr lacks {wanted:?}:\n{err}");
    }
    assert!(
        code == 0 || out.is_empty(),
        "{args:?} failed and wrote to stdout: {out}"
    );
}

fn file(folder: &Path, name: &str, content: &str) -> String {
    let path: PathBuf = folder.join(name);
    fs::write(&path, content).unwrap();
    path.display().to_string()
}

/// Polls until it is so, for at most a minute.
fn wait_for(is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_mins(1), "waited in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn help_teaches() {
    check(
        &["--help"],
        0,
        &[
            "serve",
            "score",
            "check",
            "model",
            "Examples:",
            "penstock serve --model",
        ],
        &[],
    );
    let settings = [
        "--grpc-addr <ADDR:PORT>",
        "PENSTOCK_GRPC_ADDR",
        "[default: 127.0.0.1:8001]",
        "Limits:",
        "curl",
    ];
    check(&["serve", "--help"], 0, &settings, &[]);
    check(
        &["score", "--help"],
        0,
        &["--field", "JSON Lines", "Exit code: 0", "zcat"],
        &[],
    );
    check(&["check", "--help"], 0, &["FILE:LINE:COLUMN"], &[]);
    check(&["model", "inspect", "--help"], 0, &["DIR_OR_HF_ID"], &[]);
    check(&["--version"], 0, &[env!("CARGO_PKG_VERSION")], &[]);
}

#[test]
fn wrong_usage_is_exit_code_2() {
    check(&[], 2, &[], &["Usage"]);
    check(&["sreve"], 2, &[], &["serve"]);
    check(&["serve", "--thread", "2"], 2, &[], &["--threads"]);
    check(
        &["serve"],
        2,
        &[],
        &["no model to serve", "--model NAME=DIR_OR_HF_ID"],
    );
    check(
        &["serve", "--model", "a=b", "--device", "cuda:1,1"],
        2,
        &[],
        &["names cuda:1 twice"],
    );
    check(
        &["serve", "--model", "a=b", "--device", "cuda", "--dtype", "int8"],
        2,
        &[],
        &["int8 is not computed on a gpu"],
    );
    check(
        &["serve", "--drain-timeout", "5"],
        2,
        &[],
        &["`5` is no length of time"],
    );
    check(
        &["serve", "--config", "/nowhere.toml"],
        2,
        &[],
        &["/nowhere.toml: No such file"],
    );
}

#[test]
fn a_model_that_is_not_there_stops_the_server_and_is_logged_as_json() {
    let ports = [
        "--grpc-addr",
        "127.0.0.1:0",
        "--http-addr",
        "127.0.0.1:0",
        "--metrics-addr",
        "127.0.0.1:0",
    ];
    let args = [&["serve", "--model", "a=/nowhere"], ports.as_slice()].concat();
    check(&args, 1, &[], &["/nowhere"]);
    let output = run(&args, b"");
    let (program, log): (Vec<&str>, Vec<&str>) = text(&output.stderr)
        .lines()
        .partition(|line| line.starts_with("penstock: "));
    assert_eq!(
        program.len(),
        1,
        "the reason stands alone, for whoever started it"
    );
    // A pipe is no terminal, so the remaining lines are the JSON log.
    let log: Vec<Value> = log
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for entry in &log {
        for field in ["timestamp", "level", "message"] {
            assert!(entry[field].is_string(), "no {field} in {entry}");
        }
    }
    assert!(
        log.iter()
            .any(|entry| entry["level"] == "ERROR" && entry["model"] == "a"),
        "the failure is in the log: {log:?}"
    );
}

#[test]
fn check_shows_the_resolved_configuration() {
    let folder = tempdir().unwrap();
    let config = format!(
        "[[model]]\nname = \"sentiment\"\npath = '{}'\n[limits]\nqueue_texts_max = 9\n",
        sentiment()
    );
    let config = file(folder.path(), "penstock.toml", &config);
    let wanted = [
        "# sentiment: bert, sequence-classification, 2 labels",
        "queue_texts_max = 9",
        "texts_max = 1024",
    ];
    check(&["check", &config], 0, &wanted, &[]);
    let shown = run(&["check", &config], b"").stdout;
    let again = file(folder.path(), "again.toml", text(&shown));
    let body = |output: &[u8]| {
        text(output)
            .lines()
            .filter(|l| !l.starts_with("# /"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_eq!(
        body(&run(&["check", &again], b"").stdout),
        body(&shown),
        "what is shown is a config"
    );
}

#[test]
fn check_says_where_a_config_is_wrong() {
    let folder = tempdir().unwrap();
    let refused = |content: &str, reason: &str| {
        let config = file(folder.path(), "penstock.toml", content);
        check(&["check", &config], 2, &[], &[&format!("{config}:{reason}")]);
    };
    refused(
        "[server]\ngrcp_addr = \"x\"\n",
        "2:1: unknown key `grcp_addr`; did you mean `grpc_addr`?",
    );
    refused("[limits]\nqueue_texts_max = -1\n", "2:19: ");
    refused(
        "[[model]]\nname = \"m\"\npath = \"/nowhere\"\n",
        "3:8: /nowhere: not a folder",
    );
    refused("[server\n", "1:8: ");
    check(
        &["check", "/nowhere.toml"],
        2,
        &[],
        &["/nowhere.toml: No such file"],
    );
}

#[test]
fn inspect_describes_a_model() {
    let wanted = [
        "family      bert",
        "sequence-classification",
        "NEGATIVE, POSITIVE",
        "512 tokens",
        "F16",
        "parity",
    ];
    check(&["model", "inspect", &sentiment()], 0, &wanted, &[]);
    check(&["model", "inspect", "/nowhere"], 2, &[], &["/nowhere"]);
    let empty = tempdir().unwrap();
    check(
        &["model", "inspect", &empty.path().display().to_string()],
        2,
        &[],
        &["config.json"],
    );
}

/// The output lines as JSON, with the exit code and stderr.
fn score(args: &[&str], input: &[u8]) -> (Vec<Value>, Option<i32>, String) {
    let model = sentiment();
    let output = run(&[&["score", "--model", &model], args].concat(), input);
    let lines = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    (lines, output.status.code(), text(&output.stderr).to_owned())
}

#[test]
fn plain_lines_are_scored_in_order() {
    let input = "a wonderful, moving film\na dreadful waste of time\n\nplain good fun\n".repeat(200);
    let (lines, code, stderr) = score(&[], input.as_bytes());
    assert_eq!((lines.len(), code), (800, Some(0)), "{stderr}");
    assert!(stderr.contains("800 texts scored in"), "{stderr}");
    for (i, line) in lines.iter().enumerate() {
        assert_eq!(line["index"], i);
        let p = |label: &str| line["probabilities"][label].as_f64().unwrap();
        assert!((p("NEGATIVE") + p("POSITIVE") - 1.0).abs() < 1e-5);
        assert!((p(line["label"].as_str().unwrap()) - line["score"].as_f64().unwrap()).abs() < 1e-9);
        // The same text scores within 1e-5 in any batch, so it has the same label.
        assert_eq!(line["label"], lines[i % 4]["label"]);
    }
    assert_eq!(
        (&lines[0]["label"], &lines[1]["label"]),
        (&"POSITIVE".into(), &"NEGATIVE".into())
    );
}

#[test]
fn failed_records_are_written_with_their_errors() {
    let input = b"{\"id\":\"a\",\"text\":\"fine\"}\n{\"id\":2}\nnonsense\n{\"text\":\"good\"}\n";
    let (lines, code, stderr) = score(&[], input);
    assert_eq!((lines.len(), code), (4, Some(1)), "{stderr}");
    assert!(stderr.contains("2 texts scored, 2 failed"), "{stderr}");
    assert_eq!((&lines[0]["id"], &lines[1]["id"]), (&"a".into(), &2.into()));
    assert!(lines[0]["label"].is_string() && lines[3]["label"].is_string());
    assert_eq!(lines[1]["error"], "line 2: no field `text`; the record has id");
    assert!(
        lines[2]["error"]
            .as_str()
            .unwrap()
            .starts_with("line 3: not JSON")
    );
    assert_eq!(lines[3]["index"], 3);
}

#[test]
fn files_and_fields_can_be_named() {
    let folder = tempdir().unwrap();
    let input = file(
        folder.path(),
        "in.jsonl",
        "{\"body\":\"a fine film\",\"text\":7}\n",
    );
    let output = folder.path().join("out.jsonl").display().to_string();
    let (lines, code, stderr) = score(&["--input", &input, "--output", &output, "--field", "body"], b"");
    assert_eq!((lines.len(), code), (0, Some(0)), "{stderr}");
    let line: Value = serde_json::from_str(&fs::read_to_string(&output).unwrap()).unwrap();
    assert_eq!(line["label"], "POSITIVE");
}

#[test]
fn a_job_that_cannot_run_is_exit_code_2() {
    let model = sentiment();
    check(&["score", "--model", "/nowhere"], 2, &[], &["/nowhere"]);
    check(
        &["score", "--model", &model, "--input", "/nowhere.txt"],
        2,
        &[],
        &["/nowhere.txt: No such file"],
    );
    check(
        &["score", "--model", &model, "--input", "/"],
        2,
        &[],
        &["/: is a directory"],
    );
    check(
        &["score", "--model", &model, "--output", "/nowhere/out"],
        2,
        &[],
        &["/nowhere/out: No such file"],
    );
    let (lines, code, stderr) = score(&[], b"");
    assert_eq!(
        (lines.len(), code),
        (0, Some(0)),
        "nothing to do is done: {stderr}"
    );
}

#[test]
fn a_reader_that_leaves_ends_the_job_quietly() {
    let mut child = penstock()
        .args(["score", "--model", &sentiment()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // More than any pipe and every window hold, so the job would wait for its reader.
    let writer = std::thread::spawn(move || while stdin.write_all(b"one more text\n").is_ok() {});
    let mut first = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut first).unwrap();
    drop(stdout);
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""));
    writer.join().unwrap();
    assert!(first.starts_with("{\"index\":0,"), "{first}");
}
