//! Wire-neutral side of a v2 answer: the tensors of each task, and rows as tensors.

use bytes::{BufMut, Bytes, BytesMut};
use penstock_core::{Rejection, Reply};
use penstock_models::{ModelSpec, Task};

use penstock_engine::rows::{self, Shape};

/// Name of the server in its metadata.
pub const SERVER_NAME: &str = "penstock";

/// Protocol extensions that the server supports on gRPC and HTTP.
pub const EXTENSIONS: [&str; 6] = [
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
];

/// The input of every text model.
pub const TEXT: &str = "text";

/// An output tensor of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The label with the highest probability.
    Label,
    /// Its probability.
    Score,
    /// Probabilities of every label.
    Probabilities,
    /// Logits of every label, before softmax or sigmoid.
    Logits,
    /// The vector.
    Embedding,
}

impl Output {
    /// The outputs of a task, in the order of the answer.
    pub fn of(task: Task) -> &'static [Output] {
        match task {
            Task::SequenceClassification => &[
                Output::Label,
                Output::Score,
                Output::Probabilities,
                Output::Logits,
            ],
            Task::Embedding => &[Output::Embedding],
        }
    }

    /// The tensor's name.
    pub fn name(self) -> &'static str {
        match self {
            Output::Label => "label",
            Output::Score => "score",
            Output::Probabilities => "probabilities",
            Output::Logits => "logits",
            Output::Embedding => "embedding",
        }
    }

    /// Whether a request without outputs gets it.
    pub fn is_default(self) -> bool {
        self != Output::Logits
    }

    /// The tensor's element type.
    pub fn datatype(self) -> &'static str {
        match self {
            Output::Label => "BYTES",
            Output::Score | Output::Probabilities | Output::Logits | Output::Embedding => "FP32",
        }
    }

    /// The tensor's shape in the metadata; -1 is the number of texts.
    pub fn shape(self, spec: &ModelSpec) -> Vec<i64> {
        match self {
            Output::Label | Output::Score => vec![-1],
            Output::Probabilities | Output::Logits => vec![-1, spec.labels.len() as i64],
            Output::Embedding => vec![-1, spec.hidden as i64],
        }
    }
}

/// Options of a request, kept until it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Returned in the response.
    pub id: String,
    /// The outputs with their requested names, in that order.
    pub outputs: Vec<(String, Output)>,
    /// Form of an embedding.
    pub shape: Shape,
    /// Whether the response is marked as the last one of its request, as Triton's decoupled models do.
    pub mark_final: bool,
}

/// An output tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor<'a> {
    /// Its requested name.
    pub name: &'a str,
    /// The first dimension is the number of texts.
    pub shape: Vec<usize>,
    /// The elements.
    pub values: Values<'a>,
}

/// The elements of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Values<'a> {
    /// FP32.
    Fp32(Vec<f32>),
    /// BYTES.
    Text(Vec<&'a str>),
}

impl Values<'_> {
    /// The element type's name.
    pub fn datatype(&self) -> &'static str {
        match self {
            Values::Fp32(_) => "FP32",
            Values::Text(_) => "BYTES",
        }
    }

    /// The binary form: little-endian numbers; each BYTES element after its length in four bytes.
    pub fn to_raw(&self) -> Bytes {
        match self {
            Values::Fp32(values) => {
                let mut raw = BytesMut::with_capacity(values.len() * 4);
                for v in values {
                    raw.put_f32_le(*v);
                }
                raw.freeze()
            }
            Values::Text(texts) => {
                let mut raw = BytesMut::with_capacity(texts.iter().map(|t| t.len() + 4).sum());
                for text in texts {
                    // A label comes from `config.json`, whose size is far below 4 GiB.
                    raw.put_u32_le(text.len() as u32);
                    raw.put_slice(text.as_bytes());
                }
                raw.freeze()
            }
        }
    }
}

/// The requested tensors.
pub fn tensors<'a>(
    asked: &'a Asked,
    spec: &'a ModelSpec,
    replies: &[&'a Reply],
) -> Result<Vec<Tensor<'a>>, Rejection> {
    asked
        .outputs
        .iter()
        .map(|(name, output)| tensor(name, *output, asked.shape, spec, replies))
        .collect()
}

