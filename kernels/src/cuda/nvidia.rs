//! The CUDA driver as a [`Driver`]. Every library is loaded at run time: [`probe`] names a missing one.

mod card;
mod graph;
mod modules;
mod probe;
mod products;

use std::fmt::{Display, Write};
use std::sync::Arc;

use cudarc::driver::result;
use cudarc::driver::sys::CUfunction;

pub use card::Memory;
pub use graph::Graph;
pub use probe::{Unavailable, probe};

use super::driver::{Driver, Dtype, Launch, MatrixProduct, Work};
use crate::ops::KernelError;
use card::{Card, Event, Pinned};
use modules::Modules;
use products::Products;

/// One GPU for one executor: its own streams, kernels and products. Several may share a GPU.
pub struct Nvidia {
    card: Arc<Card>,
    modules: Modules,
    products: Products,
    last: LastStarted,
}

/// Work that was started last, for errors that show only when its results are waited for.
#[derive(Default)]
struct LastStarted(String);

impl LastStarted {
    /// Overwritten in place: a launch allocates nothing.
    fn set(&mut self, work: &dyn Display) {
        self.0.clear();
        // Writing to a string never fails.
        let _ = write!(self.0, "{work}");
    }
}

impl Nvidia {
    /// Opens GPU `ordinal`, which [`probe`] must have found usable.
    pub fn open(ordinal: usize, dtype: Dtype) -> Result<Nvidia, KernelError> {
        let card = Card::open(ordinal)?;
        Ok(Nvidia {
            modules: Modules::load(&card)?,
            products: Products::new(&card, dtype)?,
            last: LastStarted::default(),
            card,
        })
    }

    /// Puts `bytes` into the pinned memory of `inbox`, once the last copy out of it is over, which it long is:
    /// the rows of that batch have been waited for.
    fn stage(&self, inbox: &mut Inbox, bytes: &[u8]) -> Result<(), KernelError> {
        self.card.bind()?;
        assert!(
            bytes.len() <= inbox.memory.bytes,
            "{} of {} bytes",
            bytes.len(),
            inbox.memory.bytes
        );
        inbox
            .copied
            .wait()
            .map_err(|e| self.card.failed("waiting for an earlier copy", e))?;
        inbox.pinned.values_mut(bytes.len()).copy_from_slice(bytes);
        Ok(())
    }
}

/// Pinned memory, its copy on the device, and the events that order the two streams around it.
pub struct Inbox {
    pinned: Pinned,
    memory: Memory,
    /// The copy has arrived.
    copied: Event,
    /// The last launch that reads it is over.
    read: Event,
}

/// Pinned memory that results are copied to.
pub struct Outbox {
    pinned: Pinned,
    bytes: usize,
    copied: Event,
}

impl Driver for Nvidia {
    type Memory = Memory;
    type Inbox = Inbox;
    type Outbox = Outbox;
    type Graph = Graph;

    fn allocate(&self, bytes: usize) -> Result<Memory, KernelError> {
        Memory::new(&self.card, bytes)
    }

    fn address(&self, memory: &Memory) -> u64 {
        memory.address
    }

    fn store(&self, memory: &Memory, bytes: &[u8]) -> Result<(), KernelError> {
        self.card.bind()?;
        assert!(
            bytes.len() <= memory.bytes,
            "{} of {} bytes",
            bytes.len(),
            memory.bytes
        );
        // SAFETY: the memory holds that many bytes; `settle` keeps `bytes` alive until they are copied.
        unsafe { result::memcpy_htod_async(memory.address, bytes, self.card.compute) }
            .map_err(|e| self.card.failed("copying weights", e))?;
        self.card.settle()
    }

    fn inbox(&self, bytes: usize) -> Result<Inbox, KernelError> {
        Ok(Inbox {
            pinned: Pinned::new(&self.card, bytes)?,
            memory: Memory::new(&self.card, bytes)?,
            copied: Event::new(&self.card)?,
            read: Event::new(&self.card)?,
        })
    }

    fn post(&mut self, inbox: &mut Inbox, bytes: &[u8]) -> Result<u64, KernelError> {
        self.stage(inbox, bytes)?;
        let values = inbox.pinned.values(bytes.len());
        self.card.wait_on(self.card.copy, &inbox.read)?;
        // SAFETY: source and destination are that long and live until `copied` has passed: the inbox waits for
        // it before either is written again, and before it is dropped.
        unsafe { result::memcpy_htod_async(inbox.memory.address, values, self.card.copy) }
            .map_err(|e| self.card.failed("copying a batch", e))?;
        inbox.copied.record(self.card.copy)?;
        self.card.wait_on(self.card.compute, &inbox.copied)?;
        Ok(inbox.memory.address)
    }

