//! `penstock pipeline`: checks, plans and tests a pipeline's file. Nothing is connected and no model is loaded.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};
use penstock_config::{self as config, Settings};
use penstock_pipeline::graph::{Operation, Role};
use penstock_pipeline::types::Scope;
use penstock_pipeline::{Pipeline, plan, test_case};

use super::{Failure, print};

/// `penstock pipeline …`.
#[derive(Debug, Subcommand)]
pub enum PipelineCommand {
    /// Check a pipeline's file: names, connections, the type of every expression
    Check(Box<FileArgs>),
    /// Show the stages of a pipeline, its internal topics, and the guarantee of each sink
    Plan(Box<PlanArgs>),
    /// Run the tests that a pipeline's file contains
    Test(Box<FileArgs>),
}

/// A pipeline's file, and the models that there are.
#[derive(Args, Debug)]
#[command(after_help = FILE_HELP)]
pub struct FileArgs {
    /// The pipeline's file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Check the names of models against those of this config file; without it and --model they are not checked
    #[arg(long, env = "PENSTOCK_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// A model that there is; repeat it for more
    #[arg(long = "model", value_name = "NAME=DIR_OR_HF_ID[@REVISION]")]
    models: Vec<String>,
}

const FILE_HELP: &str = "\
Starts nothing, connects to nothing, loads no model.

Exit code: 0 all is well, 1 a test does not hold, 2 the file is wrong, and FILE:LINE:COLUMN says where.";

/// `penstock pipeline plan`.
#[derive(Args, Debug)]
pub struct PlanArgs {
    /// The file and the models.
    #[command(flatten)]
    of: FileArgs,
    /// Form of the plan
    #[arg(long, value_enum, default_value_t = PlanFormat::Text)]
    format: PlanFormat,
}

/// Form of a plan.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PlanFormat {
    /// For a terminal.
    Text,
    /// For programs.
    Json,
    /// For a drawing in Markdown.
    Mermaid,
}

/// A file that was read and checked.
struct Checked {
    text: String,
    pipeline: Pipeline,
}

pub(super) fn run(command: PipelineCommand) -> Result<ExitCode, Failure> {
    match command {
        PipelineCommand::Check(args) => check(&args),
        PipelineCommand::Plan(args) => show_plan(&args),
        PipelineCommand::Test(args) => test(&args),
    }
}

fn read(args: &FileArgs) -> Result<Checked, Failure> {
    let models = models(args)?;
    let text = std::fs::read_to_string(&args.file).map_err(|e| Failure::io(name(&args.file), e))?;
    let pipeline = Pipeline::parse(&args.file, &text, models.as_deref())?;
    Ok(Checked { text, pipeline })
}

/// Names of the models, if any place says which there are.
fn models(args: &FileArgs) -> Result<Option<Vec<String>>, Failure> {
    if args.config.is_none() && args.models.is_empty() {
        return Ok(None);
    }
    let named = |flag: &String| {
        flag.split_once('=')
            .map_or(flag.as_str(), |(name, _)| name)
            .to_owned()
    };
    let mut models: Vec<String> = args.models.iter().map(named).collect();
    if let Some(file) = &args.config {
        let config = config::load(Some(file), Settings::default())?;
        models.extend(config.models.into_iter().map(|model| model.name));
    }
    Ok(Some(models))
}

fn check(args: &FileArgs) -> Result<ExitCode, Failure> {
    let Checked { pipeline, .. } = read(args)?;
    let mut out = format!(
        "{}: pipeline {}, {} nodes, {} tests\n",
        name(&args.file),
        pipeline.name,
        pipeline.nodes.len(),
        pipeline.tests.len()
    );
    for node in &pipeline.nodes {
        let work = match &node.role {
            Role::Source(spec) => format!("source of {}", spec.topics.join(", ")),
            Role::Step(step) => work(&step.operation),
            Role::Sink(spec) => {
                let columns: Vec<String> = spec
                    .columns
                    .iter()
                    .map(|(name, e)| format!("{name}: {}", e.of))
                    .collect();
                format!("sink {{{}}}", columns.join(", "))
            }
        };
        out.push_str(&format!("  {}: {work}; sees {}\n", node.name, names(&node.scope)));
    }
    print(&out)?;
    Ok(ExitCode::SUCCESS)
}

fn work(operation: &Operation) -> String {
    match operation {
        Operation::Score(score) => format!("score by {}", score.model),
        other => other.name().to_owned(),
    }
}

fn names(scope: &Scope) -> String {
    let names: Vec<&str> = scope.slots().iter().map(|slot| slot.name.as_str()).collect();
    names.join(", ")
}

fn show_plan(args: &PlanArgs) -> Result<ExitCode, Failure> {
    let Checked { pipeline, .. } = read(&args.of)?;
    let plan = plan::plan(&pipeline);
    print(&match args.format {
        PlanFormat::Text => plan.to_text(),
        PlanFormat::Json => format!("{:#}\n", plan.to_json()),
        PlanFormat::Mermaid => plan.to_mermaid(),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn test(args: &FileArgs) -> Result<ExitCode, Failure> {
    let Checked { text, pipeline } = read(args)?;
    let pipeline = Arc::new(pipeline);
    let mut failed = 0;
    let mut out = String::new();
    for case in &pipeline.tests {
        let mismatches = test_case::run(&pipeline, case);
        let mark = if mismatches.is_empty() { "ok    " } else { "FAILED" };
        failed += usize::from(!mismatches.is_empty());
        out.push_str(&format!("{mark}  {}\n", case.name));
        for mismatch in mismatches {
            out.push_str(&format!("        {}\n", mismatch.in_file(&args.file, &text)));
        }
    }
    let passed = pipeline.tests.len() - failed;
    out.push_str(&format!("{passed} tests hold, {failed} do not\n"));
    print(&out)?;
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn name(path: &Path) -> String {
    path.display().to_string()
}
