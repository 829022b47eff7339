//! Loading of a model folder: read, check, pack, compare with its parity file.

use std::path::Path;
use std::sync::Arc;

use penstock_kernels::cuda::{Cuda, Nvidia};
use penstock_kernels::{Cpu, KernelError, Ops, Path as Instructions, Pooling};

use crate::config::Config;
use crate::device::{self, Device};
use crate::model::PackedModel;
use crate::parity::Parity;
use crate::sentence::Sentence;
use crate::tokenizer::{Limits, length_limit};
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
        sentence,
        weights,
        parity,
        spec,
    } = Folder::read(folder, options)?;
    let limits = Limits {
        max_length: spec.max_length,
        lowercase: sentence.lowercase,
    };
    let tokenizer = TextTokenizer::read(folder, spec.family, limits)?;
    tokenizer.fits(spec.vocabulary)?;
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

/// Description of the model in `folder`, without reading its weights.
pub fn inspect(folder: &Path) -> Result<ModelSpec, ModelError> {
    Ok(Folder::read(folder, &LoadOptions::default())?.spec)
}

/// The files of a model, read and compared with each other; the weights are opened, not read.
struct Folder {
    config: Config,
    sentence: Sentence,
    weights: Weights,
    parity: Option<Parity>,
    spec: ModelSpec,
}

impl Folder {
    fn read(folder: &Path, options: &LoadOptions) -> Result<Folder, ModelError> {
        let config = Config::read(folder)?;
        let sentence = Sentence::read(folder)?;
        let weights = Weights::open(folder, config.family)?;
        let task = task(&config, &sentence, options.task)?;
        let max_length = max_length(folder, &config, &sentence, options.max_length)?;
        // A file for another task than the one the caller wants does not apply.
        let parity = Parity::read(folder)?.filter(|p| options.task.is_none() || p.is_for(task));
        let dtypes = weights.dtypes();
        let spec = ModelSpec {
            family: config.family,
            task,
            labels: if task == Task::Embedding {
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
            pooling: (task == Task::Embedding).then(|| sentence.pooling.unwrap_or(Pooling::Mean)),
            pooling_assumed: task == Task::Embedding && sentence.pooling.is_none(),
            normalize: task == Task::Embedding && sentence.normalize,
            parameters: dtypes.values().sum(),
            dtypes,
            parity_cases: parity.as_ref().map_or(0, Parity::cases),
        };
        Ok(Folder {
            config,
            sentence,
            weights,
            parity,
            spec,
        })
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

/// The least of the limits of position table, sentence-transformers and tokenizer.
fn max_length(
    folder: &Path,
    config: &Config,
    sentence: &Sentence,
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
    let limits = [sentence.max_length, length_limit(folder)?];
    Ok(limits.into_iter().flatten().fold(window, usize::min))
}
