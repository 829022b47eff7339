//! A model as an executor runs it: packed texts in, one reply for each text out.

use std::collections::VecDeque;
use std::sync::Arc;

use penstock_core::{PackedTokens, Reply};
use penstock_kernels::{Ops, Priority, Sharing};

use crate::config::Config;
use crate::encoder::Encoder;
use crate::heads::{self, Head};
use crate::weights::Weights;
use crate::{ModelError, ModelSpec};

/// A model on a device. It belongs to one thread at a time, because its buffers are reused.
pub trait Model: Send {
    /// One reply for each text, in batch order. A text whose values are not finite is returned as it is
    /// ([`Reply::is_finite`]) and does not affect the others.
    fn forward(&mut self, batch: &PackedTokens) -> Result<Vec<Reply>, ModelError>;

    /// Like [`Model::forward`], for a batch that may be late: urgent forwards on the same device may run between its
    /// products, where the device supports it ([`Model::preemption_points`]).
    fn forward_preemptible(&mut self, batch: &PackedTokens) -> Result<Vec<Reply>, ModelError> {
        self.forward(batch)
    }

    /// Points at which an urgent forward can preempt a preemptible one; 0 where it cannot.
    fn preemption_points(&self) -> usize {
        0
    }

    /// Record of how the last forward shared its device with others.
    fn sharing(&self) -> Sharing {
        Sharing::default()
    }

    /// Length of the longest text in tokens.
    fn window(&self) -> usize;

    /// Prepares the calling thread, which will run the model: a device may bind it to a CPU. Called once.
    fn settle(&self) -> Result<(), ModelError> {
        Ok(())
    }

    /// The same model for a caller that prepares a batch while another runs. `None` where the calling thread itself
    /// computes. No batch may be in flight when a caller changes between the two ways.
    fn pipelined(&mut self) -> Option<&mut dyn Pipelined> {
        None
    }
}

/// A model whose device computes while its host does something else.
pub trait Pipelined {
    /// Most batches in flight.
    fn in_flight_max(&self) -> usize;

    /// Packs a batch of at least one text and starts its copy and its computation, without waiting for either. After
    /// an error the batch is not in flight.
    fn submit(&mut self, batch: &PackedTokens) -> Result<(), ModelError>;

    /// True where [`Pipelined::receive`] would not wait.
    fn is_ready(&self) -> bool;

    /// Waits for the oldest batch in flight and returns its replies, as [`Model::forward`] does. The batch leaves
    /// flight in any case.
    fn receive(&mut self) -> Result<Vec<Reply>, ModelError>;
}

/// An encoder with its head on the device `O`.
pub(crate) struct PackedModel<O: Ops> {
    spec: Arc<ModelSpec>,
    ops: O,
    encoder: Encoder<O>,
    head: Box<dyn Head<O>>,
    window: usize,
    layers: usize,
    /// Number of texts of each batch in flight, the oldest first.
    sent: VecDeque<usize>,
    /// Buffer for rows from the device, reused.
    rows: Vec<f32>,
}

