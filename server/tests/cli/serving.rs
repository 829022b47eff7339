//! A running `penstock serve` with the sentiment model, and plain HTTP over its ports.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{penstock, sentiment};

/// A body that scores one text.
pub const ONE_TEXT: &str =
    r#"{"inputs":[{"name":"text","datatype":"BYTES","shape":[1],"data":["a fine film"]}]}"#;
/// The route that takes it.
pub const INFER: &str = "/v2/models/sentiment/infer";

/// A server on free ports; killed when dropped.
pub struct Serving {
    pub child: Child,
    pub grpc: String,
    pub http: String,
    pub metrics: String,
}

/// The command that serves on free ports, with further flags.
pub fn serve(flags: &[&str]) -> Command {
    let mut command = penstock();
    command.args(["serve", "--model", &format!("sentiment={}", sentiment())]);
    for port in ["grpc", "http", "metrics"] {
        command.args([&format!("--{port}-addr"), "127.0.0.1:0"]);
    }
    command.args(flags);
    command
}

impl Serving {
    /// Starts `command` and waits until it is ready.
    pub fn start(command: &mut Command) -> Serving {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut ready).unwrap();
        let addr = |name: &str| {
            let named = |word: &str| Some(word.strip_prefix(name)?.strip_prefix('=')?.to_owned());
            let found = ready.split_whitespace().find_map(named);
            found.unwrap_or_else(|| panic!("{name} is not in {ready:?}"))
        };
        Serving {
            grpc: addr("grpc"),
            http: addr("http"),
            metrics: addr("metrics"),
            child,
        }
    }

    /// Status and body of an inference.
    pub fn infer(&self, body: &str) -> (u16, String) {
        exchange(&self.http, &post(INFER, body))
    }

    /// The value of a series, named as on the page.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, page) = get(&self.metrics, "/metrics");
        let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
        page.lines()
            .find_map(value)
            .unwrap_or_else(|| panic!("{name} is not on the page"))
    }

    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Exit code after SIGTERM.
    pub fn stop(mut self) -> Option<i32> {
        self.signal("TERM");
        self.child.wait().unwrap().code()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // A process that has ended cannot be killed, which is as wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Status and body of a GET on a connection of its own.
pub fn get(addr: &str, path: &str) -> (u16, String) {
    exchange(
        addr,
        &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"),
    )
}

/// A whole POST request, after which the connection closes.
pub fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends `request` and reads the answer to its end.
pub fn exchange(addr: &str, request: &str) -> (u16, String) {
    let mut stream = connect(addr);
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no head in {answer:?}"));
    let status = head
        .split_whitespace()
        .nth(1)
        .and_then(|status| status.parse().ok());
    (
        status.unwrap_or_else(|| panic!("no status in {head:?}")),
        body.to_owned(),
    )
}

/// A connection whose reads end after a minute.
pub fn connect(addr: &str) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    stream
}
