//! Launches recorded from a stream, to be started by one call.

use std::sync::Arc;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUgraph, CUgraphExec};

use super::card::{Card, undisturbed};
use crate::ops::KernelError;

/// Recorded work, ready to run.
pub struct Graph {
    card: Arc<Card>,
    ready: CUgraphExec,
}

// SAFETY: a handle that the driver lets any thread use, one at a time: the one that owns this value.
unsafe impl Send for Graph {}

impl Graph {
    /// Records the work that `work` enqueues in the compute stream, which runs none of it.
    pub(super) fn record(
        card: &Arc<Card>,
        work: impl FnOnce() -> Result<(), KernelError>,
    ) -> Result<Graph, KernelError> {
        card.bind()?;
        let template = Template::record(card, work)?;
        let before = result::mem_get_info().map(|(free, _)| free);
        let flags = sys::CUgraphInstantiate_flags(0);
        // SAFETY: the template lives, and has left its stream.
        let ready = unsafe { result::graph::instantiate(template.graph, flags) }
            .map_err(|e| card.failed("making a graph", e))?;
        // From here on `drop` gives it back.
        let graph = Graph {
            card: Arc::clone(card),
            ready,
        };
        // SAFETY: graph and stream live.
        unsafe { result::graph::upload(ready, card.compute) }
            .map_err(|e| card.failed("uploading a graph", e))?;
        let after = result::mem_get_info().map(|(free, _)| free);
        if let (Ok(before), Ok(after)) = (before, after) {
            tracing::debug!(bytes = before.saturating_sub(after), "a cuda graph was recorded");
        }
        Ok(graph)
    }

    /// Starts all of it.
    pub(super) fn launch(&self) -> Result<(), DriverError> {
        // SAFETY: graph and stream live, and so does all memory it was recorded with: `Cuda` replays it only for a
        // batch whose own list of launches has the same addresses.
        unsafe { result::graph::launch(self.ready, self.card.compute) }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if self.card.bind().is_ok() {
            // SAFETY: made by `record`, destroyed once; the driver lets runs under way end first.
            let _ = unsafe { result::graph::exec_destroy(self.ready) };
        }
    }
}

/// Recording of a stream.
struct Template {
    graph: CUgraph,
}

impl Template {
    fn record(
        card: &Arc<Card>,
        work: impl FnOnce() -> Result<(), KernelError>,
    ) -> Result<Template, KernelError> {
        // Waiting for the whole GPU would break the recording off, and fail itself.
        let _alone = undisturbed();
        // Only calls of this thread may break it off: other executors go on allocating and copying.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives.
        unsafe { result::stream::begin_capture(card.compute, mode) }
            .map_err(|e| card.failed("recording a graph", e))?;
        let recorded = work();
        // The recording ends on every outcome: the stream must compute again.
        // SAFETY: the stream lives, and began to record above.
        let graph = unsafe { result::stream::end_capture(card.compute) };
        let template = graph
            .map(|graph| Template { graph })
            .map_err(|e| card.failed("recording a graph", e));
        // The first failure is the reason.
        recorded.and(template)
    }
}

impl Drop for Template {
    fn drop(&mut self) {
        if !self.graph.is_null() {
            // SAFETY: made by `record`, destroyed once; a graph made of it does not need it. The context is that of
            // the thread that recorded it.
            let _ = unsafe { result::graph::destroy(self.graph) };
        }
    }
}
