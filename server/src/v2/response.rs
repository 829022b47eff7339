//! Wire-neutral side of a v2 answer: rows as tensors.

use bytes::{BufMut, Bytes, BytesMut};
use penstock_core::{Rejection, Reply};
use penstock_engine::rows::Shape;
use penstock_models::{Form, ModelSpec, Output, Value};

/// Options of a request, kept until it is answered.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Returned in the response.
    pub id: String,
    /// The outputs with their requested names, in that order.
    pub outputs: Vec<(String, &'static Output)>,
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
        .map(|(name, output)| tensor(name, output, asked.shape, spec, replies))
        .collect()
}

fn tensor<'a>(
    name: &'a str,
    output: &Output,
    shape: Shape,
    spec: &'a ModelSpec,
    replies: &[&'a Reply],
) -> Result<Tensor<'a>, Rejection> {
    let n = replies.len();
    let dimensions = match output.form {
        Form::Text | Form::Number => vec![n],
        Form::PerLabel => vec![n, spec.labels.len()],
        Form::Vector => vec![n, shape.width(spec.hidden)],
    };
    let mut values = match output.form {
        Form::Text => Values::Text(Vec::with_capacity(n)),
        Form::Number | Form::PerLabel | Form::Vector => {
            Values::Fp32(Vec::with_capacity(dimensions.iter().product()))
        }
    };
    for reply in replies {
        match ((output.read)(spec, reply)?, &mut values) {
            (Value::Text(text), Values::Text(texts)) => texts.push(text),
            (Value::Number(number), Values::Fp32(numbers)) => numbers.push(number),
            (Value::PerLabel(row), Values::Fp32(numbers)) => numbers.extend_from_slice(row),
            (Value::Vector(vector), Values::Fp32(numbers)) => shape.append(vector, numbers),
            (Value::Text(_), Values::Fp32(_)) | (_, Values::Text(_)) => {
                return Err(Rejection::Model(format!(
                    "output \"{}\" has another form than its description",
                    output.name
                )));
            }
        }
    }
    Ok(Tensor {
        name,
        shape: dimensions,
        values,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use penstock_models::Task;
    use penstock_models::testing::spec;

    fn asked(task: Task, names: &[&str]) -> Asked {
        let output = |name: &&str| {
            let of_name = |output: &&Output| output.name.eq_ignore_ascii_case(name);
            let output = task.outputs().iter().find(of_name).unwrap();
            ((*name).to_owned(), output)
        };
        Asked {
            id: String::new(),
            outputs: names.iter().map(output).collect(),
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
        let asked = asked(Task::SequenceClassification, &["LABEL", "score", "logits"]);
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
        let asked = asked(Task::Embedding, &["embedding"]);
        let tensors = tensors(&asked, &spec, &replies).unwrap();
        assert_eq!(tensors[0].shape, [2, 2]);
        assert_eq!(tensors[0].values, Values::Fp32(vec![0.6, 0.8, 0.0, 1.0]));
    }
}
