//! Every name, type and number of our `KServe` protocol is Triton's. The test compares them with a table that
//! `tests/table.py` takes from the descriptors of `tritonclient`.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};

const TRITON: &str = include_str!("tritonclient-2.73.0.txt");

fn files() -> Vec<FileDescriptorProto> {
    FileDescriptorSet::decode(penstock_proto::DESCRIPTORS)
        .unwrap()
        .file
}

/// One of our files in the format of `table.py`.
fn lines(file: &FileDescriptorProto) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    let package = format!(".{}", file.package());
    for service in &file.service {
        for rpc in &service.method {
            let streams = format!(
                "{}{}",
                u8::from(rpc.client_streaming()),
                u8::from(rpc.server_streaming())
            );
            let path = format!("{package}.{}/{}", service.name(), rpc.name());
            out.insert(format!(
                "rpc {path} {} {} {streams}",
                rpc.input_type(),
                rpc.output_type()
            ));
        }
    }
    for message in &file.message_type {
        message_lines(&package, message, &mut out);
    }
    for e in &file.enum_type {
        enum_lines(&package, e, &mut out);
    }
    out
}

fn message_lines(path: &str, message: &DescriptorProto, out: &mut BTreeSet<String>) {
    let path = format!("{path}.{}", message.name());
    out.insert(format!("message {path}"));
    for field in &message.field {
        let kind = match field.r#type() {
            Type::Message | Type::Enum => field.type_name().to_owned(),
            scalar => scalar.as_str_name()["TYPE_".len()..].to_lowercase(),
        };
        let many = if field.label() == Label::Repeated {
            "repeated"
        } else {
            "one"
        };
        let choice = field
            .oneof_index
            .map_or("-", |i| message.oneof_decl[i as usize].name());
        out.insert(format!(
            "field {path}.{} {} {many} {kind} {choice}",
            field.name(),
            field.number()
        ));
    }
    for nested in &message.nested_type {
        message_lines(&path, nested, out);
    }
    for e in &message.enum_type {
        enum_lines(&path, e, out);
    }
}

fn enum_lines(path: &str, e: &EnumDescriptorProto, out: &mut BTreeSet<String>) {
    for value in &e.value {
        out.insert(format!(
            "value {path}.{}.{} {}",
            e.name(),
            value.name(),
            value.number()
        ));
    }
}

fn ours_and_tritons(name: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let file = files().into_iter().find(|f| f.name() == name).unwrap();
    let theirs = TRITON
        .lines()
        .filter_map(|l| l.strip_prefix(name))
        .map(|l| l.trim_start().to_owned())
        .collect();
    (lines(&file), theirs)
}

#[test]
fn the_inference_service_equals_tritons() {
    let (ours, tritons) = ours_and_tritons("grpc_service.proto");
    assert!(tritons.len() > 200, "the table holds {} lines", tritons.len());
    let missing: Vec<_> = tritons.difference(&ours).collect();
    let extra: Vec<_> = ours.difference(&tritons).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "missing {missing:#?}, not Triton's {extra:#?}"
    );
}

#[test]
fn the_model_config_is_a_subset_of_tritons() {
    let (ours, tritons) = ours_and_tritons("model_config.proto");
    let extra: Vec<_> = ours.difference(&tritons).collect();
    assert!(extra.is_empty(), "not Triton's {extra:#?}");
    assert!(
        ours.iter()
            .any(|l| l.starts_with("field .inference.ModelConfig.max_batch_size 4 "))
    );
}

#[test]
fn a_wrong_field_number_is_found() {
    let (ours, tritons) = ours_and_tritons("grpc_service.proto");
    let right = "field .inference.ModelInferRequest.raw_input_contents 7 repeated bytes -";
    assert!(ours.contains(right) && tritons.contains(right));
    assert!(!tritons.contains(&right.replace(" 7 ", " 8 ")));
}

#[test]
fn reflection_lists_both_services_with_their_comments() {
    let services: Vec<String> = files()
        .iter()
        .flat_map(|f| {
            f.service
                .iter()
                .map(|s| format!("{}.{}", f.package(), s.name()))
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(
        services,
        ["inference.GRPCInferenceService", "penstock.v1.TextService"]
    );
    assert!(
        files()
            .iter()
            .all(|f| f.package() == "google.protobuf" || f.source_code_info.is_some())
    );
}
