//! Settings of the C allocator.

/// Returns large freed blocks to the system. glibc maps blocks above a bound, and raises the bound to the size of each
/// freed one, up to 32 MiB: after one large request its arenas keep as much for every thread. A bound that is set stays.
/// Other allocators are left as they are. Call it before the first thread starts.
pub fn return_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const BYTES_MIN: libc::c_int = 1 << 20;
        // SAFETY: the call takes two integers and touches no memory of this process but the allocator's own settings.
        let set = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, BYTES_MIN) };
        debug_assert_eq!(set, 1, "glibc takes bounds up to 32 MiB");
    }
}
