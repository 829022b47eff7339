//! `penstock score`: a file through the same line as every request, and out again in its order.
//!
//! A thread reads windows of records, several windows are scored at once so that batches are full, and
//! their lines are written in the order of the input. What is in memory is bounded by the windows in
//! flight, whatever the size of the file.

mod lines;
mod records;

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Failure;
use crate::app::{self, Engine};
use crate::cli::ScoreArgs;
use crate::config::{self, Config};
use crate::device::{self, Placement};
use crate::logging;
use lines::Lines;
use records::{Records, Window};

/// Windows that are read, scored or written at once.
const WINDOWS: usize = 16;
/// The name under which the one model runs.
const MODEL: &str = "model";
/// A job has no clients to cut off; what is inside at its end is done in one batch.
const STOP_TIMEOUT: Duration = Duration::from_mins(1);

type Input = Box<dyn Read + Send>;

/// What became of the records.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    scored: u64,
    failed: u64,
}

pub(super) fn score(args: ScoreArgs) -> Result<ExitCode, Failure> {
    let config = config::load(None, args.settings.with_model(MODEL, &args.model))?;
    logging::init(&config.log, config.log_format);
    let placement = device::place(&config.device, config.dtype, penstock_models::probe)?;
    // Both ends are opened before a model is loaded: a wrong name is told at once.
    let (input, bytes) = open(&args.input)?;
    let output = create(&args.output)?;
    let bar = progress(bytes);
    let started = Instant::now();
    let records = Records::new(input, args.field);
    let runtime = app::runtime(config.io_threads).map_err(Failure::Engine)?;
    let names = Names {
        input: name(&args.input, "stdin"),
        output: name(&args.output, "stdout"),
    };
    let outcome = runtime.block_on(run((&config, &placement), records, output, &bar, &names));
    bar.finish_and_clear();
    // The reader may still wait for a line of stdin that nobody will score.
    runtime.shutdown_background();
    let tally = outcome?;
    say(&report(tally, started.elapsed()));
    Ok(if tally.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What the two files are called in errors.
struct Names {
    input: String,
    output: String,
}

async fn run(
    (config, placement): (&Config, &Placement),
    records: Records<Input>,
    mut output: Box<dyn Write>,
    bar: &ProgressBar,
    names: &Names,
) -> Result<Tally, Failure> {
    let engine = Engine::start(config, placement).await.map_err(Failure::Engine)?;
    let (windows, windows_out) = mpsc::channel(WINDOWS);
    std::thread::Builder::new()
        .name("read".into())
        .spawn(move || read(records, &windows))
        .map_err(|e| Failure::io(&names.input, e))?;
    let front = Arc::clone(engine.front());
    let mut scored = ReceiverStream::new(windows_out)
        .map(|window: io::Result<Window>| {
            let front = Arc::clone(&front);
            async move {
                match window {
                    Ok(window) => Ok(lines::score(&front, MODEL, window).await),
                    Err(e) => Err(e),
                }
            }
        })
        .buffered(WINDOWS);
    let mut tally = Tally::default();
    while let Some(lines) = scored.next().await {
        let Lines {
            text,
            read,
            records,
            failed,
        } = lines.map_err(|e| Failure::io(&names.input, e))?;
        output
            .write_all(&text)
            .map_err(|e| Failure::io(&names.output, e))?;
        tally.scored += records - failed;
        tally.failed += failed;
        bar.inc(read);
        bar.set_message(format!("{} texts", tally.scored + tally.failed));
    }
    output.flush().map_err(|e| Failure::io(&names.output, e))?;
    drop(scored);
    drop(front);
    engine.stop(STOP_TIMEOUT).await.map_err(Failure::Engine)?;
    Ok(tally)
}

/// Reads until the end, an error, or until nobody scores any more.
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

/// The input and, where it is known, its size.
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

fn create(path: &Path) -> Result<Box<dyn Write>, Failure> {
    if is_standard(path) {
        return Ok(Box::new(BufWriter::new(io::stdout())));
    }
    let file = File::create(path).map_err(|e| Failure::io(path.display().to_string(), e))?;
    Ok(Box::new(BufWriter::new(file)))
}

/// A bar where the size is known, a count where it is not, and nothing where stderr is no terminal.
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
    let Tally { scored, failed } = tally;
    let seconds = took.as_secs_f64();
    let rate = (scored + failed) as f64 / seconds.max(1e-3);
    let failed = if failed == 0 {
        String::new()
    } else {
        format!(", {failed} failed (see their `error`)")
    };
    format!("{scored} texts scored{failed} in {seconds:.1} s, {rate:.0} texts/s, the start included")
}

fn say(line: &str) {
    // A closed stderr is no reason to fail a job that is done.
    let _ = writeln!(io::stderr(), "{line}");
}
