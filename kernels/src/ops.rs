//! Packed operations of an encoder, as one trait that every device implements.

use std::time::Duration;

/// Reason why an operation was refused. Nothing has been computed when one of these comes back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// An operand has another shape than the operation needs.
    #[error("{kernel}: {operand} is {rows} x {cols}, must be {wanted_rows} x {wanted_cols}")]
    Shape {
        /// The operation that refused.
        kernel: &'static str,
        /// Name of the operand.
        operand: &'static str,
        /// Rows it has.
        rows: usize,
        /// Columns it has.
        cols: usize,
        /// Rows it must have.
        wanted_rows: usize,
        /// Columns it must have.
        wanted_cols: usize,
    },
    /// A list has another length than the operation needs.
    #[error("{kernel}: {operand} has {len} values, must have {wanted}")]
    Length {
        /// The operation that refused.
        kernel: &'static str,
        /// Name of the operand.
        operand: &'static str,
        /// Values it has.
        len: usize,
        /// Values it must have.
        wanted: usize,
    },
    /// An operand has no values at all.
    #[error("{kernel}: {operand} is empty")]
    Empty {
        /// The operation that refused.
        kernel: &'static str,
        /// Name of the operand.
        operand: &'static str,
    },
    /// An index points behind the end of its table.
    #[error("{kernel}: {operand} {index} lies outside its table of {bound} rows")]
    Index {
        /// The operation that refused.
        kernel: &'static str,
        /// Kind of index: token id, position, token type.
        operand: &'static str,
        /// The index.
        index: usize,
        /// Rows of the table.
        bound: usize,
    },
    /// `cu_seqlens` does not cut the rows into sequences of at least one token.
    #[error("{kernel}: cu_seqlens must rise from 0 to {rows} rows, but entry {entry} is {value}")]
    Sequences {
        /// The operation that refused.
        kernel: &'static str,
        /// Rows to be cut.
        rows: usize,
        /// Position of the first entry that is wrong.
        entry: usize,
        /// Value of that entry.
        value: usize,
    },
    /// A hidden size that does not divide by the number of heads.
    #[error("attention: {cols} columns are not three times {heads} heads of one size")]
    Heads {
        /// Columns of the fused query, key and value rows.
        cols: usize,
        /// Heads asked for.
        heads: usize,
    },
    /// A text is longer than the relative bias reaches.
    #[error("attention: relative bias reaches {len_max} tokens, the longest text has {len}")]
    BiasReach {
        /// Tokens the table covers.
        len_max: usize,
        /// Tokens of the longest text.
        len: usize,
    },
    /// A size that this device has no kernel for.
    #[error("{kernel}: {operand} is {value}; supported: {supported}")]
    Unsupported {
        /// The operation that refused.
        kernel: &'static str,
        /// Operand of that size.
        operand: &'static str,
        /// The size.
        value: usize,
        /// The sizes that it could be.
        supported: &'static str,
    },
    /// The processor lacks the instructions that a form of numbers needs.
    #[error("{dtype} needs the instructions {missing}, which this processor does not have")]
    Instructions {
        /// The form asked for.
        dtype: &'static str,
        /// The processor's feature, as Linux names it.
        missing: &'static str,
    },
    /// The device has not enough memory left. It goes on; less work may fit.
    #[error("{device} has no {}memory left", in_bytes(*.bytes))]
    OutOfMemory {
        /// The device.
        device: String,
        /// Bytes asked for; 0 where a library asked and did not say.
        bytes: usize,
    },
    /// The device refused a piece of work and goes on with the next.
    #[error("{device}: {work} failed: {reason}")]
    Device {
        /// The device.
        device: String,
        /// The kernel and its shape, or another piece of work.
        work: String,
        /// The driver's reason.
        reason: String,
    },
    /// The device can do no more work for this process: only a new process can.
    #[error("{device} is lost: {work} failed: {reason}")]
    DeviceLost {
        /// The device.
        device: String,
        /// Work at which the loss was noticed, which may be later than its cause.
        work: String,
        /// The driver's reason.
        reason: String,
    },
    /// The compute threads could not be started.
    #[error("cannot start {threads} compute threads: {reason}")]
    Threads {
        /// Threads asked for.
        threads: usize,
        /// The system's reason.
        reason: String,
    },
}

/// Beginning of a message: `N bytes of `.
fn in_bytes(bytes: usize) -> String {
    if bytes == 0 {
        return String::new();
    }
    format!("{bytes} bytes of ")
}

