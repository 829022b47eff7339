//! `penstock model inspect`: the contents of a model folder.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use penstock_models::{Form, LoadOptions, ModelSpec};

use super::{Failure, millions, print};
use crate::cli::InspectArgs;

pub(super) fn inspect(args: &InspectArgs) -> Result<ExitCode, Failure> {
    let options = LoadOptions {
        allow_pickle: args.allow_pickle,
        ..LoadOptions::default()
    };
    let folder = penstock_models::locate(&args.model, args.allow_pickle)?;
    let versions = penstock_models::versions(&folder);
    let mut out = String::new();
    if versions.is_empty() {
        out.push_str(&describe(&folder, &penstock_models::inspect(&folder, &options)?));
    }
    for (version, folder) in versions {
        let described = describe(&folder, &penstock_models::inspect(&folder, &options)?);
        // Writing to a `String` cannot fail.
        let _ = writeln!(out, "version     {version}\n{described}");
    }
    print(&out)?;
    Ok(ExitCode::SUCCESS)
}

fn describe(folder: &Path, spec: &ModelSpec) -> String {
    let dtypes: Vec<String> = spec
        .dtypes
        .iter()
        .map(|(dtype, count)| format!("{dtype} ({})", millions(*count)))
        .collect();
    let mut lines = vec![
        ("folder", folder.display().to_string()),
        ("family", spec.family.name().to_owned()),
        ("task", spec.task.name().to_owned()),
    ];
    if !spec.labels.is_empty() {
        lines.push(("labels", spec.labels.join(", ")));
        lines.push(("problem", spec.problem.name().to_owned()));
    }
    if spec.task.has(Form::Vector) {
        let mut pooling = spec
            .pooling
            .map_or("none".to_owned(), |p| format!("{p:?}").to_lowercase());
        if spec.pooling_assumed {
            pooling += " (assumed: there is neither modules.json nor 1_Pooling/config.json)";
        }
        lines.push(("dimensions", spec.hidden.to_string()));
        lines.push(("pooling", pooling));
        lines.push(("normalized", if spec.normalize { "yes" } else { "no" }.to_owned()));
        lines.push(("prompts", prompts(spec)));
    }
    lines.extend([
        (
            "layers",
            format!("{} of width {}, {} heads", spec.layers, spec.hidden, spec.heads),
        ),
        ("parameters", millions(spec.parameters)),
        ("dtypes", dtypes.join(", ")),
        ("vocabulary", spec.vocabulary.to_string()),
        ("max length", format!("{} tokens", spec.max_length)),
        (
            "parity",
            match spec.parity_cases {
                0 => "no vectors".to_owned(),
                cases => format!("{cases} vectors, checked when the model is loaded"),
            },
        ),
    ]);
    lines.into_iter().fold(String::new(), |mut out, (key, value)| {
        let _ = writeln!(out, "{key:<12}{value}");
        out
    })
}

/// The prompts that have a text, each in quotes, since most end in a blank.
fn prompts(spec: &ModelSpec) -> String {
    let named = spec.prompts.iter().filter(|(_, text)| !text.is_empty());
    let mut listed: Vec<String> = named.map(|(name, text)| format!("{name} {text:?}")).collect();
    if listed.is_empty() {
        listed.push("none".to_owned());
    }
    let standard = match &spec.default_prompt {
        Some(name) => format!("{name}, in front of every text that asks for no other"),
        None => "no prompt unless a request asks for one".to_owned(),
    };
    format!("{}; default: {standard}", listed.join(", "))
}
