//! Needs: what a gate wants from the machine or the model before it can measure anything.
//!
//! The table is probed once by the front end; the harness itself reads no environment and opens no socket. A need
//! nobody declared is a catalogue error, never a silent skip.

use std::collections::BTreeMap;

use apr_engine::backend::Device;

use crate::fault::Plant;

/// Every need a gate may name, with its meaning.
pub const KNOWN: &[(&str, &str)] = &[
    ("model", "a model form to judge"),
    ("tokenizer", "the model form carries a tokenizer"),
    ("chat-template", "the model form carries a chat template"),
    ("golden", "recorded golden prompts for the judged model"),
    ("real-model", "a published model in the folder that scripts/fetch_real_models.py fills"),
    ("oracle", "recorded activations or logits of an independent implementation"),
    ("apr", "the apr executable"),
    ("cuda", "an NVIDIA device with a driver"),
    ("no-cuda", "no usable CUDA device: what is promised where there is none"),
    ("avx2", "a CPU with AVX2 and FMA"),
    ("avx512", "a CPU with AVX-512"),
    ("network", "permission to use the network"),
    ("server", "permission to open a listening socket"),
    ("tty", "a terminal"),
    ("linux", "a Linux system"),
    ("baseline", "an executable to compare speed with"),
    ("exclusive", "the machine for itself"),
    ("peer:llama-cpp", "a llama.cpp executable"),
    ("peer:transformers", "a Python with Hugging Face transformers"),
    ("peer:ollama", "an Ollama server"),
];

/// Needs that depend on the judged form rather than on the machine; judges probe them.
pub const OF_THE_MODEL: &[&str] =
    &["model", "real-model", "tokenizer", "chat-template", "golden", "oracle"];

/// Whether `name` is a need a gate may name.
pub fn is_known(name: &str) -> bool {
    KNOWN.iter().any(|(known, _)| *known == name)
}

/// Which machine needs are met, and why the others are not.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    absent: BTreeMap<String, String>,
    present: BTreeMap<String, String>,
}

impl Needs {
    /// What the harness can see without help: the operating system, the CPU and the devices of the engine.
    pub fn probe() -> Self {
        let mut needs = Self::default();
        let os = std::env::consts::OS;
        needs
            .set("linux", if os == "linux" { Ok(os.into()) } else { Err(format!("this is {os}")) });
        needs.set("avx2", cpu("avx2", avx2()));
        needs.set("avx512", cpu("avx512", avx512()));
        let cuda = Device::Cuda(0);
        match cuda.unavailable() {
            None => {
                needs.set("cuda", Ok(cuda.to_string()));
                needs.set("no-cuda", Err(format!("{cuda} is usable")));
            }
            Some(absent) => {
                needs.set("no-cuda", Ok(absent.why.clone()));
                needs.set("cuda", Err(absent.why));
            }
        }
        needs
    }

    /// Declares that `need` is met (with a detail, such as a device name) or why it is not.
    pub fn set(&mut self, need: &str, presence: Result<String, String>) {
        self.absent.remove(need);
        self.present.remove(need);
        match presence {
            Ok(detail) => self.present.insert(need.to_owned(), detail),
            Err(why) => self.absent.insert(need.to_owned(), why),
        };
    }

    /// Why `need` is not met; `None` when it is, or when only a judge can know.
    pub fn unmet(&self, need: &str) -> Option<String> {
        if self.present.contains_key(need) || OF_THE_MODEL.contains(&need) {
            return None;
        }
        let unknown = || format!("nobody declared {need} on this machine");
        Some(self.absent.get(need).cloned().unwrap_or_else(unknown))
    }

    /// The first unmet need of a list, with its reason.
    pub fn first_unmet(
        &self,
        needs: &[String],
        plant: Option<&dyn Plant>,
    ) -> Option<(String, String)> {
        needs.iter().find_map(|need| {
            let hidden = plant.and_then(|plant| plant.hide_need(need));
            hidden.or_else(|| self.unmet(need)).map(|why| (need.clone(), why))
        })
    }

    /// The met needs with their details, for provenance.
    pub fn present(&self) -> &BTreeMap<String, String> {
        &self.present
    }
}

fn cpu(name: &str, found: bool) -> Result<String, String> {
    if found { Ok(name.to_owned()) } else { Err(format!("this CPU has no {name}")) }
}

#[cfg(target_arch = "x86_64")]
fn avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
}

#[cfg(target_arch = "x86_64")]
fn avx512() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bw")
}

#[cfg(not(target_arch = "x86_64"))]
fn avx2() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn avx512() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_undeclared_need_is_unmet_and_says_so() {
        let needs = Needs::default();
        let (need, why) = needs.first_unmet(&["cuda".into()], None).unwrap();
        assert_eq!(need, "cuda");
        assert!(why.contains("nobody declared"), "{why}");
    }

    #[test]
    fn a_declared_need_is_met_and_its_withdrawal_keeps_the_reason() {
        let mut needs = Needs::default();
        needs.set("cuda", Ok("H200".into()));
        assert_eq!(needs.unmet("cuda"), None);
        needs.set("cuda", Err("no driver".into()));
        assert_eq!(needs.unmet("cuda").as_deref(), Some("no driver"));
    }

    #[test]
    fn needs_of_the_model_are_left_to_the_judges() {
        assert_eq!(Needs::default().unmet("chat-template"), None);
    }
}