/// The function applied to each output of [`Ops::linear`] while it is still in a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// The identity.
    None,
    /// `x · Φ(x)` with the exact normal distribution (erf), as the original BERT has it.
    Gelu,
    /// The tanh approximation of GELU (`gelu_new`, `gelu_pytorch_tanh`).
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
    /// The hyperbolic tangent, as in BERT's pooler.
    Tanh,
}

/// Behaviour of a forward towards others on its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Runs inside a preemptible forward, where one runs, instead of waiting for its end.
    Urgent,
    /// Has preemption points, where urgent forwards run between its products.
    Preemptible,
}

/// Times that a forward shared its device with others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sharing {
    /// Wait before the forward began.
    pub waited: Duration,
    /// Time that urgent forwards took from it after that.
    pub gave: Duration,
    /// Whether the forward ran inside a preemptible one, on the threads at its preemption point.
    pub inside: bool,
}

/// Rule by which the rows of one text become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The first row.
    Cls,
    /// The mean of all rows.
    Mean,
}

/// A layer normalisation: `gamma · (x − mean) / √(variance + eps) + beta` for each row.
#[derive(Debug, Clone)]
pub struct Norm<T> {
    /// Scale, `[1, hidden]`.
    pub gamma: T,
    /// Shift, `[1, hidden]`.
    pub beta: T,
    /// Added to the variance.
    pub eps: f32,
}

/// The tables of an encoder's first layer.
#[derive(Debug, Clone)]
pub struct Embedding<W, T> {
    /// One row for each token id.
    pub word: W,
    /// One row for each position; some families have none.
    pub position: Option<T>,
    /// One row for each token type; some families have none.
    pub kind: Option<T>,
    /// Applied to the sum.
    pub norm: Norm<T>,
}

/// The tokens of a packed batch.
#[derive(Debug, Clone, Copy)]
pub struct Tokens<'a> {
    /// Token ids of all texts, one after the other.
    pub ids: &'a [u32],
    /// The row of the position table for each token; ignored where the family has no such table.
    pub positions: &'a [u32],
    /// The row of the type table for each token; empty means that all are of type 0.
    pub kinds: &'a [u32],
}

/// One device's packed operations. Activations are row-major f32, one row for each token.
///
/// Every operation sizes its output itself. A row's result does not depend on the other rows of the
/// batch, nor on where in the batch it stands.
pub trait Ops: Send {
    /// Batches that may be on the way at once, from their first operation to [`Ops::receive`]: two where the
    /// device computes while the host prepares the next.
    const IN_FLIGHT: usize;

    /// Weights `[out, in]` with an optional bias, packed once for this device.
    type Matrix: Send + Sync;
    /// Read-only rows: norm vectors, positions, relative bias.
    type Table: Send + Sync;
    /// The word table. Often the largest tensor of a model, of which a batch reads a few rows.
    type Words: Send + Sync;
    /// Activations. Grows on demand and keeps its memory, so a warm forward allocates nothing.
    type Buffer: Send;

    /// Packs `weight`, row-major `[out, inp]`.
    fn matrix(
        &self,
        weight: &[f32],
        bias: Option<&[f32]>,
        out: usize,
        inp: usize,
    ) -> Result<Self::Matrix, KernelError>;

    /// Takes over `values`, row-major `[rows, cols]`.
    fn table(&self, values: &[f32], rows: usize, cols: usize) -> Result<Self::Table, KernelError>;

    /// Takes over the word table `values`, row-major `[rows, cols]`, in the precision of the linear layers or better.
    fn words(&self, values: &[f32], rows: usize, cols: usize) -> Result<Self::Words, KernelError>;

    /// An empty buffer.
    fn buffer(&self) -> Self::Buffer;

    /// Rows and columns that `buffer` holds now.
    fn shape(&self, buffer: &Self::Buffer) -> (usize, usize);

    /// Fills `out` from host memory, row-major `[rows, cols]`.
    fn write(
        &mut self,
        values: &[f32],
        rows: usize,
        cols: usize,
        out: &mut Self::Buffer,
    ) -> Result<(), KernelError>;

    /// Starts to bring the values of `x` back, as all operations so far leave them. Operations that follow
    /// may overwrite `x` meanwhile.
    fn send(&mut self, x: &Self::Buffer) -> Result<(), KernelError>;

    /// Waits for the oldest [`Ops::send`] that is not received yet, and replaces the contents of `out` by its
    /// values, row-major; by nothing where nothing was sent. Whatever the outcome, that one is received.
    fn receive(&mut self, out: &mut Vec<f32>) -> Result<(), KernelError>;

    /// True where [`Ops::receive`] would not wait.
    fn is_ready(&self) -> bool {
        true
    }

