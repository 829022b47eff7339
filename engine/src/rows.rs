//! From a model's result for one text to the values a caller sees, the same for every protocol.

use penstock_core::{Rejection, Reply};
use penstock_models::{ModelSpec, normalize};

/// Requested form of an embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Scale it to unit length.
    pub normalize: bool,
    /// Keep only the first components; `None` keeps all. At most the model's own number.
    pub dimensions: Option<usize>,
}

impl Shape {
    /// The form that the model's folder defines.
    pub fn of(spec: &ModelSpec) -> Shape {
        Shape {
            normalize: spec.normalize,
            dimensions: None,
        }
    }

    /// Components of a shaped embedding.
    pub fn width(self, hidden: usize) -> usize {
        self.dimensions
            .map_or(hidden, |dimensions| dimensions.min(hidden))
    }

    /// Appends the shaped `vector` to `out`. Cutting comes first, because a part of a unit vector is no unit
    /// vector.
    pub fn append(self, vector: &[f32], out: &mut Vec<f32>) {
        let from = out.len();
        out.extend_from_slice(&vector[..self.width(vector.len())]);
        if self.normalize {
            normalize(&mut out[from..]);
        }
    }

    /// Shapes `vector` in place.
    pub fn apply(self, vector: &mut Vec<f32>) {
        vector.truncate(self.width(vector.len()));
        if self.normalize {
            normalize(vector);
        }
    }
}

/// A classification of one text, borrowed from its reply.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Classified<'a> {
    /// The label with the highest probability; the first one of equals.
    pub label: &'a str,
    /// Its probability.
    pub score: f32,
    /// One per label.
    pub probabilities: &'a [f32],
    /// One per label.
    pub logits: &'a [f32],
}

/// The reply of a classifier.
pub fn classified<'a>(spec: &'a ModelSpec, reply: &'a Reply) -> Result<Classified<'a>, Rejection> {
    let Reply::Classes {
        logits,
        probabilities,
    } = reply
    else {
        return Err(other_task(spec));
    };
    let mut best = 0;
    for (i, p) in probabilities.iter().enumerate() {
        if p.total_cmp(&probabilities[best]).is_gt() {
            best = i;
        }
    }
    match (spec.labels.get(best), probabilities.get(best)) {
        (Some(label), Some(&score)) => Ok(Classified {
            label,
            score,
            probabilities,
            logits,
        }),
        _ => Err(Rejection::Model(format!(
            "the model computed {} probabilities for {} labels",
            probabilities.len(),
            spec.labels.len()
        ))),
    }
}

/// The reply of an embedding model, not yet shaped.
pub fn embedded<'a>(spec: &ModelSpec, reply: &'a Reply) -> Result<&'a [f32], Rejection> {
    match reply {
        Reply::Embedding(vector) => Ok(vector),
        Reply::Classes { .. } | Reply::Tokens { .. } => Err(other_task(spec)),
    }
}

fn other_task(spec: &ModelSpec) -> Rejection {
    Rejection::Model(format!(
        "the model's task is {}, its reply is of another",
        spec.task.name()
    ))
}

#[cfg(test)]
mod tests {
    use penstock_models::Task;
    use penstock_models::testing::spec;

    use super::*;

    #[test]
    fn an_embedding_is_cut_before_it_is_normalised() {
        let mut out = vec![9.0];
        Shape {
            normalize: true,
            dimensions: Some(2),
        }
        .append(&[3.0, 4.0, 12.0], &mut out);
        assert_eq!(out, [9.0, 0.6, 0.8]);
        Shape {
            normalize: false,
            dimensions: None,
        }
        .append(&[3.0, 4.0], &mut out);
        assert_eq!(out, [9.0, 0.6, 0.8, 3.0, 4.0]);
    }

    #[test]
    fn the_first_of_equal_labels_wins() {
        let spec = spec(Task::SequenceClassification, &["no", "yes", "maybe"]);
        let reply = Reply::Classes {
            logits: vec![0.0, 1.0, 1.0],
            probabilities: vec![0.2, 0.4, 0.4],
        };
        let row = classified(&spec, &reply).unwrap();
        assert_eq!((row.label, row.score), ("yes", 0.4));
        assert!(embedded(&spec, &reply).is_err());
    }

    #[test]
    fn a_reply_with_more_rows_than_labels_is_the_models_fault() {
        let spec = spec(Task::SequenceClassification, &["only"]);
        let reply = Reply::Classes {
            logits: vec![0.0, 1.0],
            probabilities: vec![0.2, 0.8],
        };
        assert!(matches!(classified(&spec, &reply), Err(Rejection::Model(_))));
    }
}
