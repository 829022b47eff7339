//! Matrix products of one shape by one library, and the machine's peaks for comparison. Each call is timed,
//! for a requested time, so that a runner can interleave them with libraries of other languages.

#[cfg(feature = "peers")]
mod peers;

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use penstock_kernels::{Activation, Cpu, Ops, Path, Precision, Priority, Threads, cpu::peak};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

/// Subjects of the feature `peers`.
const PEERS: &[&str] = if cfg!(feature = "peers") {
    &["rten-gemm", "ndarray (matrixmultiply)"]
} else {
    &[]
};
/// Rounds of multiply-adds in one timed call: about a millisecond.
const PEAK_ROUNDS: usize = 200_000;
/// More than any cache holds.
const MEMORY_BYTES: usize = 512 << 20;

/// `x` of `rows` by `inputs` times the transpose of a weight of `outputs` by `inputs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(default)]
pub struct Shape {
    /// Tokens.
    pub rows: usize,
    /// Values of each token.
    pub inputs: usize,
    /// Results of each token.
    pub outputs: usize,
}

impl Shape {
    fn operations(self) -> f64 {
        2.0 * self.rows as f64 * self.inputs as f64 * self.outputs as f64
    }
}

/// A requested burst.
#[derive(Clone, Debug, Deserialize)]
pub struct WantedProduct {
    /// One of `subjects`.
    pub subject: String,
    /// Shape of a product; a peak has none.
    #[serde(flatten)]
    pub shape: Shape,
    /// The burst ends after the call in which this time has passed.
    pub seconds: f64,
}

/// Results of a burst.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MeasuredProduct {
    /// Calls timed.
    pub calls: usize,
    /// Operations a nanosecond, or bytes if memory is read, by the median call.
    pub giga_per_second: f64,
    /// The same by the fastest call.
    pub giga_per_second_best: f64,
}

/// A timed operation: called with a budget, it returns the time of each call.
pub struct Subject {
    timed: Box<dyn FnMut(Duration) -> Result<Vec<Duration>>>,
    /// Operations or bytes of one call.
    work: f64,
}

impl Subject {
    fn new(work: f64, timed: impl FnMut(Duration) -> Result<Vec<Duration>> + 'static) -> Subject {
        Subject {
            timed: Box::new(timed),
            work,
        }
    }

    /// Calls it for the wanted time, after one call that is not counted.
    pub fn burst(&mut self, seconds: f64) -> Result<MeasuredProduct> {
        (self.timed)(Duration::ZERO)?;
        let mut times = (self.timed)(Duration::from_secs_f64(seconds))?;
        times.sort_unstable();
        let rate = |time: Duration| self.work / 1e9 / time.as_secs_f64().max(1e-9);
        Ok(MeasuredProduct {
            calls: times.len(),
            giga_per_second: rate(times[times.len() / 2]),
            giga_per_second_best: rate(times[0]),
        })
    }
}

/// Every name that `subject` knows on this processor: peaks first, then libraries.
pub fn subjects() -> Vec<String> {
    let precisions = precisions();
    let peaks = precisions.iter().map(|p| format!("peak {}", kind(*p)));
    let ours = precisions.iter().map(|p| format!("penstock {}", kind(*p)));
    peaks
        .chain(["memory".to_owned()])
        .chain(ours)
        .chain(["candle (gemm)".to_owned()])
        .chain(PEERS.iter().map(|name| (*name).to_owned()))
        .collect()
}

/// Prepares the subject `name` on `threads` threads; weights are packed here, if the library can. Crates that
/// use rayon take the threads of its own pool instead.
pub fn subject(name: &str, shape: Shape, threads: usize) -> Result<Subject> {
    match name.split_once(' ') {
        Some(("peak", format)) => Ok(registers(precision(format)?, threads)),
        Some(("penstock", format)) => penstock(precision(format)?, shape, threads),
        Some(("candle", _)) => candle(shape),
        None if name == "memory" => Ok(memory(threads)),
        #[cfg(feature = "peers")]
        _ if PEERS.contains(&name) => peers::subject(name, shape),
        _ => bail!("no subject `{name}`; there are {}", subjects().join(", ")),
    }
}

/// f32, bf16 where the processor has it, and int8 by the fastest way.
fn precisions() -> Vec<Precision> {
    let all = [
        Some(Precision::F32),
        Precision::bf16().ok(),
        Some(Precision::int8()),
    ];
    all.into_iter().flatten().collect()
}

fn kind(precision: Precision) -> &'static str {
    precision.format().name()
}

