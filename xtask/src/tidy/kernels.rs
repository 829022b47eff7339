//! Compiled kernels match their sources. The check needs the manifest and no compiler.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

const FOLDER: &str = "kernels/cu";

/// Adds a fault for every kernel that differs from the manifest of `tools/nvcc build`: in source, headers,
/// flags, compiler or compiled form. Kernels that were not assembled for every kind of GPU are faults too.
pub fn check(root: &Path, files: &[PathBuf], faults: &mut Vec<String>) -> Result<()> {
    let manifest = format!("{FOLDER}/out/manifest");
    let text = std::fs::read_to_string(root.join(&manifest)).with_context(|| manifest.clone())?;
    let mut lines = text.lines();
    let compiler = lines.next().unwrap_or_default();
    let known: Vec<&str> = lines.collect();
    let script = std::fs::read_to_string(root.join("tools/nvcc")).context("tools/nvcc")?;
    let setting = |name: &str| {
        let line = script
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}=")));
        line.unwrap_or_default().trim_matches('"').to_owned()
    };
    let wanted = format!("nvcc {} {}", setting("compiler"), setting("flags"));
    if compiler != format!("{wanted}; assembled for {}", setting("assembled")) {
        faults.push(format!(
            "{manifest}:1: is of another compiler, other flags or other GPUs: run tools/nvcc build"
        ));
    }
    let beside = |extension: &str| -> Vec<&PathBuf> {
        let mut found: Vec<&PathBuf> = files
            .iter()
            .filter(|f| {
                f.parent() == Some(Path::new(FOLDER)) && f.extension().is_some_and(|e| e == extension)
            })
            .collect();
        found.sort();
        found
    };
    let sources = beside("cu");
    for source in &sources {
        let stem = source.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
        let compiled = PathBuf::from(format!("{FOLDER}/out/{stem}.fatbin"));
        if !root.join(&compiled).is_file() {
            faults.push(format!(
                "{}: is missing: run tools/nvcc build",
                compiled.display()
            ));
            continue;
        }
        let mut inputs = format!("{wanted}\n{}", hash(root, &[*source], "")?);
        inputs += &hash(root, &beside("cuh"), "")?;
        let line = format!(
            "{stem} {} {}",
            hash(root, &[], &inputs)?.trim(),
            hash(root, &[&compiled], "")?.trim()
        );
        if !known.contains(&line.as_str()) {
            faults.push(format!(
                "{}: is not what {} was compiled from: run tools/nvcc build",
                source.display(),
                compiled.display()
            ));
        }
    }
    if known.len() != sources.len() {
        faults.push(format!(
            "{manifest}: has {} kernels, there are {}",
            known.len(),
            sources.len()
        ));
    }
    Ok(())
}

/// Git's names for the contents of `files`, one a line, or for `text` where there are none.
fn hash(root: &Path, files: &[&PathBuf], text: &str) -> Result<String> {
    let mut git = Command::new("git");
    git.arg("hash-object")
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    if files.is_empty() {
        git.arg("--stdin");
    } else {
        git.args(files);
    }
    let mut running = git.spawn().context("git hash-object")?;
    if let Some(mut stdin) = running.stdin.take() {
        stdin.write_all(text.as_bytes()).context("git hash-object")?;
    }
    let done = running.wait_with_output().context("git hash-object")?;
    ensure!(done.status.success(), "git hash-object failed");
    String::from_utf8(done.stdout).context("git hash-object")
}