    /// Runs `work`, the whole forward of the batch that `cu_seqlens` cuts, up to its [`Ops::send`], once it owns the
    /// device: models that share it do not slow each other down half-way. A device may collect the operations and
    /// start all of them at once; after an error it may have started none.
    fn forward(
        &mut self,
        cu_seqlens: &[u32],
        priority: Priority,
        work: impl FnOnce(&mut Self) -> Result<(), KernelError> + Send,
    ) -> Result<(), KernelError>
    where
        Self: Sized,
    {
        let _ = (cu_seqlens, priority);
        work(self)
    }

    /// Sharing of the device by the last forward.
    fn sharing(&self) -> Sharing {
        Sharing::default()
    }

    /// Count of preemption points of a preemptible forward of a model of `layers`; 0 where the device has none.
    fn preemption_points(layers: usize) -> usize {
        let _ = layers;
        0
    }

    /// Binds the thread that is to run forwards, which calls this once: the device may pin it.
    fn settle(&self) -> Result<(), KernelError> {
        Ok(())
    }

    /// Count of parts of a batch that are computed sooner side by side, each by one of the device's threads, than
    /// one after the other by all of them.
    fn seats(&self) -> usize {
        1
    }

    /// Runs `work` on each of `parts`, side by side on as many devices as there are seats.
    fn side_by_side<P: Send>(
        &mut self,
        parts: &mut [P],
        work: impl Fn(&mut Self, &mut P) -> Result<(), KernelError> + Sync,
    ) -> Result<(), KernelError>
    where
        Self: Sized,
    {
        parts.iter_mut().try_for_each(|part| work(self, part))
    }

    /// `out = norm(word[id] + position[position] + kind[kind])`.
    fn embed(
        &mut self,
        tokens: Tokens<'_>,
        tables: &Embedding<Self::Words, Self::Table>,
        out: &mut Self::Buffer,
    ) -> Result<(), KernelError>;

    /// `out = activation(x · wᵀ + bias)`.
    fn linear(
        &mut self,
        x: &Self::Buffer,
        w: &Self::Matrix,
        activation: Activation,
        out: &mut Self::Buffer,
    ) -> Result<(), KernelError>;

    /// `residual = norm(residual + x · wᵀ + bias)`.
    fn linear_add_norm(
        &mut self,
        x: &Self::Buffer,
        w: &Self::Matrix,
        norm: &Norm<Self::Table>,
        residual: &mut Self::Buffer,
    ) -> Result<(), KernelError>;

    /// Attention of each text over itself, for each head, scaled by `1 / √head_dim`.
    ///
    /// A row of `qkv` is query, key and value side by side, each `hidden` wide with its heads side by
    /// side. `bias` comes from [`relative_bias`], `[heads, 2·len_max − 1]`; it is added to the scaled scores.
    fn attention(
        &mut self,
        qkv: &Self::Buffer,
        cu_seqlens: &[u32],
        heads: usize,
        bias: Option<&Self::Table>,
        out: &mut Self::Buffer,
    ) -> Result<(), KernelError>;

    /// One row for each text.
    fn pool(
        &mut self,
        x: &Self::Buffer,
        cu_seqlens: &[u32],
        pooling: Pooling,
        out: &mut Self::Buffer,
    ) -> Result<(), KernelError>;
}

/// Spreads a bucketed relative bias (`table`, row-major `[buckets, heads]`) over all offsets.
///
/// The result is row-major `[heads, 2·len_max − 1]`; its column `c` holds the bias of a key that
/// stands `c − (len_max − 1)` tokens behind its query. `bucket` maps that signed offset to a row of
/// `table`.
pub fn relative_bias(
    table: &[f32],
    heads: usize,
    len_max: usize,
    bucket: impl Fn(isize) -> usize,
) -> Result<Vec<f32>, KernelError> {
    const KERNEL: &str = "relative_bias";
    if heads == 0 || len_max == 0 || table.is_empty() {
        return Err(KernelError::Empty {
            kernel: KERNEL,
            operand: "table",
        });
    }
    let buckets = table.len() / heads;
    if buckets * heads != table.len() {
        return Err(KernelError::Length {
            kernel: KERNEL,
            operand: "table",
            len: table.len(),
            wanted: (buckets + 1) * heads,
        });
    }
    let width = 2 * len_max - 1;
    let mut spread = vec![0.0; heads * width];
    for column in 0..width {
        let row = bucket(column as isize - (len_max as isize - 1));
        if row >= buckets {
            return Err(KernelError::Index {
                kernel: KERNEL,
                operand: "bucket",
                index: row,
                bound: buckets,
            });
        }
        for head in 0..heads {
            spread[head * width + column] = table[row * heads + head];
        }
    }
    Ok(spread)
}