    fn release(&mut self, inbox: &mut Inbox) -> Result<(), KernelError> {
        self.card.bind()?;
        inbox.read.record(self.card.compute)
    }

    fn post_in_turn(&mut self, inbox: &mut Inbox, bytes: &[u8]) -> Result<u64, KernelError> {
        self.stage(inbox, bytes)?;
        let values = inbox.pinned.values(bytes.len());
        // SAFETY: source and destination are that long and live until `copied` has passed: the inbox waits for
        // it before the source is written again, and before it is dropped.
        unsafe { result::memcpy_htod_async(inbox.memory.address, values, self.card.compute) }
            .map_err(|e| self.card.failed("copying a batch", e))?;
        inbox.copied.record(self.card.compute)?;
        Ok(inbox.memory.address)
    }

    fn inbox_address(&self, inbox: &Inbox) -> u64 {
        inbox.memory.address
    }

    fn launch(&mut self, launch: &Launch) -> Result<(), KernelError> {
        self.card.bind()?;
        self.last.set(launch);
        let function = self.modules.function(&launch.kernel, launch.shared)?;
        start(&self.card, function, launch)
    }

    fn multiply(&mut self, product: &MatrixProduct) -> Result<(), KernelError> {
        self.card.bind()?;
        self.last.set(product);
        self.products.multiply(product)
    }

    fn record(&mut self, work: &[Work]) -> Result<Graph, KernelError> {
        let Nvidia {
            card,
            modules,
            products,
            ..
        } = self;
        Graph::record(card, || {
            work.iter().try_for_each(|work| match work {
                Work::Launch(launch) => start(card, modules.function(&launch.kernel, launch.shared)?, launch),
                Work::Product(product) => products.multiply(product),
            })
        })
    }

    fn replay(&mut self, graph: &Graph, name: &dyn Display) -> Result<(), KernelError> {
        self.card.bind()?;
        self.last.set(&format_args!("the graph of {name}"));
        graph.launch().map_err(|e| self.card.failed(&self.last.0, e))
    }

    fn outbox(&self, bytes: usize) -> Result<Outbox, KernelError> {
        Ok(Outbox {
            pinned: Pinned::new(&self.card, bytes)?,
            bytes: 0,
            copied: Event::new(&self.card)?,
        })
    }

    fn fetch(&mut self, memory: &Memory, bytes: usize, outbox: &mut Outbox) -> Result<(), KernelError> {
        self.card.bind()?;
        assert!(bytes <= memory.bytes, "{bytes} of {} bytes", memory.bytes);
        let values = outbox.pinned.values_mut(bytes);
        assert_eq!(values.len(), bytes, "the outbox is too small");
        // The copy is in the stream of the work itself: results are small, and the next work may overwrite `memory`.
        // SAFETY: both sides are that long and live until `copied` has passed, which `wait` and `drop` wait for.
        unsafe { result::memcpy_dtoh_async(values, memory.address, self.card.compute) }
            .map_err(|e| self.card.failed("copying results", e))?;
        outbox.bytes = bytes;
        outbox.copied.record(self.card.compute)
    }

    fn has_arrived(&self, outbox: &Outbox) -> bool {
        self.card.bind().is_err() || outbox.copied.has_passed()
    }

    fn wait<'a>(&mut self, outbox: &'a mut Outbox) -> Result<&'a [u8], KernelError> {
        self.card.bind()?;
        outbox.copied.wait().map_err(|e| {
            let work = format!("waiting for a batch (last started: {})", self.last.0);
            self.card.failed(&work, e)
        })?;
        Ok(outbox.pinned.values(outbox.bytes))
    }
}

fn start(card: &Card, function: CUfunction, launch: &Launch) -> Result<(), KernelError> {
    let mut args = [launch.args.as_ptr().cast_mut().cast()];
    // SAFETY: the function takes one struct, whose bytes `args` points to and which the driver copies
    // before it returns; the emulated device checks that their sizes agree. The addresses in it are of
    // buffers with room for the shapes that `Cuda` has checked, and outlive the launch, because memory is
    // given back only once its streams have settled. Where the launch is recorded, the same holds for each time
    // the graph is started.
    unsafe {
        result::launch_kernel(
            function,
            (launch.grid.0, launch.grid.1, 1),
            (launch.threads, 1, 1),
            launch.shared,
            card.compute,
            &mut args,
        )
    }
    .map_err(|e| card.failed(&launch.to_string(), e))
}
