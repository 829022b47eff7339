//! From a folder to a warm model on every device. The CPU takes a model that no GPU can hold, unless a GPU
//! was named.

use std::path::Path;

use penstock_core::{BatchPolicy, PackedTokens};
use penstock_models::{Device, KernelError, LoadOptions, Model, ModelError};
use tracing::warn;

use crate::device_lost::DeviceLost;
use crate::executor::DeviceSlot;
use crate::placement::{Devices, tokens_max};
use crate::served_model::{self, Replicas, Wrap};
use crate::settings::ModelConfig;
use penstock_telemetry::metrics::Metrics;

/// Context of a load, without the model's own settings.
pub(super) struct Loader<'a> {
    pub config: &'a ModelConfig,
    pub folder: &'a Path,
    pub devices: &'a Devices,
    pub metrics: &'a Metrics,
    pub fault: &'a DeviceLost,
    pub wrap: Option<&'a Wrap>,
}

impl Loader<'_> {
    /// The model's replicas, and the policy of its batches. `loaded` is called when the weights are in
    /// memory.
    pub fn copies(&self, mut loaded: impl FnMut()) -> Result<(Replicas, BatchPolicy), ModelError> {
        let first = self.on(&self.devices.each, &mut loaded);
        match (first, &self.devices.fallback) {
            (Err(error), Some(cpu)) if may_fall_back(&error) => {
                let (model, device) = (&self.config.name, cpu.to_string());
                warn!(model, device, reason = %error, "the gpu cannot run this model");
                self.on(std::slice::from_ref(cpu), &mut loaded)
            }
            (Err(error), _) => {
                if let ModelError::Kernel(KernelError::DeviceLost { .. }) = &error {
                    self.fault.raise(&error.to_string());
                }
                Err(error)
            }
            (copies, _) => copies,
        }
    }

    fn on(
        &self,
        devices: &[Device],
        loaded: &mut dyn FnMut(),
    ) -> Result<(Replicas, BatchPolicy), ModelError> {
        let ModelConfig {
            task,
            max_length,
            batching,
            check_parity,
            allow_pickle,
            ..
        } = self.config;
        let load = |device: &Device| {
            let options = LoadOptions {
                device: device.clone(),
                task: *task,
                max_length: *max_length,
                check_parity: *check_parity,
                allow_pickle: *allow_pickle,
                executors: match device {
                    // More executors would only compete for the same compute threads.
                    Device::Cpu { .. } => 1,
                    Device::Cuda { .. } => batching.executors,
                },
                urgent: true,
            };
            let name = device.to_string();
            let seat = DeviceSlot {
                busy: self.metrics.device_busy(&name),
                device: name,
                fault: self.fault.clone(),
            };
            Ok((penstock_models::load(self.folder, &options)?, seat))
        };
        let each = devices.iter().map(load).collect::<Result<Vec<_>, ModelError>>()?;
        let none = || ModelError::Batch("there is no device to run on".into());
        let first = devices.first().cloned().ok_or_else(none)?;
        let mut copies = Replicas::of(each, first).ok_or_else(none)?;
        if copies.spec.pooling_assumed {
            warn!(
                model = self.config.name,
                folder = %self.folder.display(),
                "neither modules.json nor 1_Pooling/config.json says how tokens become one vector: it is the mean, \
                 not normalised; if this is a cached snapshot, download the whole model again"
            );
        }
        if let Some(wrap) = self.wrap {
            let wrapped = copies.models.into_iter().map(|(model, seat)| (wrap(model), seat));
            copies.models = wrapped.collect();
            // A model for tests need not support preemption.
            let urgent = copies.urgent.map(|(model, seat)| (wrap(model), seat));
            copies.urgent = urgent.filter(|(model, _)| model.preemption_points() > 0);
        }
        loaded();
        let tokens = devices.iter().map(tokens_max).max().unwrap_or_default();
        let policy = served_model::policy(batching, copies.tokenizer.max_length(), tokens)
            .map_err(|e| ModelError::Batch(e.to_string()))?;
        for (model, _) in &mut copies.models {
            warm(model.as_mut(), &policy)?;
        }
        Ok((copies, policy))
    }
}

