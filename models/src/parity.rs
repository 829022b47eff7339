//! `parity.json`: texts with the outputs of the original implementation, compared with the loaded model.

use std::path::{Path, PathBuf};

use penstock_core::{PackedTokens, Reply};
use serde::Deserialize;

use crate::device::Fidelity;
use crate::files::read_json;
use crate::{Model, ModelError, ModelSpec, Problem, Task, TextTokenizer, normalize};

/// Tokens of a batch: enough to keep the device busy, few enough to need little memory.
const BATCH_TOKENS: usize = 4096;

/// The file, without the keys that are for human readers.
#[derive(Deserialize)]
struct Raw {
    format: u32,
    task: String,
    max_length: usize,
    tolerance: f32,
    cases: Vec<Case>,
}

/// One text with the ids and outputs of the original.
#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    /// Logits, or the final embedding.
    output: Vec<f32>,
}

/// The parity file of a model folder.
pub(crate) struct Parity {
    file: PathBuf,
    raw: Raw,
}

impl Parity {
    /// Reads the file, where `folder` has one.
    pub fn read(folder: &Path) -> Result<Option<Parity>, ModelError> {
        let file = folder.join("parity.json");
        let Some(raw) = read_json::<Raw>(&file)? else {
            return Ok(None);
        };
        if raw.format != 1 {
            return Err(ModelError::unsupported(&file, "format", raw.format, "1"));
        }
        if !Task::ALL.iter().any(|t| t.name() == raw.task) {
            let supported = Task::ALL.map(Task::name).join(", ");
            return Err(ModelError::unsupported(&file, "task", &raw.task, &supported));
        }
        if !(raw.tolerance.is_finite() && raw.tolerance > 0.0) {
            return Err(ModelError::unsupported(
                &file,
                "tolerance",
                raw.tolerance,
                "a finite number above 0",
            ));
        }
        Ok(Some(Parity { file, raw }))
    }

    /// Number of texts.
    pub fn cases(&self) -> usize {
        self.raw.cases.len()
    }

    /// True where the outputs are those of `task`.
    pub fn is_for(&self, task: Task) -> bool {
        self.raw.task == task.name()
    }

    /// Runs every text and compares ids and outputs; the first case that differs is the error.
    pub fn check(
        &self,
        spec: &ModelSpec,
        tokenizer: &TextTokenizer,
        model: &mut dyn Model,
        fidelity: Fidelity,
    ) -> Result<(), ModelError> {
        if !self.is_for(spec.task) {
            return Err(ModelError::unsupported(
                &self.file,
                "task",
                &self.raw.task,
                spec.task.name(),
            ));
        }
        if self.raw.max_length == 0 || self.raw.max_length > model.window() {
            let supported = format!("1 to {}", model.window());
            return Err(ModelError::unsupported(
                &self.file,
                "max_length",
                self.raw.max_length,
                &supported,
            ));
        }
        let mut batch = PackedTokens::with_capacity(0, 0);
        let (mut first, mut other_labels, mut cosines) = (0, 0, 0.0);
        for (i, case) in self.raw.cases.iter().enumerate() {
            let ids = tokenizer
                .encode_to(&case.text, true, self.raw.max_length)
                .map_err(|e| self.differs(i, e.to_string()))?;
            if ids.as_slice() != case.ids {
                let at = ids
                    .as_slice()
                    .iter()
                    .zip(&case.ids)
                    .take_while(|(a, b)| a == b)
                    .count();
                let (found, expected) = (ids.as_slice().get(at), case.ids.get(at));
                let difference = format!("token {at} is {found:?}, the original has {expected:?}");
                return Err(self.differs(i, difference));
            }
            batch.push(ids.as_slice());
            if batch.tokens() >= BATCH_TOKENS || i + 1 == self.raw.cases.len() {
                let replies = model.forward(&batch)?;
                for (reply, case) in replies.into_iter().zip(first..) {
                    let found = output(reply, spec.normalize);
                    self.compare(case, &found, fidelity)?;
                    let expected = &self.raw.cases[case].output;
                    cosines += f64::from(cosine(&found, expected));
                    other_labels += usize::from(largest(&found) != largest(expected));
                }
                batch = PackedTokens::with_capacity(0, 0);
                first = i + 1;
            }
        }
        if let Fidelity::Rounded {
            cosine_min,
            labels_min,
        } = fidelity
        {
            self.near(cosines, cosine_min)?;
            // Labels exist where each text has one of several; elsewhere only values can be compared.
            if spec.task == Task::SequenceClassification && spec.problem == Problem::SingleLabel {
                self.agree(other_labels, labels_min)?;
            }
        }
        Ok(())
    }

    fn compare(&self, case: usize, found: &[f32], fidelity: Fidelity) -> Result<(), ModelError> {
        let expected = &self.raw.cases[case].output;
        if found.len() != expected.len() {
            let difference = format!("{} values, the original has {}", found.len(), expected.len());
            return Err(self.differs(case, difference));
        }
        let (most, tolerance) = (furthest(found, expected), self.raw.tolerance);
        if fidelity == Fidelity::Exact && most > tolerance {
            return Err(self.differs(
                case,
                format!("the largest difference is {most:e}, allowed are {tolerance:e}"),
            ));
        }
        Ok(())
    }

    /// Checks the mean cosine over all texts. A single text proves little: two logits near zero may turn by any angle.
    fn near(&self, cosines: f64, cosine_min: f32) -> Result<(), ModelError> {
        let mean = (cosines / self.cases().max(1) as f64) as f32;
        // The condition is written so that NaN is refused.
        if mean >= cosine_min {
            return Ok(());
        }
        Err(ModelError::Cosine {
            file: self.file.clone(),
            mean,
            mean_min: cosine_min,
        })
    }

    /// Checks the share of equal labels. In f32 this is not needed: the tolerance of the values is smaller than any
    /// doubt about a label that matters.
    fn agree(&self, others: usize, labels_min: f32) -> Result<(), ModelError> {
        let cases = self.cases();
        let share = 1.0 - others as f32 / cases.max(1) as f32;
        if share >= labels_min {
            return Ok(());
        }
        Err(ModelError::Labels {
            file: self.file.clone(),
            others,
            cases,
            share_min: labels_min,
        })
    }

    fn differs(&self, case: usize, difference: String) -> ModelError {
        ModelError::Parity {
            file: self.file.clone(),
            case,
            difference,
        }
    }
}

/// The largest difference; infinite where a value is not finite.
fn furthest(found: &[f32], expected: &[f32]) -> f32 {
    let distance = |(f, e): (&f32, &f32)| {
        if f.is_finite() {
            (f - e).abs()
        } else {
            f32::INFINITY
        }
    };
    found.iter().zip(expected).map(distance).fold(0.0, f32::max)
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum() };
    (dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()) as f32
}

/// The position of the largest value.
fn largest(values: &[f32]) -> Option<usize> {
    (0..values.len()).max_by(|&a, &b| values[a].total_cmp(&values[b]))
}

/// The values that the original returns as its output.
fn output(reply: Reply, normalized: bool) -> Vec<f32> {
    match reply {
        Reply::Classes { logits, .. } => logits,
        Reply::Embedding(mut vector) => {
            if normalized {
                normalize(&mut vector);
            }
            vector
        }
    }
}
