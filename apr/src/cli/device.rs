//! Options of every command that runs a model: where it computes, and how it keeps keys and values.

use clap::{Args, ValueEnum};

/// How keys and values are kept.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct CacheArgs {
    /// Type of the cached keys and values: f16 takes half the memory, f32 keeps them as they were computed.
    #[arg(long, value_enum, value_name = "TYPE", default_value_t = CacheTypeName::F16)]
    pub(crate) cache_type: CacheTypeName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CacheTypeName {
    /// Half precision.
    F16,
    /// Single precision.
    F32,
}

/// Where to compute.
#[derive(Args, Clone, Debug)]
pub(crate) struct DeviceArgs {
    /// Backend; default: the fastest that is available.
    #[arg(long, value_enum, value_name = "NAME")]
    pub(crate) backend: Option<BackendName>,
    /// Threads of the simd backend; default: all cores.
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Instruction set of the simd backend; default: the best of this machine.
    #[arg(long, value_name = "ISA")]
    pub(crate) isa: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendName {
    /// The oracle: naive loops, f64 accumulators.
    Scalar,
    /// Run-time dispatched SIMD kernels.
    Simd,
    /// NVIDIA GPU.
    Cuda,
}
