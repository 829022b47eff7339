//! A whole process whose device is lost during a request: it becomes not ready, and ends with exit code 75.
//!
//! The process is this test again, with a model that reports a lost device. The program itself has no such
//! model.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what it expects by failing"
)]

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use penstock::app;
use penstock::commands::Failure;
use penstock_config::{self as config, Settings};
use penstock_core::{PackedTokens, Reply};
use penstock_engine::placement;
use penstock_engine::placement::choice::DeviceChoice;
use penstock_models::{KernelError, Model, ModelError, Pipelined};

/// Variable with the configuration file of the child process.
const CONFIG: &str = "DEVICE_LOST_CONFIG";

/// Fails on the first real text; warming texts hold token 0 only.
struct Losing {
    model: Box<dyn Model>,
    sent: VecDeque<PackedTokens>,
}

impl Model for Losing {
    fn forward(&mut self, batch: &PackedTokens) -> Result<Vec<Reply>, ModelError> {
        self.submit(batch)?;
        self.receive()
    }

    fn window(&self) -> usize {
        self.model.window()
    }

    fn pipelined(&mut self) -> Option<&mut dyn Pipelined> {
        Some(self)
    }
}

impl Pipelined for Losing {
    fn in_flight_max(&self) -> usize {
        2
    }

    fn submit(&mut self, batch: &PackedTokens) -> Result<(), ModelError> {
        self.sent.push_back(batch.clone());
        Ok(())
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn receive(&mut self) -> Result<Vec<Reply>, ModelError> {
        let batch = self.sent.pop_front().expect("a batch is on its way");
        if batch.ids.iter().any(|&id| id != 0) {
            return Err(ModelError::Kernel(KernelError::DeviceLost {
                device: "cuda:0".to_owned(),
                work: "waiting for a batch".to_owned(),
                reason: "lost on purpose".to_owned(),
            }));
        }
        self.model.forward(&batch)
    }
}

fn main() -> ExitCode {
    if let Some(file) = std::env::var_os(CONFIG) {
        return lose(Path::new(&file));
    }
    the_process_is_not_ready_and_ends_with_exit_code_75();
    ExitCode::SUCCESS
}

/// Serves as `penstock serve` does, with its exit code.
fn lose(file: &Path) -> ExitCode {
    let config = config::load(Some(file), Settings::default()).expect("a valid configuration");
    let placement =
        placement::place(&DeviceChoice::Cpu, config.dtype, penstock_models::probe).expect("a cpu");
    let wrap: penstock_engine::served_model::Wrap = Arc::new(|model| {
        let sent = VecDeque::new();
        Box::new(Losing { model, sent })
    });
    match app::serve_with(config, &placement, Some(wrap)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => Failure::Serve(failed).code(),
    }
}

fn the_process_is_not_ready_and_ends_with_exit_code_75() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("penstock.toml");
    let model = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../models/tests/families/bert-embedding-mean"
    );
    let port = "127.0.0.1:0";
    let text = format!(
        "[server]\ngrpc_addr = '{port}'\nhttp_addr = '{port}'\nmetrics_addr = '{port}'\n\
         [[model]]\nname = \"m\"\npath = '{model}'\ncheck_parity = false\n"
    );
    std::fs::write(&file, text).expect("written");
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .env(CONFIG, &file)
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test once more");
    let mut said = String::new();
    let out = child.stdout.take().expect("piped");
    BufReader::new(out).read_line(&mut said).expect("a line");
    let http = said
        .split_whitespace()
        .find_map(|word| word.strip_prefix("http="));
    let http = http.unwrap_or_else(|| panic!("no address in {said:?}"));

    let ready = || ask(http, "GET /v2/health/ready", "");
    assert_eq!(ready(), Some(200));
    let body = r#"{"inputs":[{"name":"text","datatype":"BYTES","shape":[1],"data":["a text"]}]}"#;
    let answered = ask(http, "POST /v2/models/m/infer", body);
    assert_eq!(answered, Some(503), "the request is to be tried elsewhere");
    // The answer may arrive before readiness changes, while the executor ends.
    let ends = std::time::Instant::now() + Duration::from_secs(20);
    while ready() == Some(200) {
        assert!(std::time::Instant::now() < ends, "ready without a device");
    }
    let status = child.wait().expect("its end");
    assert_eq!(status.code(), Some(75), "{status}");
}

/// Status of an HTTP request; `None` once nothing listens.
fn ask(to: &str, request: &str, body: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(to).ok()?;
    let length = body.len();
    let text = format!(
        "{request} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}
