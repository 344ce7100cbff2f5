//! CUDA devices: whether one could be used, and if not, why.
//!
//! The driver library is looked for at run time; its absence is a value, not a build without the feature.
#![expect(unsafe_code, reason = "the driver library is loaded at run time")]

use super::device::Unavailable;

/// Why CUDA device `ordinal` cannot be used.
pub fn unavailable(ordinal: usize) -> Unavailable {
    // SAFETY: the call only tries to load the driver library and calls nothing in it.
    let present = unsafe { cudarc::driver::sys::is_culib_present() };
    let why = if present {
        format!(
            "device {ordinal}: a CUDA driver is installed, but this version has no CUDA kernels"
        )
    } else {
        format!("device {ordinal}: no CUDA driver library on this machine")
    };
    Unavailable { why }
}
