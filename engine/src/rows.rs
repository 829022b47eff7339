//! From a model's result for one text to the values a caller sees, the same for every protocol.

use penstock_core::{Rejection, Reply};
use penstock_models::{ModelSpec, Value, normalize};
use serde::ser::{Serialize, SerializeMap, Serializer};

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

/// The default outputs of one input as a JSON object, in the order of an answer. A Kafka record and a line of a
/// file are made of it.
pub struct Object<'a> {
    values: Vec<(&'static str, Value<'a>)>,
    shape: Shape,
    /// Labels as names of the numbers of [`Value::PerLabel`]; `None` writes an array.
    labels: Option<&'a [String]>,
}

impl<'a> Object<'a> {
    /// The object of `reply`, in the form that the model's folder defines.
    pub fn of(spec: &'a ModelSpec, reply: &'a Reply) -> Result<Object<'a>, Rejection> {
        let defaults = spec.task.outputs().iter().filter(|output| output.is_default);
        let values = defaults.map(|output| Ok((output.name, (output.read)(spec, reply)?)));
        Ok(Object {
            values: values.collect::<Result<_, Rejection>>()?,
            shape: Shape::of(spec),
            labels: None,
        })
    }

    /// The object with numbers by label instead of arrays.
    #[must_use]
    pub fn by_label(self, spec: &'a ModelSpec) -> Object<'a> {
        Object {
            labels: Some(&spec.labels),
            ..self
        }
    }
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(Some(self.values.len()))?;
        for (name, value) in &self.values {
            match (value, self.labels) {
                (Value::Text(text), _) => object.serialize_entry(name, text)?,
                (Value::Number(number), _) => object.serialize_entry(name, number)?,
                (Value::PerLabel(numbers), None) => object.serialize_entry(name, numbers)?,
                (Value::PerLabel(numbers), Some(labels)) => {
                    object.serialize_entry(name, &ByLabel { labels, numbers })?;
                }
                (Value::Vector(vector), _) => {
                    let mut shaped = Vec::with_capacity(vector.len());
                    self.shape.append(vector, &mut shaped);
                    object.serialize_entry(name, &shaped)?;
                }
            }
        }
        object.end()
    }
}

/// Label to number, in the model's order.
struct ByLabel<'a> {
    labels: &'a [String],
    numbers: &'a [f32],
}

impl Serialize for ByLabel<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.labels.iter().zip(self.numbers))
    }
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
    fn an_object_holds_the_default_outputs_in_order() {
        let spec = spec(Task::SequenceClassification, &["no", "yes"]);
        let reply = Reply::Classes {
            logits: vec![0.0, 1.0],
            probabilities: vec![0.25, 0.75],
        };
        let object = Object::of(&spec, &reply).unwrap();
        let json = serde_json::to_string(&object).unwrap();
        assert_eq!(
            json,
            r#"{"label":"yes","score":0.75,"probabilities":[0.25,0.75]}"#
        );
        let json = serde_json::to_string(&object.by_label(&spec)).unwrap();
        assert_eq!(
            json,
            r#"{"label":"yes","score":0.75,"probabilities":{"no":0.25,"yes":0.75}}"#
        );
        let vector = Reply::Embedding(vec![1.0, 2.0]);
        assert!(Object::of(&spec, &vector).is_err());
    }
}
