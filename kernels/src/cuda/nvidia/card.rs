//! One GPU with two streams of one executor: work in order on one, copies to the device on the other.

use std::sync::Arc;

use cudarc::driver::CudaContext;
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUevent, CUstream, cudaError_enum as Code};
use parking_lot::{ReentrantMutex, ReentrantMutexGuard};

use crate::ops::KernelError;

/// Lock of recording a graph, and of work that the driver and its libraries do not allow beside it: waiting for a
/// whole GPU, and asking for the best algorithm of a product. It is reentrant: a thread that records may run into
/// either itself, which ends the recording and must not end the thread.
static WHOLE: ReentrantMutex<()> = ReentrantMutex::new(());

/// Until it is dropped, no other thread of this process waits for a whole GPU, asks for an algorithm or records.
pub(super) fn undisturbed() -> ReentrantMutexGuard<'static, ()> {
    WHOLE.lock()
}

/// A GPU, shared by everything that lives on it for one executor.
pub(super) struct Card {
    context: Arc<CudaContext>,
    /// `cuda:0 (NVIDIA H200)`.
    name: String,
    pub(super) compute: CUstream,
    pub(super) copy: CUstream,
}

// SAFETY: streams are handles that the driver lets any thread use; which thread enqueues when is decided by
// the one executor that owns the `Nvidia` around this card.
unsafe impl Send for Card {}
// SAFETY: as for `Send`; the driver locks inside.
unsafe impl Sync for Card {}

impl Card {
    pub(super) fn open(ordinal: usize) -> Result<Arc<Card>, KernelError> {
        let failed = |work: &str, error| classify(&format!("cuda:{ordinal}"), work, 0, error);
        let context = CudaContext::new(ordinal).map_err(|e| failed("opening it", e))?;
        let name = context.name().map_err(|e| failed("asking its name", e))?;
        // Streams that do not wait for the default stream, which nothing here uses.
        let stream = || {
            result::stream::create(result::stream::StreamKind::NonBlocking)
                .map_err(|e| failed("making a stream", e))
        };
        Ok(Arc::new(Card {
            context,
            name: format!("cuda:{ordinal} ({name})"),
            compute: stream()?,
            copy: stream()?,
        }))
    }

    /// Lets the calling thread use this GPU.
    pub(super) fn bind(&self) -> Result<(), KernelError> {
        self.context
            .bind_to_thread()
            .map_err(|e| self.failed("binding it to a thread", e))
    }

    /// Error of `work`, classified.
    pub(super) fn failed(&self, work: &str, error: DriverError) -> KernelError {
        classify(&self.name, work, 0, error)
    }

    /// Error for work that finds no memory; 0 bytes where its need is unknown.
    pub(super) fn out_of_memory(&self, bytes: usize) -> KernelError {
        let device = self.name.clone();
        KernelError::OutOfMemory { device, bytes }
    }

    /// Error for work of cuBLASLt.
    pub(super) fn refused(&self, work: String, reason: &impl std::fmt::Debug) -> KernelError {
        KernelError::Device {
            device: self.name.clone(),
            work,
            reason: format!("{reason:?}"),
        }
    }

    /// Error for work of cuBLASLt that may have met the fault of an earlier piece of work.
    pub(super) fn refused_or_lost(&self, work: String, reason: &impl std::fmt::Debug) -> KernelError {
        // SAFETY: the stream lives as long as this card.
        match unsafe { result::stream::synchronize(self.compute) } {
            Err(error) if FATAL.contains(&error.0) => self.failed(&work, error),
            _ => self.refused(work, reason),
        }
    }

    /// Waits until both streams have done all their work.
    pub(super) fn settle(&self) -> Result<(), KernelError> {
        for stream in [self.copy, self.compute] {
            // SAFETY: the streams live as long as this card.
            unsafe { result::stream::synchronize(stream) }.map_err(|e| self.failed("waiting for it", e))?;
        }
        Ok(())
    }

    /// Waits until the GPU has done all work of every executor of this process.
    pub(super) fn settle_all(&self) -> Result<(), KernelError> {
        let _alone = WHOLE.lock();
        result::ctx::synchronize().map_err(|e| self.failed("waiting for it", e))
    }

    /// Makes `stream` wait for `event`.
    pub(super) fn wait_on(&self, stream: CUstream, event: &Event) -> Result<(), KernelError> {
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: stream and event live; an event that was never recorded delays nothing.
        unsafe { result::stream::wait_event(stream, event.event, flags) }
            .map_err(|e| self.failed("ordering its streams", e))
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            for stream in [self.compute, self.copy] {
                // SAFETY: this is the last holder of the card, and so of its streams. The driver finishes the
                // enqueued work first. An error leaves nothing to be done.
                let _ = unsafe { result::stream::destroy(stream) };
            }
        }
    }
}

/// Device memory of `bytes`, given back when dropped.
pub struct Memory {
    card: Arc<Card>,
    pub(super) address: u64,
    pub(super) bytes: usize,
}

impl Memory {
    pub(super) fn new(card: &Arc<Card>, bytes: usize) -> Result<Memory, KernelError> {
        card.bind()?;
        // SAFETY: asks for memory only; nothing reads it before it is written.
        let address = unsafe { result::malloc_sync(bytes.max(1)) }
            .map_err(|e| classify(&card.name, "allocating memory", bytes, e))?;
        Ok(Memory {
            card: Arc::clone(card),
            address,
            bytes,
        })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // Work that still uses it ends first, in whichever stream: executors share weights. After an error the
        // memory goes with the process.
        if self.card.bind().and_then(|()| self.card.settle_all()).is_ok() {
            // SAFETY: allocated by `new`, freed once, and no work that was enqueued is left.
            let _ = unsafe { result::free_sync(self.address) };
        }
    }
}

