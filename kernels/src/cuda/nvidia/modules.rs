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

/// What `tools/nvcc build` made of kernels/cu: machine code for Hopper, and PTX that the driver compiles
/// for other GPUs when it loads them.
pub(super) struct Modules {
    card: Arc<Card>,
    loaded: Vec<CUmodule>,
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
        let fatbins: [(&str, &[u8]); 5] = [
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
            modules.loaded.push(module);
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

    fn find(&self, name: &str) -> Result<CUfunction, KernelError> {
        let work = format!("finding kernel {name}");
        let mut found = Err(self.card.refused(work.clone(), &"not found"));
        for &module in &self.loaded {
            let Ok(name) = CString::new(name) else { break };
            // SAFETY: the modules stay loaded until this value is dropped.
            found =
                unsafe { result::module::get_function(module, name) }.map_err(|e| self.card.failed(&work, e));
            if found.is_ok() {
                break;
            }
        }
        found
    }
}

impl Drop for Modules {
    fn drop(&mut self) {
        if self.card.bind().and_then(|()| self.card.settle()).is_ok() {
            for &module in &self.loaded {
                // SAFETY: loaded by `load`, unloaded once, and no launch is left.
                let _ = unsafe { result::module::unload(module) };
            }
        }
    }
}
