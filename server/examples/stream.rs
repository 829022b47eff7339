//! Streams the texts of a JSON Lines file to a running server and prints scores and throughput.
//!
//! `cargo run --release -p penstock --example stream -- http://127.0.0.1:8001 sentiment texts.jsonl`

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use penstock_proto::text::result::Outcome;
use penstock_proto::text::text_service_client::TextServiceClient;
use penstock_proto::text::{Order, ScoreOptions, ScoreRequest, Text};
use tokio_stream::StreamExt;
use tonic::transport::Endpoint;

/// Texts of one message: some dozens keep the cost of a message small.
const TEXTS_PER_MESSAGE: usize = 8;

/// Scores that are printed in full; the rest is counted.
const SHOWN: usize = 12;

#[derive(serde::Deserialize)]
struct Line {
    text: String,
    label: Option<String>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [server, model, file] = args.as_slice() else {
        anyhow::bail!("usage: stream SERVER_URL MODEL TEXTS_JSONL")
    };
    let lines = read(file)?;
    let channel = Endpoint::from_shared(server.clone())?
        .tcp_nodelay(true)
        .connect()
        .await;
    let channel = channel.with_context(|| format!("cannot reach the server at {server}"))?;

    let started = Instant::now();
    let mut responses = TextServiceClient::new(channel)
        .score(tokio_stream::iter(requests(model, &lines)))
        .await?
        .into_inner();
    let mut report = Report::default();
    while let Some(response) = responses.next().await {
        for result in response?.results {
            report.take(&lines, result)?;
        }
    }
    report.print(&lines, started.elapsed())
}

fn read(file: &str) -> Result<Vec<Line>> {
    let text = std::fs::read_to_string(file).with_context(|| file.to_owned())?;
    let lines: Vec<Line> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .with_context(|| file.to_owned())?;
    ensure!(!lines.is_empty(), "{file} holds no line");
    Ok(lines)
}

fn requests(model: &str, lines: &[Line]) -> Vec<ScoreRequest> {
    let texts = lines.iter().enumerate().map(|(i, line)| Text {
        id: i.to_string(),
        text: line.text.clone(),
    });
    let texts: Vec<Text> = texts.collect();
    let options = ScoreOptions {
        model: model.to_owned(),
        order: Order::Completion.into(),
        ..ScoreOptions::default()
    };
    let mut messages: Vec<ScoreRequest> = texts
        .chunks(TEXTS_PER_MESSAGE)
        .map(|texts| ScoreRequest {
            options: None,
            texts: texts.to_vec(),
        })
        .collect();
    // Only the first message of a stream carries the options.
    if let Some(first) = messages.first_mut() {
        first.options = Some(options);
    }
    messages
}

#[derive(Default)]
struct Report {
    answered: usize,
    labelled: usize,
    right: usize,
}

impl Report {
    fn take(&mut self, lines: &[Line], result: penstock_proto::text::Result) -> Result<()> {
        let line = result.id.parse::<usize>().ok().and_then(|i| lines.get(i));
        let line =
            line.with_context(|| format!("the server answered an id that was not sent: {}", result.id))?;
        match result.outcome.context("a result without an outcome")? {
            Outcome::Error(error) => anyhow::bail!("text {}: {}", result.id, error.message),
            Outcome::Classification(class) => {
                if self.answered < SHOWN {
                    let short: String = line.text.chars().take(72).collect();
                    say(&format!("{:>9} {:.3}  {short}", class.label, class.score));
                }
                if let Some(label) = &line.label {
                    self.labelled += 1;
                    self.right += usize::from(*label == class.label);
                }
            }
            Outcome::Embedding(vector) => {
                if self.answered < SHOWN {
                    say(&format!("text {}: {} components", result.id, vector.values.len()));
                }
            }
        }
        self.answered += 1;
        Ok(())
    }

    fn print(self, lines: &[Line], took: Duration) -> Result<()> {
        ensure!(
            self.answered == lines.len(),
            "{} texts sent, {} answered",
            lines.len(),
            self.answered
        );
        let rate = self.answered as f64 / took.as_secs_f64();
        say(&format!(
            "\n{} texts in {:.2} s: {rate:.0} texts/s",
            self.answered,
            took.as_secs_f64()
        ));
        if self.labelled > 0 {
            say(&format!(
                "{} of {} labels as the people who rated them",
                self.right, self.labelled
            ));
        }
        Ok(())
    }
}

#[allow(clippy::print_stdout, reason = "an example: its output is its purpose")]
fn say(line: &str) {
    println!("{line}");
}
