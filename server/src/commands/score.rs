//! `penstock score`: a file through the same data path as every request, in its own order.
//!
//! A thread reads windows of records. Several windows are scored at once, so that batches are full, and their
//! lines are written in the order of the input. The windows in flight bound the memory, whatever the size of
//! the file. An output file gets its name when the job is complete.

mod destination;
mod lines;
mod output;
mod records;
mod signals;

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{Failure, start_logging};
use penstock_engine::engine::Engine;

use crate::app;
use crate::cli::ScoreArgs;
use destination::Destination;
use lines::Lines;
use output::{JobOutput, NotRenamed};
use penstock_config::{self as config, Config};
use penstock_engine::placement::{self, Placement};
use penstock_engine::service::InferenceService;
use records::{Records, Window};
pub use signals::StopSignal;
use signals::{Signals, StopReceiver};

/// Windows that are read, scored or written at once.
const WINDOWS: usize = 16;
/// The name under which the one model runs.
const MODEL: &str = "model";
/// Drain timeout of a job: it has no clients, and its last requests fit one batch.
const STOP_TIMEOUT: Duration = Duration::from_mins(1);
/// Longest wait for the reader of an output stream when a job ends early.
const LAST_LINES_WAIT: Duration = Duration::from_secs(5);

type Input = Box<dyn Read + Send>;

/// Counts of records.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    scored: u64,
    failed: u64,
}

pub(super) fn score(args: ScoreArgs) -> Result<ExitCode, Failure> {
    let config = config::load(None, args.settings.with_model(MODEL, &args.model))?;
    start_logging(&config)?;
    let placement = placement::place(&config.device, config.dtype, penstock_models::probe)?;
    let input_name = name(&args.input, "stdin");
    let output_name = name(&args.output, "stdout");
    // Both ends are opened before a model is loaded, so that a wrong name is reported at once.
    let at_output = |e| Failure::io(&output_name, e);
    destination::check_distinct(&args.input, &args.output).map_err(at_output)?;
    let (input, bytes) = open(&args.input)?;
    let destination = Destination::find(&args.output).map_err(at_output)?;
    let job = Job {
        config: &config,
        placement: &placement,
        bar: &progress(bytes),
        input_name,
        output_name: output_name.clone(),
    };
    let records = Records::new(input, args.field);
    let started = Instant::now();
    let runtime = app::runtime(config.io_threads).map_err(Failure::Engine)?;
    let outcome = runtime.block_on(async {
        // Signals first: once the unfinished file exists, no signal may end the process without removing it.
        let signals = Signals::take_over().map_err(Failure::Engine)?;
        let output = JobOutput::create(destination, output_name.clone()).map_err(at_output)?;
        let stop = signals.listen(output.unfinished());
        job.run(records, output, stop).await
    });
    job.bar.finish_and_clear();
    // The reader may still wait for a line of stdin that will not be scored.
    runtime.shutdown_background();
    let tally = outcome?;
    say(&report(tally, started.elapsed()));
    Ok(if tally.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Settings of a job, and the names of its files in messages.
struct Job<'a> {
    config: &'a Config,
    placement: &'a Placement,
    bar: &'a ProgressBar,
    input_name: String,
    output_name: String,
}

impl Job<'_> {
    /// Scores every record, or reports its progress.
    async fn run(
        &self,
        records: Records<Input>,
        mut output: JobOutput,
        mut stop: StopReceiver,
    ) -> Result<Tally, Failure> {
        let mut tally = Tally::default();
        let settings = self.config.engine();
        let engine = tokio::select! {
            biased;
            signal = stop.requested() => {
                self.tell(tally, &mut output).await;
                return Err(Failure::Stopped(signal));
            }
            engine = Engine::start(&settings, self.placement) => engine.map_err(|e| Failure::Engine(e.into()))?,
        };
        // A stop drops the windows in flight, which cancels their texts.
        let written = tokio::select! {
            biased;
            signal = stop.requested() => Err(Failure::Stopped(signal)),
            written = self.write_all(engine.service(), records, &mut output, &mut tally) => written,
        };
        let published = written.and_then(|()| output.publish().map_err(|e| self.not_renamed(&e)));
        match &published {
            Ok(()) | Err(Failure::NobodyReads) => {}
            Err(_) => self.tell(tally, &mut output).await,
        }
        let stopped = engine
            .stop(STOP_TIMEOUT)
            .await
            .map_err(|e| Failure::Engine(e.into()));
        published.and(stopped).map(|()| tally)
    }

    /// Scores every record and writes its line.
    async fn write_all(
        &self,
        service: &Arc<InferenceService>,
        records: Records<Input>,
        output: &mut JobOutput,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        let at_input = |e| Failure::io(&self.input_name, e);
        let at_output = |e| Failure::io(&self.output_name, e);
        let (windows, windows_out) = mpsc::channel(WINDOWS);
        std::thread::Builder::new()
            .name("read".into())
            .spawn(move || read(records, &windows))
            .map_err(at_input)?;
        let mut scored = ReceiverStream::new(windows_out)
            .map(|window: io::Result<Window>| async move {
                match window {
                    Ok(window) => Ok(lines::score(service, MODEL, window).await),
                    Err(e) => Err(e),
                }
            })
            .buffered(WINDOWS);
        while let Some(lines) = scored.next().await {
            let Lines {
                text,
                read,
                records,
                failed,
            } = lines.map_err(at_input)?;
            tally.scored += records - failed;
            tally.failed += failed;
            output.write(text).await.map_err(at_output)?;
            self.bar.inc(read);
            self.bar
                .set_message(format!("{} texts", tally.scored + tally.failed));
        }
        output.finish().await.map_err(at_output)
    }

    /// Reports the progress of an unfinished job, and the state of its output.
    async fn tell(&self, tally: Tally, output: &mut JobOutput) {
        let left = output.abandon(LAST_LINES_WAIT).await;
        self.bar.finish_and_clear();
        say(&format!("{}; {left}", count(tally)));
    }

    fn not_renamed(&self, error: &NotRenamed) -> Failure {
        let NotRenamed { reason, kept } = error;
        let kept = kept.as_ref().map_or_else(String::new, |path| {
            format!("; the finished output is {}", path.display())
        });
        Failure::Io {
            name: self.output_name.clone(),
            source: io::Error::new(reason.kind(), format!("cannot be replaced: {reason}{kept}")),
        }
    }
}

