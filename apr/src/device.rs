//! From `--backend`, `--isa`, `--threads` and `--cache-type` to a device and how a model is set up on it.

use apr_engine::backend::simd::Isa;
use apr_engine::backend::{CacheType, Device};
use apr_engine::model::LmOptions;
use apr_harness::judge::BackendSpec;

use crate::cli::{BackendName, CacheArgs, CacheTypeName, DeviceArgs};
use crate::failure::Failure;

/// The device that the options name; the simd backend when they name none.
pub(crate) fn choose(args: &DeviceArgs) -> Result<Device, Failure> {
    let isa = match &args.isa {
        Some(name) => Some(Isa::from_name(name).ok_or_else(|| {
            let known: Vec<&str> = Isa::ALL.iter().map(|isa| isa.name()).collect();
            Failure::usage(format_args!("unknown --isa {name:?}; known are {}", known.join(", ")))
        })?),
        None => None,
    };
    let backend = args.backend.unwrap_or(BackendName::Simd);
    if backend != BackendName::Simd && (isa.is_some() || args.threads.is_some()) {
        return Err(Failure::usage("--isa and --threads belong to the simd backend"));
    }
    if args.threads == Some(0) {
        return Err(Failure::usage("--threads must be at least 1"));
    }
    Ok(match backend {
        BackendName::Scalar => Device::Scalar,
        BackendName::Simd => Device::Simd { isa, threads: args.threads },
        BackendName::Cuda => Device::Cuda(0),
    })
}

/// How a model is set up with the cache that was asked for.
pub(crate) fn options(args: CacheArgs) -> LmOptions {
    LmOptions { cache_type: cache_type(args.cache_type), ..LmOptions::default() }
}

/// What keys and values are cached as.
pub(crate) fn cache_type(name: CacheTypeName) -> CacheType {
    match name {
        CacheTypeName::F16 => CacheType::F16,
        CacheTypeName::F32 => CacheType::F32,
    }
}

/// The same device as the harness names it.
pub(crate) fn spec(device: &Device) -> BackendSpec {
    let (backend, isa, threads) = match device {
        Device::Scalar => ("scalar", None, None),
        Device::Simd { isa, threads } => ("simd", isa.map(|isa| isa.name().to_owned()), *threads),
        Device::Cuda(_) => ("cuda", None, None),
    };
    BackendSpec { backend: backend.to_owned(), isa, threads, reference: false }
}