fn tensor<'a>(
    name: &'a str,
    output: Output,
    shape: Shape,
    spec: &'a ModelSpec,
    replies: &[&'a Reply],
) -> Result<Tensor<'a>, Rejection> {
    let n = replies.len();
    let mut fp32 = Vec::new();
    let width = match output {
        Output::Label => {
            let labels = replies
                .iter()
                .map(|reply| Ok(rows::classified(spec, reply)?.label));
            let values = Values::Text(labels.collect::<Result<_, _>>()?);
            return Ok(Tensor {
                name,
                shape: vec![n],
                values,
            });
        }
        Output::Score => {
            fp32.reserve_exact(n);
            for reply in replies {
                fp32.push(rows::classified(spec, reply)?.score);
            }
            return Ok(Tensor {
                name,
                shape: vec![n],
                values: Values::Fp32(fp32),
            });
        }
        Output::Probabilities | Output::Logits => spec.labels.len(),
        Output::Embedding => shape.width(spec.hidden),
    };
    fp32.reserve_exact(n * width);
    for reply in replies {
        match output {
            Output::Probabilities => fp32.extend_from_slice(rows::classified(spec, reply)?.probabilities),
            Output::Logits => fp32.extend_from_slice(rows::classified(spec, reply)?.logits),
            Output::Embedding => shape.append(rows::embedded(spec, reply)?, &mut fp32),
            Output::Label | Output::Score => {}
        }
    }
    Ok(Tensor {
        name,
        shape: vec![n, width],
        values: Values::Fp32(fp32),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use penstock_models::testing::spec;

    fn asked(outputs: &[(&str, Output)]) -> Asked {
        Asked {
            id: String::new(),
            outputs: outputs
                .iter()
                .map(|&(name, output)| (name.to_owned(), output))
                .collect(),
            shape: Shape {
                normalize: true,
                dimensions: Some(2),
            },
            mark_final: false,
        }
    }

    #[test]
    fn a_classification_becomes_the_tensors_that_were_asked_for() {
        let spec = spec(Task::SequenceClassification, &["bad", "good"]);
        let replies = [
            Reply::Classes {
                logits: vec![2.0, -2.0],
                probabilities: vec![0.75, 0.25],
            },
            Reply::Classes {
                logits: vec![-1.0, 1.0],
                probabilities: vec![0.125, 0.875],
            },
        ];
        let replies: Vec<&Reply> = replies.iter().collect();
        let asked = asked(&[
            ("LABEL", Output::Label),
            ("score", Output::Score),
            ("logits", Output::Logits),
        ]);
        let tensors = tensors(&asked, &spec, &replies).unwrap();
        let expected = [
            Tensor {
                name: "LABEL",
                shape: vec![2],
                values: Values::Text(vec!["bad", "good"]),
            },
            Tensor {
                name: "score",
                shape: vec![2],
                values: Values::Fp32(vec![0.75, 0.875]),
            },
            Tensor {
                name: "logits",
                shape: vec![2, 2],
                values: Values::Fp32(vec![2.0, -2.0, -1.0, 1.0]),
            },
        ];
        assert_eq!(tensors, expected);
        assert_eq!(tensors[0].values.to_raw(), &b"\x03\0\0\0bad\x04\0\0\0good"[..]);
        assert_eq!(
            tensors[1].values.to_raw(),
            &[0, 0, 0x40, 0x3f, 0, 0, 0x60, 0x3f][..]
        );
    }

    #[test]
    fn an_embedding_is_shaped_row_by_row() {
        let spec = spec(Task::Embedding, &[]);
        let replies = [
            Reply::Embedding(vec![3.0, 4.0, 9.0, 9.0]),
            Reply::Embedding(vec![0.0, 2.0, 9.0, 9.0]),
        ];
        let replies: Vec<&Reply> = replies.iter().collect();
        let asked = asked(&[("embedding", Output::Embedding)]);
        let tensors = tensors(&asked, &spec, &replies).unwrap();
        assert_eq!(tensors[0].shape, [2, 2]);
        assert_eq!(tensors[0].values, Values::Fp32(vec![0.6, 0.8, 0.0, 1.0]));
    }
}