/// Whether the CPU may run a model that a GPU refuses. It may if memory is too small, if no kernel fits the
/// model's sizes, or if the driver or a library fails. A lost GPU ends the process instead.
fn may_fall_back(error: &ModelError) -> bool {
    use KernelError::{Device, OutOfMemory, Unsupported};
    matches!(
        error,
        ModelError::Kernel(OutOfMemory { .. } | Unsupported { .. } | Device { .. })
    )
}

/// Tokens of the warming batch on a CPU. A full batch would grow every buffer, but takes seconds in which the
/// CPU could serve. Buffers for larger batches grow once, later.
const WARM_TOKENS: usize = 1024;

/// Runs the longest text and a batch of such texts, so that the first request finds code, weights and buffers
/// in memory.
fn warm(model: &mut dyn Model, policy: &BatchPolicy) -> Result<(), ModelError> {
    let window = policy.window();
    let batch = |texts: usize, length: usize| {
        let text = vec![0_u32; length];
        PackedTokens::from_texts((0..texts.max(1)).map(|_| text.as_slice()))
    };
    if let Some(device) = model.pipelined() {
        // The largest batches, as many at once as the device will ever hold. All memory is allocated now, and
        // a device that is too small is detected before it serves. The batch with the most texts comes first,
        // because its lists are the longest.
        let texts = policy.requests_max().min(policy.tokens_max());
        let most = batch(texts, (policy.tokens_max() / texts).min(window));
        let longest = batch(policy.tokens_max() / window, window);
        for full in [most, longest] {
            for _ in 0..device.in_flight_max() {
                device.submit(&full)?;
            }
            for _ in 0..device.in_flight_max() {
                device.receive()?;
            }
        }
        return model.forward(&batch(1, window)).map(drop);
    }
    let texts = WARM_TOKENS.min(policy.tokens_max()) / window;
    for texts in [1, texts] {
        model.forward(&batch(texts, window))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use parking_lot::Mutex;
    use penstock_core::Reply;
    use penstock_models::Pipelined;

    use super::*;
    use crate::settings::Batching;
    use penstock_telemetry::clock::Clock;

    /// Records its batches, and how many were in flight at once.
    #[derive(Default)]
    struct Noted {
        shapes: Vec<(usize, usize)>,
        sent: usize,
        most: usize,
        is_pipelined: bool,
    }

    impl Model for Noted {
        fn forward(&mut self, batch: &PackedTokens) -> Result<Vec<Reply>, ModelError> {
            self.shapes.push((batch.sequences(), batch.tokens()));
            Ok(Vec::new())
        }

        fn window(&self) -> usize {
            100
        }

        fn pipelined(&mut self) -> Option<&mut dyn Pipelined> {
            if self.is_pipelined { Some(self) } else { None }
        }
    }

    impl Pipelined for Noted {
        fn in_flight_max(&self) -> usize {
            2
        }

        fn submit(&mut self, batch: &PackedTokens) -> Result<(), ModelError> {
            self.sent += 1;
            self.most = self.most.max(self.sent);
            self.forward(batch).map(drop)
        }

        fn is_ready(&self) -> bool {
            true
        }

        fn receive(&mut self) -> Result<Vec<Reply>, ModelError> {
            self.sent -= 1;
            Ok(Vec::new())
        }
    }

    fn check(is_pipelined: bool, tokens_max: usize, texts_max: usize, expected: &[(usize, usize)]) {
        let zero = Duration::ZERO;
        let policy = BatchPolicy::new(tokens_max, texts_max, zero, 100, zero, None).unwrap();
        let mut model = Noted {
            is_pipelined,
            ..Noted::default()
        };
        warm(&mut model, &policy).unwrap();
        model.shapes.dedup();
        assert_eq!(model.shapes, expected);
        assert_eq!((model.sent, model.most), (0, if is_pipelined { 2 } else { 0 }));
    }

    #[test]
    fn a_device_is_warmed_with_all_that_it_may_ever_hold() {
        check(true, 8000, 1000, &[(1000, 8000), (80, 8000), (1, 100)]);
        check(true, 8000, 16, &[(16, 1600), (80, 8000), (1, 100)]);
        check(true, 100, 1000, &[(100, 100), (1, 100)]);
    }

    #[test]
    fn a_processor_serves_sooner() {
        check(false, 8000, 1000, &[(1, 100), (10, 1000)]);
        check(false, 100, 1000, &[(1, 100)]);
    }

    /// A model whose first batch fails with an error; later batches run.
    struct Refused {
        model: Box<dyn Model>,
        first: Arc<Mutex<Option<KernelError>>>,
    }

    impl Model for Refused {
        fn forward(&mut self, batch: &PackedTokens) -> Result<Vec<Reply>, ModelError> {
            match self.first.lock().take() {
                Some(error) => Err(error.into()),
                None => self.model.forward(batch),
            }
        }

        fn window(&self) -> usize {
            self.model.window()
        }
    }

    /// Loads a model whose first batch fails with `error`. Returns the number of loads, whether the process
    /// is to end, and the result.
    fn load(error: KernelError, fallback: Option<Device>) -> (usize, bool, Result<usize, String>) {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../models/tests/families/bert-embedding-mean"
        );
        let config = ModelConfig {
            name: "m".to_owned(),
            source: path.to_owned(),
            task: None,
            max_length: None,
            batching: Batching::default(),
            check_parity: false,
            allow_pickle: false,
        };
        let first = Arc::new(Mutex::new(Some(error)));
        let wrap: Wrap = Arc::new(move |model| {
            let first = Arc::clone(&first);
            Box::new(Refused { model, first })
        });
        let fault = DeviceLost::default();
        let loader = Loader {
            config: &config,
            folder: Path::new(path),
            devices: &Devices {
                each: vec![Device::default()],
                fallback,
            },
            metrics: &Metrics::new(Clock::start()),
            fault: &fault,
            wrap: Some(&wrap),
        };
        let mut loads = 0;
        let copies = loader.copies(|| loads += 1);
        let copies = copies.map(|(copies, _)| copies.models.len());
        (
            loads,
            fault.is_raised(),
            copies.map_err(|error| error.to_string()),
        )
    }

    fn full() -> KernelError {
        KernelError::OutOfMemory {
            device: "cuda:0".into(),
            bytes: 1 << 40,
        }
    }

    #[test]
    fn a_model_that_does_not_fit_the_gpu_serves_on_the_cpu() {
        assert_eq!(load(full(), Some(Device::default())), (2, false, Ok(1)));
        let (loads, ends, copies) = load(full(), None);
        assert_eq!((loads, ends), (1, false));
        assert!(copies.unwrap_err().contains("cuda:0 has no"), "asked for by name");
        let lost = KernelError::DeviceLost {
            device: "cuda:0".into(),
            work: "kernel".into(),
            reason: "chance".into(),
        };
        let (loads, ends, copies) = load(lost, Some(Device::default()));
        assert_eq!((loads, ends), (1, true), "only another process has it again");
        assert!(copies.is_err());
    }

    #[test]
    fn only_what_a_gpu_lacks_is_run_elsewhere() {
        let unknown = KernelError::Unsupported {
            kernel: "attention",
            operand: "head size",
            value: 48,
            supported: "32",
        };
        let refused = KernelError::Device {
            device: "cuda:0".into(),
            work: "loading the kernels of attention".into(),
            reason: "no compiler for their PTX".into(),
        };
        for error in [full(), unknown, refused] {
            assert!(may_fall_back(&error.into()));
        }
        let lost = KernelError::DeviceLost {
            device: "cuda:0".into(),
            work: "kernel".into(),
            reason: "chance".into(),
        };
        assert!(!may_fall_back(&lost.into()));
        assert!(!may_fall_back(&ModelError::Batch("wrong".into())));
    }
}
