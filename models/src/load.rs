//! Loading of a model folder: read, check, pack, compare with its parity file.

use std::path::Path;
use std::sync::Arc;

use penstock_kernels::cuda::{Cuda, Nvidia};
use penstock_kernels::{Cpu, KernelError, Ops, Path as Instructions, Pooling};

use crate::check::check;
use crate::config::Config;
use crate::device::{self, Device};
use crate::model::PackedModel;
use crate::parity::Parity;
use crate::sentence::{Prompts, Sentence};
use crate::tokenizer::{Plan, Settings};
use crate::weights::Weights;
use crate::{Model, ModelError, ModelSpec, Task, TextTokenizer};

/// The caller's choices for a model.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Device and number format.
    pub device: Device,
    /// Task to use instead of the one that the folder suggests.
    pub task: Option<Task>,
    /// Maximum of tokens to use instead of the folder's, up to the model's window.
    pub max_length: Option<usize>,
    /// Compare the loaded model with `parity.json`.
    pub check_parity: bool,
    /// Read weights in a `pytorch_model.bin`. Its pickle is never executed, but only trusted files deserve a parser.
    pub allow_pickle: bool,
    /// Executors that will run the model side by side; at least one.
    pub executors: usize,
    /// Load one more replica for urgent batches, where the device can preempt others for them.
    pub urgent: bool,
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions {
            device: Device::default(),
            task: None,
            max_length: None,
            check_parity: true,
            allow_pickle: false,
            executors: 1,
            urgent: false,
        }
    }
}

/// A model that is ready to run.
pub struct Loaded {
    /// Description of the model.
    pub spec: Arc<ModelSpec>,
    /// Tokenizer, which any number of threads may share.
    pub tokenizer: TextTokenizer,
    /// The model of the first executor.
    pub model: Box<dyn Model>,
    /// Replicas for the other executors. All share their weights.
    pub replicas: Vec<Box<dyn Model>>,
    /// Replica for urgent batches.
    pub urgent: Option<Box<dyn Model>>,
}

/// Loads the model in `folder`.
pub fn load(folder: &Path, options: &LoadOptions) -> Result<Loaded, ModelError> {
    match &options.device {
        Device::Cpu { threads, precision } => {
            let threads = device::team(threads.as_ref())?;
            load_on(folder, options, || {
                Ok(Cpu::on(threads.clone(), Instructions::best(), *precision))
            })
        }
        &Device::Cuda {
            ordinal,
            dtype,
            graphs,
        } => load_on(folder, options, || {
            let cuda = Cuda::new(Nvidia::open(ordinal, dtype)?, dtype);
            Ok(if graphs { cuda.recording() } else { cuda })
        }),
    }
}

/// Loads the model in `folder` on operations that `open` opens, once for each executor. Here `options.device` only
/// sets the accuracy that the model must reach.
pub fn load_on<O: Ops + 'static>(
    folder: &Path,
    options: &LoadOptions,
    mut open: impl FnMut() -> Result<O, KernelError>,
) -> Result<Loaded, ModelError> {
    let Folder {
        config,
        weights,
        tokenizer,
        parity,
        spec,
    } = Folder::read(folder, options)?;
    let spec = Arc::new(spec);
    let mut model = PackedModel::load(Arc::clone(&spec), &config, &weights, open()?)?;
    if let (true, Some(parity)) = (options.check_parity, parity) {
        parity.check(&spec, &tokenizer, &mut model, options.device.fidelity())?;
    }
    let mut replica = || Ok(Box::new(model.replica(open()?)) as Box<dyn Model>);
    let replicas = (1..options.executors).map(|_| replica());
    let replicas = replicas.collect::<Result<_, KernelError>>()?;
    let preemptible = options.urgent && O::preemption_points(spec.layers) > 0;
    let urgent = preemptible.then(replica).transpose()?;
    Ok(Loaded {
        spec,
        tokenizer,
        model: Box::new(model),
        replicas,
        urgent,
    })
}

/// Description of the model in `folder`: all that [`load`] reads is read and checked, except the values of its weights.
pub fn inspect(folder: &Path, options: &LoadOptions) -> Result<ModelSpec, ModelError> {
    let Folder {
        config,
        weights,
        spec,
        ..
    } = Folder::read(folder, options)?;
    check(&spec, &config, &weights.shapes_only())?;
    Ok(spec)
}

/// The files of a model, read and compared with each other; the weights are opened, not read.
struct Folder {
    config: Config,
    weights: Weights,
    tokenizer: TextTokenizer,
    parity: Option<Parity>,
    spec: ModelSpec,
}

