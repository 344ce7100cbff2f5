//! What a model says about the end of its own text.

use serde_json::Value as Json;

use super::config::{Config, EOS_IDS_MAX, out_of_range};
use super::keys::{Key, Keys};
use crate::error::{Code, Result};
use crate::format::{Metadata, json};

/// Token ids that begin and end text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GenerationDefaults {
    /// Begins a sequence, when the tokenizer adds it.
    pub bos: Option<u32>,
    /// End generation; sorted, unique.
    pub eos: Vec<u32>,
}

const EOS: Key = Key { json: &["eos_token_id"], gguf: "" };
/// GGUF keys of tokens that end a turn or a message rather than the text.
const GGUF_END: [Key; 3] = [
    Key { json: &[], gguf: "tokenizer.ggml.eot_token_id" },
    Key { json: &[], gguf: "tokenizer.ggml.eom_token_id" },
    Key { json: &[], gguf: "tokenizer.ggml.eog_token_id" },
];

/// Where converted files keep the text of `generation_config.json`.
const CARRIED: &str = "huggingface.generation_config.json";

fn carried<'a>(metadata: &'a Metadata<'_>) -> Option<&'a str> {
    match metadata {
        Metadata::Gguf(_) => metadata.gguf(CARRIED)?.as_str(),
        Metadata::Apr(map) => map.get(CARRIED)?.as_str(),
        Metadata::SafeTensors(_) => None,
    }
}

impl GenerationDefaults {
    /// The ids of the configuration, of `generation_config.json` (the one a converted file carries before one that lies
    /// beside it) and of the GGUF end-of-turn keys.
    ///
    /// # Errors
    /// [`Code::ConfigJson`], [`Code::ConfigValue`].
    pub(super) fn read(
        config: &Config,
        generation_config: Option<&[u8]>,
        metadata: Option<&Metadata<'_>>,
    ) -> Result<Self> {
        let mut eos = config.eos.clone();
        let carried = metadata.and_then(carried).map(str::as_bytes);
        if let Some(bytes) = carried.or(generation_config) {
            let map: serde_json::Map<String, Json> = json::object(bytes, Code::ConfigJson)?;
            eos.extend(Keys::Json(&map).token_ids(&EOS, EOS_IDS_MAX)?);
        }
        if let Some(metadata @ Metadata::Gguf(_)) = metadata {
            for key in &GGUF_END {
                eos.extend(Keys::Gguf(metadata, "").token_ids(key, 1)?);
            }
        }
        if let Some(id) = eos.iter().find(|id| **id as usize >= config.vocab) {
            return Err(out_of_range("eos_token_id", id, format!("below {}", config.vocab)));
        }
        eos.sort_unstable();
        eos.dedup();
        Ok(Self { bos: config.bos, eos })
    }
}
