//! The CUDA driver as a [`Driver`]. Every library is loaded while running: [`probe`] says what is missing.

mod card;
mod modules;
mod probe;
mod products;

use std::sync::Arc;

use cudarc::driver::result;

pub use card::Memory;
pub use probe::{Unavailable, probe};

use super::driver::{Driver, Dtype, Launch, Product};
use crate::ops::KernelError;
use card::{Card, Event, Pinned};
use modules::Modules;
use products::Products;

/// One GPU for one executor: its own streams, kernels and products. Several may share a GPU.
pub struct Nvidia {
    card: Arc<Card>,
    modules: Modules,
    products: Products,
    last: LastLaunch,
}

/// What was started last, for errors that are noticed only when its results are waited for.
#[derive(Default)]
struct LastLaunch {
    kernel: String,
    shape: (usize, usize),
}

impl LastLaunch {
    /// Written over what was there: a launch allocates nothing.
    fn set(&mut self, kernel: &str, shape: (usize, usize)) {
        self.kernel.clear();
        self.kernel.push_str(kernel);
        self.shape = shape;
    }
}

impl Nvidia {
    /// Opens GPU `ordinal`, which [`probe`] must have found usable.
    pub fn open(ordinal: usize, dtype: Dtype) -> Result<Nvidia, KernelError> {
        let card = Card::open(ordinal)?;
        Ok(Nvidia {
            modules: Modules::load(&card)?,
            products: Products::new(&card, dtype)?,
            last: LastLaunch::default(),
            card,
        })
    }
}

/// Pinned memory, what it is copied to, and the events that order the two streams around it.
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
        self.card.bind()?;
        assert!(
            bytes.len() <= inbox.memory.bytes,
            "{} of {} bytes",
            bytes.len(),
            inbox.memory.bytes
        );
        // The pinned memory is free once its last copy is over, which it long is.
        inbox
            .copied
            .wait()
            .map_err(|e| self.card.failed("waiting for an earlier copy", e))?;
        let values = inbox.pinned.values_mut(bytes.len());
        values.copy_from_slice(bytes);
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

    fn launch(&mut self, launch: &Launch<'_>) -> Result<(), KernelError> {
        self.card.bind()?;
        self.last.set(launch.kernel, launch.shape);
        let function = self.modules.function(launch.kernel, launch.shared)?;
        let mut args = [launch.args.as_ptr().cast_mut().cast()];
        // SAFETY: the function takes one struct, whose bytes `args` points to and which the driver copies
        // before it returns; the emulated device checks that their sizes agree. The addresses in it are of
        // buffers with room for the shapes that `Cuda` has checked, and outlive the launch, because memory is
        // given back only once its streams have settled.
        unsafe {
            result::launch_kernel(
                function,
                (launch.grid.0, launch.grid.1, 1),
                (launch.threads, 1, 1),
                launch.shared,
                self.card.compute,
                &mut args,
            )
        }
        .map_err(|e| {
            let (Launch { kernel, grid, .. }, (rows, cols)) = (launch, launch.shape);
            let work = format!(
                "kernel {kernel} over {rows} x {cols} ({} x {} blocks)",
                grid.0, grid.1
            );
            self.card.failed(&work, e)
        })
    }

    fn multiply(&mut self, product: &Product) -> Result<(), KernelError> {
        self.card.bind()?;
        self.products.multiply(product)
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
        // In the stream of the work itself: results are small, and what comes next may overwrite `memory`.
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
            let LastLaunch {
                kernel,
                shape: (rows, cols),
            } = &self.last;
            let work = format!("waiting for a batch (last started: kernel {kernel} over {rows} x {cols})");
            self.card.failed(&work, e)
        })?;
        Ok(outbox.pinned.values(outbox.bytes))
    }
}
