//! The compiled kernels, loaded into one context and found by name.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::Arc;

use cudarc::driver::result;
use cudarc::driver::sys::{CUfunction, CUfunction_attribute_enum as Attribute, CUmodule};

use super::card::Card;
use crate::ops::KernelError;

/// Bytes that the driver reads as a structure.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

macro_rules! fatbin {
    ($stem:literal) => {{
        static BYTES: &Aligned<[u8]> =
            &Aligned(*include_bytes!(concat!("../../../cu/out/", $stem, ".fatbin")));
        &BYTES.0
    }};
}

/// Shared memory that a block gets without asking the driver for more.
const SHARED_DEFAULT: u32 = 48 << 10;

/// Kernels that `tools/nvcc build` made of kernels/cu: machine code for Hopper, and PTX that the driver compiles
/// for other GPUs when it loads them.
pub(super) struct Modules {
    card: Arc<Card>,
    /// Each with the name of its source.
    loaded: Vec<(&'static str, CUmodule)>,
    functions: HashMap<String, Found>,
}

/// A kernel, and the dynamic shared memory that it may be launched with.
#[derive(Clone, Copy)]
struct Found {
    function: CUfunction,
    shared_max: u32,
}

// SAFETY: modules and functions are handles that the driver lets any thread use.
unsafe impl Send for Modules {}

impl Modules {
    pub(super) fn load(card: &Arc<Card>) -> Result<Modules, KernelError> {
        let fatbins: [(&'static str, &[u8]); 5] = [
            ("activation", fatbin!("activation")),
            ("attention", fatbin!("attention")),
            ("embedding", fatbin!("embedding")),
            ("layer_norm", fatbin!("layer_norm")),
            ("pool", fatbin!("pool")),
        ];
        card.bind()?;
        let mut modules = Modules {
            card: Arc::clone(card),
            loaded: Vec::new(),
            functions: HashMap::new(),
        };
        for (stem, fatbin) in fatbins {
            // SAFETY: a whole fatbin as fatbinary wrote it, whose header says its length; the manifest holds its
            // hash to the sources.
            let module = unsafe { result::module::load_data(fatbin.as_ptr().cast()) }
                .map_err(|e| card.failed(&format!("loading the kernels of {stem}"), e))?;
            modules.loaded.push((stem, module));
        }
        Ok(modules)
    }

    /// The kernel `name`, allowed the shared memory that it is launched with.
    pub(super) fn function(&mut self, name: &str, shared: u32) -> Result<CUfunction, KernelError> {
        let known = self.functions.get(name).copied();
        let mut found = match known {
            Some(found) if shared <= found.shared_max => return Ok(found.function),
            Some(found) => found,
            None => Found {
                function: self.find(name)?,
                shared_max: SHARED_DEFAULT,
            },
        };
        if shared > found.shared_max {
            let most = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function was found in a module that is still loaded.
            unsafe { result::function::set_function_attribute(found.function, most, shared as i32) }
                .map_err(|e| {
                    self.card.failed(
                        &format!("giving kernel {name} {shared} bytes of shared memory"),
                        e,
                    )
                })?;
            found.shared_max = shared;
        }
        self.functions.insert(name.to_owned(), found);
        Ok(found.function)
    }

    /// Asks the one module that has the kernel: asking each in turn would make a driver error for every module
    /// without it, and `compute-sanitizer` counts those.
    fn find(&self, name: &str) -> Result<CUfunction, KernelError> {
        let work = format!("finding kernel {name}");
        let stem = source_of(name);
        let module = self.loaded.iter().find(|(loaded, _)| *loaded == stem);
        let (Some(&(_, module)), Ok(name)) = (module, CString::new(name)) else {
            return Err(self.card.refused(work, &"no such kernel"));
        };
        // SAFETY: the modules stay loaded until this value is dropped.
        unsafe { result::module::get_function(module, name) }.map_err(|e| self.card.failed(&work, e))
    }
}

/// The source of kernel `name`: its beginning, except for kernels of activation.cu, which are named after their function.
fn source_of(name: &str) -> &'static str {
    let named_after = ["attention", "embedding", "layer_norm", "pool"];
    named_after
        .into_iter()
        .find(|stem| name.starts_with(stem))
        .unwrap_or("activation")
}

impl Drop for Modules {
    fn drop(&mut self) {
        if self.card.bind().and_then(|()| self.card.settle()).is_ok() {
            for &(_, module) in &self.loaded {
                // SAFETY: loaded by `load`, unloaded once, and no launch is left.
                let _ = unsafe { result::module::unload(module) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::source_of;

    /// `KERNEL(NAME, …)` and the macros around it name kernels by their first operand. Names that are put together
    /// from several begin alike.
    #[test]
    #[cfg_attr(miri, ignore = "reads the sources")]
    fn every_kernel_is_looked_for_in_its_own_file() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("cu");
        let mut kernels = 0;
        for stem in ["activation", "attention", "embedding", "layer_norm", "pool"] {
            let source = std::fs::read_to_string(folder.join(format!("{stem}.cu"))).unwrap();
            for line in source.lines() {
                let named = ["KERNEL(", "ACTIVATION("]
                    .into_iter()
                    .find_map(|m| line.trim().strip_prefix(m));
                let Some((name, _)) = named.and_then(|rest| rest.split_once(',')) else {
                    continue;
                };
                assert_eq!(source_of(name), stem, "{name}");
                kernels += 1;
            }
        }
        assert!(kernels > 15, "{kernels}");
    }
}