fn precision(format: &str) -> Result<Precision> {
    let found = precisions().into_iter().find(|p| kind(*p) == format);
    found.with_context(|| format!("no products in `{format}` on this processor"))
}

fn noise(count: usize) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(count as u64);
    (0..count).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// The time of each call, at least one.
fn timed<E>(budget: Duration, mut call: impl FnMut() -> Result<(), E>) -> Result<Vec<Duration>, E> {
    let mut times = Vec::new();
    let start = Instant::now();
    loop {
        let before = Instant::now();
        call()?;
        times.push(before.elapsed());
        if start.elapsed() >= budget {
            return Ok(times);
        }
    }
}

fn penstock(precision: Precision, shape: Shape, threads: usize) -> Result<Subject> {
    let (inp, out) = (shape.inputs, shape.outputs);
    let mut cpu = Cpu::on(Threads::new(threads)?, Path::best(), precision);
    let matrix = cpu.matrix(&noise(out * inp), None, out, inp)?;
    let (mut input, mut output) = (cpu.buffer(), cpu.buffer());
    cpu.write(&noise(shape.rows * inp), shape.rows, inp, &mut input)?;
    let timed = move |budget| {
        // One entry for all of them, as a forward has one for all of its products.
        let mut times = Vec::new();
        cpu.forward(&[], Priority::Urgent, |cpu| {
            let call = || cpu.linear(&input, &matrix, Activation::None, &mut output);
            times = timed(budget, call)?;
            Ok(())
        })?;
        Ok(times)
    };
    Ok(Subject::new(shape.operations(), timed))
}

fn candle(shape: Shape) -> Result<Subject> {
    let (x, weight) = (
        noise(shape.rows * shape.inputs),
        noise(shape.outputs * shape.inputs),
    );
    let left = Tensor::from_vec(x, (shape.rows, shape.inputs), &Device::Cpu)?;
    let right = Tensor::from_vec(weight, (shape.outputs, shape.inputs), &Device::Cpu)?.t()?;
    let timed = move |budget| {
        timed(budget, || {
            black_box(left.matmul(&right)?);
            Ok(())
        })
    };
    Ok(Subject::new(shape.operations(), timed))
}

/// Multiply-adds on registers only, on all threads at once, because cores that share their power have one
/// limit.
fn registers(precision: Precision, threads: usize) -> Subject {
    let (operations, _) = peak::multiply_adds(Path::best(), precision, 1);
    let timed = move |budget| {
        Ok(side_by_side(vec![(); threads], budget, |()| {
            black_box(peak::multiply_adds(Path::best(), precision, PEAK_ROUNDS));
        }))
    };
    Subject::new(operations * PEAK_ROUNDS as f64 * threads as f64, timed)
}

/// Reading, each thread its own part.
fn memory(threads: usize) -> Subject {
    let values = vec![1.0f32; MEMORY_BYTES / size_of::<f32>()];
    let timed = move |budget| {
        let parts = values.chunks(values.len().div_ceil(threads)).collect();
        Ok(side_by_side(parts, budget, |part| {
            black_box(peak::read(Path::best(), part));
        }))
    };
    Subject::new(MEMORY_BYTES as f64, timed)
}

/// Runs each part's calls on a thread that lives as long as the burst. New threads may share a core for some
/// milliseconds, until the scheduler separates them. Returns the times of all parts.
fn side_by_side<T: Copy + Send>(parts: Vec<T>, budget: Duration, call: impl Fn(T) + Sync) -> Vec<Duration> {
    let (call, times) = (&call, Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for part in parts {
            let times = &times;
            scope.spawn(move || {
                let own = timed(budget, || {
                    call(part);
                    Ok::<(), Infallible>(())
                });
                let mut all = times.lock().unwrap_or_else(PoisonError::into_inner);
                all.extend(own.into_iter().flatten());
            });
        }
    });
    times.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subject_can_be_timed() {
        let shape = Shape {
            rows: 3,
            inputs: 32,
            outputs: 64,
        };
        for name in subjects()
            .into_iter()
            .filter(|name| !name.starts_with("peak") && name != "memory")
        {
            let measured = subject(&name, shape, 1).unwrap().burst(0.0).unwrap();
            assert!(
                measured.calls == 1 && measured.giga_per_second > 0.0,
                "{name}: {measured:?}"
            );
        }
    }

    #[test]
    fn an_unknown_subject_is_named() {
        let error = subject("blas f32", Shape::default(), 1)
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains("blas f32") && error.contains("candle (gemm)"),
            "{error}"
        );
    }
}