/// Host memory that the GPU reads and writes by itself while the host goes on.
pub(super) struct Pinned {
    card: Arc<Card>,
    start: *mut u8,
    bytes: usize,
}

// SAFETY: the memory belongs to this value alone; the GPU touches it only between an enqueued copy and the
// event that says it is over, for which the owner waits.
unsafe impl Send for Pinned {}

impl Pinned {
    pub(super) fn new(card: &Arc<Card>, bytes: usize) -> Result<Pinned, KernelError> {
        card.bind()?;
        // SAFETY: asks for memory only, which is filled below before anybody reads it.
        let start = unsafe { result::malloc_host(bytes.max(1), sys::CU_MEMHOSTALLOC_PORTABLE) }
            .map_err(|e| classify(&card.name, "allocating pinned memory", bytes, e))?
            .cast::<u8>();
        // SAFETY: `bytes` were just allocated at `start`.
        unsafe { start.write_bytes(0, bytes) };
        Ok(Pinned {
            card: Arc::clone(card),
            start,
            bytes,
        })
    }

    pub(super) fn values(&self, bytes: usize) -> &[u8] {
        // SAFETY: initialised by `new`, and `min` keeps within it. The owner has waited for copies into it.
        unsafe { std::slice::from_raw_parts(self.start, bytes.min(self.bytes)) }
    }

    pub(super) fn values_mut(&mut self, bytes: usize) -> &mut [u8] {
        // SAFETY: as in `values`; the borrow is exclusive, and the owner has waited for copies out of it.
        unsafe { std::slice::from_raw_parts_mut(self.start, bytes.min(self.bytes)) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.card.bind().and_then(|()| self.card.settle()).is_ok() {
            // SAFETY: allocated by `new`, freed once, and no copy that was enqueued is left.
            let _ = unsafe { result::free_host(self.start.cast()) };
        }
    }
}

/// A point in a stream that the host or the other stream can wait for.
pub(super) struct Event {
    card: Arc<Card>,
    event: CUevent,
}

// SAFETY: a handle that the driver lets any thread use.
unsafe impl Send for Event {}

impl Event {
    pub(super) fn new(card: &Arc<Card>) -> Result<Event, KernelError> {
        card.bind()?;
        let event = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)
            .map_err(|e| card.failed("making an event", e))?;
        Ok(Event {
            card: Arc::clone(card),
            event,
        })
    }

    /// Marks the work that `stream` has so far.
    pub(super) fn record(&self, stream: CUstream) -> Result<(), KernelError> {
        // SAFETY: event and stream live.
        unsafe { result::event::record(self.event, stream) }
            .map_err(|e| self.card.failed("marking a stream", e))
    }

    /// Waits for the last mark; returns at once where there never was one. The caller names the work that failed.
    pub(super) fn wait(&self) -> Result<(), DriverError> {
        // SAFETY: the event lives.
        unsafe { result::event::synchronize(self.event) }
    }

    /// True where [`Event::wait`] would return at once, be it with an error.
    pub(super) fn has_passed(&self) -> bool {
        // SAFETY: the event lives.
        let asked = unsafe { result::event::query(self.event) };
        asked != Err(DriverError(Code::CUDA_ERROR_NOT_READY))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.card.bind().is_ok() {
            // SAFETY: made by `new`, destroyed once; the driver first finishes work that waits for it.
            let _ = unsafe { result::event::destroy(self.event) };
        }
    }
}

/// The driver's name of an error.
pub(super) fn reason(error: DriverError) -> String {
    match error.error_string() {
        Ok(text) => format!("{:?}: {}", error.0, text.to_string_lossy()),
        Err(_) => format!("{:?}", error.0),
    }
}

/// Errors after which every further call fails: the context is lost, and only a new process gets another.
const FATAL: [Code; 18] = [
    Code::CUDA_ERROR_DEINITIALIZED,
    Code::CUDA_ERROR_ECC_UNCORRECTABLE,
    Code::CUDA_ERROR_NVLINK_UNCORRECTABLE,
    Code::CUDA_ERROR_CONTAINED,
    Code::CUDA_ERROR_ILLEGAL_ADDRESS,
    Code::CUDA_ERROR_LAUNCH_TIMEOUT,
    Code::CUDA_ERROR_CONTEXT_IS_DESTROYED,
    Code::CUDA_ERROR_ASSERT,
    Code::CUDA_ERROR_HARDWARE_STACK_ERROR,
    Code::CUDA_ERROR_ILLEGAL_INSTRUCTION,
    Code::CUDA_ERROR_MISALIGNED_ADDRESS,
    Code::CUDA_ERROR_INVALID_ADDRESS_SPACE,
    Code::CUDA_ERROR_INVALID_PC,
    Code::CUDA_ERROR_LAUNCH_FAILED,
    Code::CUDA_ERROR_TENSOR_MEMORY_LEAK,
    Code::CUDA_ERROR_MPS_CLIENT_TERMINATED,
    Code::CUDA_ERROR_EXTERNAL_DEVICE,
    Code::CUDA_ERROR_UNKNOWN,
];

fn classify(device: &str, work: &str, bytes: usize, error: DriverError) -> KernelError {
    let (device, work) = (device.to_owned(), work.to_owned());
    if error.0 == Code::CUDA_ERROR_OUT_OF_MEMORY {
        return KernelError::OutOfMemory { device, bytes };
    }
    let reason = reason(error);
    if FATAL.contains(&error.0) {
        KernelError::DeviceLost { device, work, reason }
    } else {
        KernelError::Device { device, work, reason }
    }
}