impl<O: Ops + 'static> PackedModel<O> {
    /// Packs the weights for `ops`.
    pub fn load(
        spec: Arc<ModelSpec>,
        config: &Config,
        weights: &Weights,
        ops: O,
    ) -> Result<Self, ModelError> {
        let head = heads::load(&spec, config, weights, &ops)?;
        let encoder = Encoder::load(config, weights, &ops)?;
        Ok(PackedModel {
            spec,
            ops,
            encoder,
            head,
            window: config.window(),
            layers: config.layers,
            sent: VecDeque::new(),
            rows: Vec::new(),
        })
    }

    /// A replica for another executor: it shares the weights and nothing else.
    pub fn replica(&self, ops: O) -> Self {
        PackedModel {
            spec: Arc::clone(&self.spec),
            encoder: self.encoder.replica(&ops),
            head: self.head.replica(&ops),
            ops,
            window: self.window,
            layers: self.layers,
            sent: VecDeque::new(),
            rows: Vec::new(),
        }
    }

    /// Checks the packed form once for each batch, because the kernels trust it.
    fn check(&self, batch: &PackedTokens) -> Result<(), ModelError> {
        let ends = &batch.cu_seqlens;
        if ends.first() != Some(&0) || ends.last().is_none_or(|&end| end as usize != batch.ids.len()) {
            return Err(ModelError::Batch(format!(
                "cu_seqlens does not run from 0 to {} tokens",
                batch.ids.len()
            )));
        }
        for (text, pair) in ends.windows(2).enumerate() {
            let length = pair[1].saturating_sub(pair[0]) as usize;
            if length == 0 || length > self.window {
                let window = self.window;
                return Err(ModelError::Batch(format!(
                    "text {text} has {length} tokens, must have 1 to {window}"
                )));
            }
        }
        match batch.ids.iter().find(|&&id| id as usize >= self.spec.vocabulary) {
            Some(id) => Err(ModelError::Batch(format!(
                "token id {id} lies outside of the vocabulary of {}",
                self.spec.vocabulary
            ))),
            None => Ok(()),
        }
    }

    fn run(&mut self, batch: &PackedTokens, priority: Priority) -> Result<Vec<Reply>, ModelError> {
        if !self.sent.is_empty() {
            let sent = self.sent.len();
            return Err(ModelError::Batch(format!("{sent} batches are still in flight")));
        }
        if batch.sequences() == 0 {
            self.check(batch)?;
            return Ok(Vec::new());
        }
        self.start(batch, priority)?;
        self.receive()
    }

    fn start(&mut self, batch: &PackedTokens, priority: Priority) -> Result<(), ModelError> {
        self.check(batch)?;
        let PackedModel {
            ops, encoder, head, ..
        } = self;
        ops.forward(&batch.cu_seqlens, priority, |ops| {
            let pooled = encoder.pooled(ops, batch, head.pooling())?;
            let rows = head.forward(ops, pooled)?;
            ops.send(rows)
        })?;
        self.sent.push_back(batch.sequences());
        Ok(())
    }
}

impl<O: Ops + 'static> Model for PackedModel<O> {
    fn forward(&mut self, batch: &PackedTokens) -> Result<Vec<Reply>, ModelError> {
        self.run(batch, Priority::Urgent)
    }

    fn forward_preemptible(&mut self, batch: &PackedTokens) -> Result<Vec<Reply>, ModelError> {
        self.run(batch, Priority::Preemptible)
    }

    fn preemption_points(&self) -> usize {
        O::preemption_points(self.layers)
    }

    fn sharing(&self) -> Sharing {
        self.ops.sharing()
    }

    fn window(&self) -> usize {
        self.window
    }

    fn settle(&self) -> Result<(), ModelError> {
        Ok(self.ops.settle()?)
    }

    fn pipelined(&mut self) -> Option<&mut dyn Pipelined> {
        if O::IN_FLIGHT > 1 { Some(self) } else { None }
    }
}

impl<O: Ops + 'static> Pipelined for PackedModel<O> {
    fn in_flight_max(&self) -> usize {
        O::IN_FLIGHT
    }

    fn submit(&mut self, batch: &PackedTokens) -> Result<(), ModelError> {
        self.start(batch, Priority::Urgent)
    }

    fn is_ready(&self) -> bool {
        self.ops.is_ready()
    }

    fn receive(&mut self) -> Result<Vec<Reply>, ModelError> {
        let Some(texts) = self.sent.pop_front() else {
            return Err(ModelError::Batch("no batch is in flight".into()));
        };
        self.ops.receive(&mut self.rows)?;
        let width = self.rows.len() / texts;
        Ok(self
            .rows
            .chunks_exact(width)
            .map(|row| self.head.reply(row))
            .collect())
    }
}
