//! The raw mirror of all settings, read from the file by serde and from the environment and the flags by clap.
//! A setting is one row of the table (`sections.rs`), so it has one name in all three places:
//! `[limits] queue_texts_max`, `PENSTOCK_QUEUE_TEXTS_MAX`, `--queue-texts-max`.

use std::num::NonZeroUsize;
use std::str::FromStr;

use clap::{ArgMatches, Args, Command, FromArgMatches};
use penstock_models::Task;
use serde::Deserialize;

use super::kafka::raw::Kafka;
use super::sections::{RawBatching, RawLimits, RawServer};
use super::table::Flags;

/// All settings. `None` is a setting that is not set.
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    #[command(flatten)]
    pub(super) server: RawServer,
    #[command(flatten)]
    pub(super) limits: RawLimits,
    #[command(flatten)]
    pub(super) batching: RawBatching,
    /// The `[[model]]` tables of the file.
    #[arg(skip)]
    pub(super) model: Vec<Model>,
    /// The `[[kafka]]` tables of the file.
    #[arg(skip)]
    pub(super) kafka: Vec<Kafka>,
    /// Serve this model; repeat it for more. A folder, or a Hugging Face id with an optional revision
    #[arg(
        long = "model",
        value_name = "NAME=DIR_OR_HF_ID[@REVISION]",
        env = "PENSTOCK_MODEL",
        value_delimiter = ',',
        help_heading = "Models"
    )]
    #[serde(skip)]
    pub(super) named: Vec<NamedModel>,
    /// Read pickled weights, of every model; trust their source [default: false]
    #[arg(
        long,
        env = "PENSTOCK_ALLOW_PICKLE",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        help_heading = "Models"
    )]
    #[serde(skip)]
    pub(super) allow_pickle: Option<bool>,
}

/// Settings of a job without listeners, under the same names.
#[derive(Clone, Debug, Default)]
pub struct JobSettings {
    server: RawServer,
    batching: RawBatching,
    /// `--allow-pickle` of the job's one model.
    allow_pickle: Option<bool>,
}

/// The flag of a job whose model holds pickled weights.
#[derive(Args)]
struct Pickle {
    /// Read pickled weights; trust their source [default: false]
    #[arg(
        long,
        env = "PENSTOCK_ALLOW_PICKLE",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    allow_pickle: Option<bool>,
}

/// Keys of `[server]` that a job has.
const JOB_KEYS: [&str; 5] = ["device", "dtype", "threads", "tokenizer_threads", "log"];

/// Filter of log lines of a job, whose results go to a terminal or a pipe.
const JOB_LOG: &str = "warn";

impl FromArgMatches for JobSettings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<JobSettings, clap::Error> {
        Ok(JobSettings {
            server: Flags::take(matches),
            batching: Flags::take(matches),
            allow_pickle: Pickle::from_arg_matches(matches)?.allow_pickle,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.server.update_from_arg_matches(matches)?;
        self.batching.update_from_arg_matches(matches)?;
        self.allow_pickle = Pickle::from_arg_matches(matches)?
            .allow_pickle
            .or(self.allow_pickle);
        Ok(())
    }
}

impl Args for JobSettings {
    fn augment_args(command: Command) -> Command {
        let command = RawServer::add(command.next_help_heading("Engine"), |key| JOB_KEYS.contains(&key));
        let help = format!("Filter of log lines, such as debug [default: {JOB_LOG}]");
        RawBatching::augment_args(Pickle::augment_args(command.mut_arg("log", |log| log.help(help))))
    }

    fn augment_args_for_update(command: Command) -> Command {
        JobSettings::augment_args(command)
    }
}

impl JobSettings {
    /// Adds the one model that the job runs.
    pub fn with_model(self, name: &str, path: &str) -> Settings {
        let mut server = self.server;
        server.log.get_or_insert_with(|| JOB_LOG.to_owned());
        Settings {
            server,
            batching: self.batching,
            allow_pickle: self.allow_pickle,
            model: vec![Model::plain(name.to_owned(), path.to_owned())],
            ..Settings::default()
        }
    }
}

/// One `[[model]]` table.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Model {
    pub(super) name: String,
    pub(super) path: String,
    pub(super) task: Option<TaskName>,
    pub(super) max_length: Option<NonZeroUsize>,
    pub(super) check_parity: Option<bool>,
    pub(super) allow_pickle: Option<bool>,
    #[serde(default)]
    pub(super) batching: RawBatching,
}

/// A model named by flag: `NAME=DIR_OR_HF_ID[@REVISION]`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NamedModel {
    pub(super) name: String,
    pub(super) path: String,
}

impl FromStr for NamedModel {
    type Err = String;

    fn from_str(s: &str) -> Result<NamedModel, String> {
        match s.split_once('=') {
            Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok(NamedModel {
                name: name.to_owned(),
                path: path.to_owned(),
            }),
            _ => Err(format!(
                "`{s}` lacks a name; write NAME=DIR_OR_HF_ID, such as sentiment={s}"
            )),
        }
    }
}

/// A task by its name.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct TaskName(pub(super) Task);

impl TryFrom<String> for TaskName {
    type Error = String;

    fn try_from(s: String) -> Result<TaskName, String> {
        Task::ALL
            .into_iter()
            .find(|task| task.name() == s)
            .map(TaskName)
            .ok_or_else(|| {
                let known: Vec<&str> = Task::ALL.into_iter().map(Task::name).collect();
                format!("unknown task `{s}`; known are {}", known.join(", "))
            })
    }
}

impl Settings {
    /// The lowest layer: settings from other programs' environment variables.
    pub(super) fn of_environment(rust_log: Option<String>) -> Settings {
        let server = RawServer {
            log: rust_log.filter(|log| !log.is_empty()),
            ..RawServer::default()
        };
        Settings {
            server,
            ..Settings::default()
        }
    }

    /// This layer over the one below. A model named by a flag replaces the file's model of that name and
    /// keeps its other settings.
    pub(super) fn over(self, below: Settings) -> Settings {
        let mut model = below.model;
        model.extend(self.model);
        let mut kafka = below.kafka;
        kafka.extend(self.kafka);
        for NamedModel { name, path } in self.named {
            match model.iter_mut().find(|m| m.name == name) {
                Some(known) => known.path = path,
                None => model.push(Model::plain(name, path)),
            }
        }
        if let Some(allowed) = self.allow_pickle {
            for model in &mut model {
                model.allow_pickle = Some(allowed);
            }
        }
        Settings {
            server: self.server.over(below.server),
            limits: self.limits.over(below.limits),
            batching: self.batching.over(below.batching),
            model,
            kafka,
            named: below.named,
            allow_pickle: below.allow_pickle,
        }
    }
}

impl Model {
    pub(super) fn plain(name: String, path: String) -> Model {
        Model {
            name,
            path,
            task: None,
            max_length: None,
            check_parity: None,
            allow_pickle: None,
            batching: RawBatching::default(),
        }
    }
}
