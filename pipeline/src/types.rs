//! Types of values, and the names that an expression sees.

use std::fmt;
use std::sync::Arc;

/// A type; an optional one may be absent or null.
#[derive(Clone, Debug, PartialEq)]
pub struct Type {
    /// Kind of the values.
    pub kind: Kind,
    /// Whether a value may be absent or null.
    pub optional: bool,
}

/// Kind of a value that is there.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// 64-bit whole number.
    Int,
    /// 64-bit floating-point number.
    Double,
    /// Text.
    String,
    /// Moment, in milliseconds since 1970.
    Timestamp,
    /// Length of time in milliseconds.
    Duration,
    /// Any JSON value; its type is known while running alone.
    Json,
    /// `null` as it is written in an expression.
    Null,
    /// List with elements of one type.
    List(Box<Type>),
    /// Named fields.
    Record(Arc<[Field]>),
}

/// A field of a record.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its type.
    pub of: Type,
}

impl Field {
    /// A field that is always there.
    pub fn needed(name: &str, kind: Kind) -> Field {
        Field {
            name: name.to_owned(),
            of: kind.needed(),
        }
    }
}

impl Kind {
    /// The type of values that are always there.
    pub fn needed(self) -> Type {
        Type {
            kind: self,
            optional: false,
        }
    }

    /// The type of values that may be absent.
    pub fn optional(self) -> Type {
        Type {
            kind: self,
            optional: true,
        }
    }

    /// Whether it is a number, or may be one.
    pub fn is_number(&self) -> bool {
        matches!(self, Kind::Int | Kind::Double | Kind::Json | Kind::Null)
    }
}

impl Type {
    /// Reads a type as `fields` has it: `string`, `double?`, `[int]`.
    pub fn parse(text: &str) -> Option<Type> {
        let (text, optional) = match text.strip_suffix('?') {
            Some(text) => (text, true),
            None => (text, false),
        };
        let kind = match text {
            "string" => Kind::String,
            "int" => Kind::Int,
            "double" => Kind::Double,
            "bool" => Kind::Bool,
            "timestamp" => Kind::Timestamp,
            "json" => Kind::Json,
            _ => {
                let inner = text.strip_prefix('[')?.strip_suffix(']')?;
                let inner = Type::parse(inner).filter(|t| !matches!(t.kind, Kind::List(_)))?;
                Kind::List(Box::new(inner))
            }
        };
        Some(Type { kind, optional })
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.optional { "?" } else { "" };
        let name = match &self.kind {
            Kind::Bool => "bool",
            Kind::Int => "int",
            Kind::Double => "double",
            Kind::String => "string",
            Kind::Timestamp => "timestamp",
            Kind::Duration => "duration",
            Kind::Json => "json",
            Kind::Null => return f.write_str("null"),
            Kind::List(of) => return write!(f, "[{of}]{mark}"),
            Kind::Record(fields) => {
                let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
                return write!(f, "{{{}}}{mark}", names.join(", "));
            }
        };
        write!(f, "{name}{mark}")
    }
}

/// Names that the expressions of a node see: each is a slot of its rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scope {
    slots: Vec<Field>,
}

impl Scope {
    /// The scope with one more name, or `None` if the name is taken.
    pub fn with(&self, name: &str, of: Type) -> Option<Scope> {
        if self.slot(name).is_some() {
            return None;
        }
        let mut slots = self.slots.clone();
        slots.push(Field {
            name: name.to_owned(),
            of,
        });
        Some(Scope { slots })
    }

    /// Slot and type of a name.
    pub fn slot(&self, name: &str) -> Option<(usize, &Type)> {
        let slot = self.slots.iter().position(|field| field.name == name)?;
        Some((slot, &self.slots[slot].of))
    }

    /// The names with their types, in the order of their slots.
    pub fn slots(&self) -> &[Field] {
        &self.slots
    }
}
