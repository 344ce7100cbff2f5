//! Devices by name: which there are, and why one cannot be used.

use std::fmt;

use super::simd::{Isa, Kernels};
use super::{Scalar, Simd, cuda};
use crate::error::{Code, Error, Result};
use crate::model::forward::LmOptions;
use crate::model::{Lm, Model};

/// A place to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Device {
    /// The oracle: one thread, f64 accumulators.
    Scalar,
    /// Vector kernels on this machine's processor.
    Simd {
        /// Instruction set; `None` takes the fastest available one.
        isa: Option<Isa>,
        /// Threads; `None` takes as many as the process may use.
        threads: Option<usize>,
    },
    /// CUDA device of this ordinal.
    Cuda(usize),
}

/// Why a device cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// One sentence.
    pub why: String,
}

/// What is known of a device on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceReport {
    /// The device.
    pub device: Device,
    /// `None` when it can be used.
    pub unavailable: Option<Unavailable>,
}

impl Device {
    /// The fast CPU backend with the best kernels and all threads.
    pub const SIMD: Self = Self::Simd { isa: None, threads: None };

    /// Every kind of device, usable here or not: the oracle, each instruction set, the first CUDA device.
    pub fn detect() -> Vec<DeviceReport> {
        let simd = Isa::ALL.iter().map(|isa| Self::Simd { isa: Some(*isa), threads: None });
        std::iter::once(Self::Scalar)
            .chain(simd)
            .chain([Self::Cuda(0)])
            .map(|device| DeviceReport { device, unavailable: device.unavailable() })
            .collect()
    }

    /// The device called `name`: `scalar`, `simd`, `simd-avx2`, `cuda` or `cuda:1`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name.split_once([':', '-']) {
            None if name == "scalar" => Some(Self::Scalar),
            None if name == "simd" => Some(Self::SIMD),
            None if name == "cuda" => Some(Self::Cuda(0)),
            Some(("simd", isa)) => {
                Isa::from_name(isa).map(|isa| Self::Simd { isa: Some(isa), threads: None })
            }
            Some(("cuda", ordinal)) => ordinal.parse().ok().map(Self::Cuda),
            _ => None,
        }
    }

    /// Why this device cannot be used; `None` when it can.
    pub fn unavailable(&self) -> Option<Unavailable> {
        match self {
            Self::Scalar | Self::Simd { isa: None, .. } => None,
            Self::Simd { isa: Some(isa), .. } if isa.is_available() => None,
            Self::Simd { isa: Some(isa), .. } => {
                Some(Unavailable { why: format!("this processor lacks {isa}") })
            }
            Self::Cuda(ordinal) => Some(cuda::unavailable(*ordinal)),
        }
    }

    /// Sets `model` up on this device. Generics are erased here and nowhere else.
    pub(crate) fn set_up(&self, model: &Model, options: LmOptions) -> Result<Box<dyn Lm>> {
        match self {
            Self::Scalar => Ok(Box::new(model.lm_with(Scalar::default(), options)?)),
            Self::Simd { isa, threads } => {
                let available = std::thread::available_parallelism().map_or(1, usize::from);
                let simd = Simd::new(*isa, threads.unwrap_or(available))?;
                Ok(Box::new(model.lm_with(simd, options)?))
            }
            Self::Cuda(ordinal) => Err(Error::new(Code::DeviceUnavailable)
                .field("cuda")
                .expected("a usable CUDA device")
                .found(cuda::unavailable(*ordinal).why)
                .hint("use the backend scalar or simd")),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar => f.write_str("scalar"),
            Self::Simd { isa: None, .. } => write!(f, "simd-{}", Kernels::best().isa()),
            Self::Simd { isa: Some(isa), .. } => write!(f, "simd-{isa}"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reported_device_is_found_by_its_name_again() {
        for report in Device::detect() {
            assert_eq!(Device::from_name(&report.device.to_string()), Some(report.device));
        }
        for name in ["", "simd-", "simd-mmx", "cuda:x", "scalar:0", "tpu"] {
            assert_eq!(Device::from_name(name), None, "{name}");
        }
    }

    #[test]
    fn the_oracle_is_always_there_and_an_absent_device_says_why() {
        let reports = Device::detect();
        assert_eq!(reports[0], DeviceReport { device: Device::Scalar, unavailable: None });
        for report in reports {
            assert!(report.unavailable.is_none_or(|unavailable| !unavailable.why.is_empty()));
        }
    }
}