impl Folder {
    fn read(folder: &Path, options: &LoadOptions) -> Result<Folder, ModelError> {
        let sentence = Sentence::read(folder)?;
        let encoder = &sentence.encoder;
        let config = Config::read(encoder)?;
        refuse_adapter(encoder)?;
        let weights = Weights::open(encoder, config.family, options.allow_pickle)?;
        let task = task(&config, &sentence, options.task)?;
        let settings = Settings::read(encoder, &sentence.module.tokenizer)?;
        let max_length = max_length(encoder, &config, &sentence, &settings, options.max_length)?;
        let prompts = prompts(&sentence, task)?;
        // A file for another task than the one the caller wants does not apply.
        let parity = Parity::read(folder)?.filter(|p| options.task.is_none() || p.is_for(task));
        let dtypes = weights.dtypes();
        let is_embedding = task == Task::Embedding;
        let spec = ModelSpec {
            family: config.family,
            task,
            labels: if is_embedding {
                Vec::new()
            } else {
                config.labels.clone()
            },
            problem: config.problem,
            hidden: config.hidden,
            layers: config.layers,
            heads: config.heads,
            vocabulary: config.vocabulary,
            max_length,
            pooling: is_embedding.then(|| sentence.pooling.unwrap_or(Pooling::Mean)),
            pooling_assumed: is_embedding && sentence.pooling.is_none(),
            normalize: is_embedding && sentence.normalize,
            prompts: prompts.named.clone(),
            default_prompt: prompts.default.clone(),
            parameters: dtypes.values().sum(),
            dtypes,
            parity_cases: parity.as_ref().map_or(0, Parity::cases),
        };
        let plan = Plan {
            family: config.family,
            class: config.tokenizer_class.as_deref(),
            settings: &settings,
            max_length,
            lowercase: sentence.module.lowercase,
            prompts,
            prompt_excluded: sentence.prompt_excluded.clone(),
        };
        let tokenizer = TextTokenizer::read(encoder, plan)?;
        tokenizer.fits(spec.vocabulary)?;
        Ok(Folder {
            config,
            weights,
            tokenizer,
            parity,
            spec,
        })
    }
}

/// Refuses weights that come with an adapter: transformers would add it to them.
fn refuse_adapter(folder: &Path) -> Result<(), ModelError> {
    let file = folder.join("adapter_config.json");
    if file.exists() {
        let reason = "adapters are not supported; merge it into the weights and remove this file";
        return Err(ModelError::malformed(&file, reason));
    }
    Ok(())
}

/// The prompts that apply to `task`. A default one that cannot be applied is refused, since every text would need it.
fn prompts(sentence: &Sentence, task: Task) -> Result<Prompts, ModelError> {
    let prompts = &sentence.prompts;
    let standard = prompts.standard();
    if task != Task::Embedding {
        if !standard.is_empty() {
            let supported = format!("none for {}", task.name());
            return Err(ModelError::unsupported(
                &prompts.file,
                "default_prompt_name",
                prompts.default.as_deref().unwrap_or_default(),
                &supported,
            ));
        }
        return Ok(Prompts::default());
    }
    match &sentence.prompt_excluded {
        Some(file) if !standard.is_empty() => Err(ModelError::unsupported(
            file,
            "include_prompt",
            false,
            "true for a model with a default prompt",
        )),
        _ => Ok(prompts.clone()),
    }
}

/// The task of a model. A folder with pooling is an embedding model, whatever its encoder was before;
/// otherwise the architecture decides.
fn task(config: &Config, sentence: &Sentence, wanted: Option<Task>) -> Result<Task, ModelError> {
    let found = if sentence.pooling.is_some() {
        Some(Task::Embedding)
    } else {
        config.task
    };
    wanted.or(found).ok_or_else(|| {
        let supported = Task::all_architectures();
        ModelError::unsupported(&config.file, "architectures", &config.architecture, &supported)
    })
}

/// The longest text: the caller's choice, else that of the encoder's module, else that of the tokenizer, else the
/// window of the position table, which bounds them all.
fn max_length(
    folder: &Path,
    config: &Config,
    sentence: &Sentence,
    settings: &Settings,
    wanted: Option<usize>,
) -> Result<usize, ModelError> {
    let window = config.window();
    if let Some(wanted) = wanted {
        if wanted == 0 || wanted > window {
            return Err(ModelError::unsupported(
                folder,
                "max_length",
                wanted,
                &format!("1 to {window}"),
            ));
        }
        return Ok(wanted);
    }
    let limit = sentence.module.tokens_max.or(settings.limit);
    Ok(limit.map_or(window, |limit| limit.min(window)))
}
