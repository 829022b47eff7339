//! Generates the schemas that `src/schema.rs` measures requests by: one for each message that a method takes.

use std::collections::BTreeMap;
use std::fmt::Write;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet, MessageOptions};

/// Bytes of a value in the decoded struct, by type; all others are `SCALAR`.
const STRING: usize = 24;
const BYTES: usize = 32;
const REPEATED: usize = 24;
const MAP: usize = 48;
const SCALAR: usize = 8;

/// Room for the tag of an `Option` and for alignment.
const TAG: usize = 8;

type Messages<'a> = BTreeMap<String, &'a DescriptorProto>;

/// Rust source: a `static` for each message that can reach the server, and `REQUESTS`, by the path of each method.
pub fn of_requests(files: &FileDescriptorSet) -> Result<String, std::fmt::Error> {
    let mut messages = Messages::new();
    for file in &files.file {
        for message in &file.message_type {
            collect(&mut messages, &format!(".{}", file.package()), message);
        }
    }
    let mut methods = String::new();
    let mut reached = Vec::new();
    for file in &files.file {
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                writeln!(methods, "    ({path:?}, &{}),", ident(method.input_type()))?;
                reach(&messages, method.input_type(), &mut reached);
            }
        }
    }
    let mut source = String::new();
    for name in reached {
        define(&mut source, &messages, &name)?;
    }
    write!(source, "static REQUESTS: &[(&str, &Schema)] = &[\n{methods}];\n")?;
    Ok(source)
}

fn collect<'a>(messages: &mut Messages<'a>, scope: &str, message: &'a DescriptorProto) {
    let name = format!("{scope}.{}", message.name());
    for nested in &message.nested_type {
        collect(messages, &name, nested);
    }
    messages.insert(name, message);
}

/// Adds `name` and every message that it holds.
fn reach(messages: &Messages<'_>, name: &str, reached: &mut Vec<String>) {
    if reached.iter().any(|other| other == name) {
        return;
    }
    reached.push(name.to_owned());
    for field in &messages[name].field {
        if field.r#type() == Type::Message {
            reach(messages, field.type_name(), reached);
        }
    }
}

fn define(source: &mut String, messages: &Messages<'_>, name: &str) -> std::fmt::Result {
    let message = messages[name];
    let size = size(messages, message);
    let map_entry = is_map_entry(message);
    writeln!(source, "static {}: Schema = Schema {{", ident(name))?;
    writeln!(source, "    name: {:?},", &name[1..])?;
    writeln!(
        source,
        "    size: {size},\n    map_entry: {map_entry},\n    fields: &["
    )?;
    for field in &message.field {
        let kind = match field.r#type() {
            Type::Message => format!("Kind::Message(&{})", ident(field.type_name())),
            Type::String if is_text(name, field) => "Kind::Text".to_owned(),
            Type::String => "Kind::String".to_owned(),
            Type::Bytes => "Kind::Bytes".to_owned(),
            Type::Fixed32 | Type::Sfixed32 | Type::Float => "Kind::Fixed32".to_owned(),
            Type::Fixed64 | Type::Sfixed64 | Type::Double => "Kind::Fixed64".to_owned(),
            Type::Bool => "Kind::Varint(1)".to_owned(),
            Type::Int32 | Type::Uint32 | Type::Sint32 | Type::Enum => "Kind::Varint(4)".to_owned(),
            Type::Int64 | Type::Uint64 | Type::Sint64 => "Kind::Varint(8)".to_owned(),
            // Groups ended with proto2.
            Type::Group => continue,
        };
        writeln!(
            source,
            "        Field {{ number: {}, name: {:?}, repeated: {}, kind: {kind} }},",
            field.number(),
            field.name(),
            field.label() == Label::Repeated
        )?;
    }
    writeln!(source, "    ],\n}};")
}

/// Whether a string may be as long as the message: the texts that are scored. All others are names and ids.
fn is_text(message: &str, field: &FieldDescriptorProto) -> bool {
    message.starts_with(".penstock.v1.") && field.name() == "text"
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(MessageOptions::map_entry)
}

/// Upper bound of the decoded struct's size. The members of a `oneof` count as if all were there.
fn size(messages: &Messages<'_>, message: &DescriptorProto) -> usize {
    message
        .field
        .iter()
        .map(|field| field_size(messages, field))
        .sum()
}

fn field_size(messages: &Messages<'_>, field: &FieldDescriptorProto) -> usize {
    let inner = match field.r#type() {
        Type::Message => Some(messages[field.type_name()]),
        _ => None,
    };
    if field.label() == Label::Repeated {
        let map = inner.is_some_and(is_map_entry);
        return if map { MAP } else { REPEATED };
    }
    match (field.r#type(), inner) {
        (_, Some(inner)) => size(messages, inner) + TAG,
        (Type::String, _) => STRING,
        (Type::Bytes, _) => BYTES,
        _ => SCALAR + TAG * usize::from(field.proto3_optional()),
    }
}

fn ident(name: &str) -> String {
    name[1..].replace('.', "_").to_uppercase()
}
