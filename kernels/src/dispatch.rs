//! Vector instructions of this processor: detected once, then carried as a value that proves them.

use crate::cpu::vector::Vector;
#[cfg(target_arch = "aarch64")]
use crate::cpu::vector_neon::Neon;
use crate::cpu::vector_portable::Portable;
#[cfg(target_arch = "x86_64")]
use crate::cpu::{vector_avx2::Avx2, vector_avx512::Avx512};

/// A set of vector instructions. A value exists only where the processor has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
    Portable(Portable),
}

/// Code that is compiled once for each path.
///
/// `run` must be `#[inline(always)]`, and so must all that it calls per value: only code inlined
/// into the path's entry is compiled with the path's instructions.
pub(crate) trait Kernel {
    type Output;
    fn run<V: Vector>(self, vector: V) -> Self::Output;
}

impl Path {
    /// The widest instructions this processor has.
    pub fn best() -> Self {
        Self::supported()[0]
    }

    /// All paths this processor can take, the widest first. The last one, `portable`, is always there.
    pub fn supported() -> Vec<Self> {
        let mut paths = Vec::with_capacity(3);
        #[cfg(target_arch = "x86_64")]
        {
            paths.extend(Avx512::detect().map(|proof| Self(Kind::Avx512(proof))));
            paths.extend(Avx2::detect().map(|proof| Self(Kind::Avx2(proof))));
        }
        #[cfg(target_arch = "aarch64")]
        paths.extend(Neon::detect().map(|proof| Self(Kind::Neon(proof))));
        paths.push(Self(Kind::Portable(Portable)));
        paths
    }

    /// The path's name, as logs show it.
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(_) => "avx2",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon(_) => "neon",
            Kind::Portable(_) => "portable",
        }
    }

    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(proof) => proof.enter(kernel),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(proof) => proof.enter(kernel),
            #[cfg(target_arch = "aarch64")]
            Kind::Neon(proof) => proof.enter(kernel),
            Kind::Portable(proof) => kernel.run(proof),
        }
    }
}