/// Reads until the end, an error, or until the receiver is gone.
fn read(mut records: Records<Input>, windows: &mpsc::Sender<io::Result<Window>>) {
    loop {
        let window = records.next_window();
        let last = match &window {
            Ok(window) => window.records.is_empty(),
            Err(_) => true,
        };
        let ended = last && window.is_ok();
        if ended || windows.blocking_send(window).is_err() || last {
            return;
        }
    }
}

fn is_standard(path: &Path) -> bool {
    path == Path::new("-")
}

fn name(path: &Path, standard: &str) -> String {
    if is_standard(path) {
        standard.to_owned()
    } else {
        path.display().to_string()
    }
}

/// The input and, if known, its size.
fn open(path: &Path) -> Result<(BufReader<Input>, Option<u64>), Failure> {
    if is_standard(path) {
        return Ok((BufReader::new(Box::new(io::stdin())), None));
    }
    let failed = |e| Failure::io(path.display().to_string(), e);
    let file = File::open(path).map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    if about.is_dir() {
        return Err(failed(io::Error::from(io::ErrorKind::IsADirectory)));
    }
    let bytes = about.is_file().then_some(about.len());
    Ok((BufReader::with_capacity(1 << 18, Box::new(file)), bytes))
}

/// A bar if the size is known, otherwise a count; nothing if stderr is no terminal.
fn progress(bytes: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(bytes, ProgressDrawTarget::stderr());
    let template = match bytes {
        Some(_) => "{bar:40} {percent:>3} %  {msg}  {elapsed}, {eta} to go",
        None => "{spinner} {msg}  {elapsed}",
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn report(tally: Tally, took: Duration) -> String {
    let seconds = took.as_secs_f64();
    let rate = (tally.scored + tally.failed) as f64 / seconds.max(1e-3);
    let count = count(tally);
    format!("{count} in {seconds:.1} s, {rate:.0} texts/s, the start included")
}

fn count(tally: Tally) -> String {
    match tally {
        Tally { scored, failed: 0 } => format!("{scored} texts scored"),
        Tally { scored, failed } => format!("{scored} texts scored, {failed} failed (see their `error`)"),
    }
}

fn say(line: &str) {
    // A closed stderr does not fail a finished job.
    let _ = writeln!(io::stderr(), "{line}");
}
