//! A vocabulary out of model metadata, written down as a `tokenizer.json`.
//!
//! Every token stands in the model's vocabulary under its id, control tokens too: readers number added tokens that
//! they do not find there anew. What is written reads back as the same ids, here and in the `tokenizers` library.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::bpe::PreType;
use super::gguf::{added, kinds};
use super::pieces::Kind;
use super::spm::SPACE;
use super::vocab::GgufVocab;
use crate::error::{Code, Error, Result};

impl GgufVocab<'_> {
    /// A `tokenizer.json` that gives the same ids as this vocabulary.
    ///
    /// # Errors
    /// [`Code::TokenizerUnsupported`] for another algorithm or an unknown pre-tokenizer type, and those of building the
    /// tokenizer.
    pub fn to_tokenizer_json(&self) -> Result<Map<String, Json>> {
        let kinds = kinds(self)?;
        let mut root = Map::new();
        let mut put = |key: &str, value: Json| root.insert(key.to_owned(), value);
        put("version", json!("1.0"));
        put("truncation", Json::Null);
        put("padding", Json::Null);
        put("added_tokens", self.added_tokens(&kinds));
        let parts = match self.model {
            "gpt2" => self.byte_level_parts(&kinds)?,
            "llama" => self.sentence_piece_parts(&kinds),
            other => {
                return Err(Error::new(Code::TokenizerUnsupported)
                    .field("tokenizer.ggml.model")
                    .expected("gpt2 or llama")
                    .found(other));
            }
        };
        put("normalizer", parts.normalizer);
        put("pre_tokenizer", parts.pre_tokenizer);
        put("post_processor", self.post_processor(parts.adds_bos));
        put("decoder", parts.decoder);
        put("model", parts.model);
        Ok(root)
    }

    fn added_tokens(&self, kinds: &[Kind]) -> Json {
        let list = added(self, kinds).into_iter().map(|token| {
            json!({
                "id": token.id,
                "content": token.content,
                "single_word": token.single_word,
                "lstrip": token.lstrip,
                "rstrip": token.rstrip,
                "normalized": token.normalized,
                "special": token.special,
            })
        });
        list.collect()
    }

    /// Every id but the ones that only fill the embedding up.
    fn entries(&self, kinds: &[Kind]) -> Map<String, Json> {
        let mut entries = Map::new();
        for (id, (token, kind)) in self.tokens.iter().zip(kinds).enumerate() {
            let filler = *kind == Kind::Unused && *token == format!("[PAD{id}]");
            // A string that stands twice belongs to its first id.
            if !filler && !entries.contains_key(*token) {
                entries.insert((*token).to_owned(), json!(id));
            }
        }
        entries
    }

    fn byte_level_parts(&self, kinds: &[Kind]) -> Result<Parts> {
        let pre = PreType::named(self.pre)?;
        let (normalizer, pre_tokenizer) = pre.parts()?;
        let merges: Vec<Json> = self.merges.iter().map(|merge| pair(merge)).collect();
        let byte_level = json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false
        });
        Ok(Parts {
            normalizer: as_json(&normalizer)?,
            pre_tokenizer: as_json(&pre_tokenizer)?,
            decoder: byte_level,
            model: json!({
                "type": "BPE",
                "dropout": null,
                "unk_token": null,
                "continuing_subword_prefix": null,
                "end_of_word_suffix": null,
                "fuse_unk": false,
                "byte_fallback": false,
                "ignore_merges": pre.ignore_merges,
                "vocab": self.entries(kinds),
                "merges": merges,
            }),
            adds_bos: pre.add_bos,
        })
    }

    fn sentence_piece_parts(&self, kinds: &[Kind]) -> Parts {
        let space = SPACE.to_string();
        let replace = json!({ "type": "Replace", "pattern": { "String": " " }, "content": space });
        let prefix = self.add_space_prefix.unwrap_or(true);
        let normalizer = if prefix {
            let prepend = json!({ "type": "Prepend", "prepend": space });
            json!({ "type": "Sequence", "normalizers": [prepend, replace] })
        } else {
            replace
        };
        let mut decoders = vec![
            json!({ "type": "Replace", "pattern": { "String": space }, "content": " " }),
            json!({ "type": "ByteFallback" }),
            json!({ "type": "Fuse" }),
        ];
        if prefix {
            decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
        }
        let unknown = self.unk.and_then(|id| self.tokens.get(usize::try_from(id).ok()?));
        Parts {
            normalizer,
            pre_tokenizer: Json::Null,
            decoder: json!({ "type": "Sequence", "decoders": decoders }),
            model: json!({
                "type": "BPE",
                "dropout": null,
                "unk_token": unknown,
                "continuing_subword_prefix": null,
                "end_of_word_suffix": null,
                "fuse_unk": true,
                "byte_fallback": kinds.contains(&Kind::Byte),
                "ignore_merges": false,
                "vocab": self.entries(kinds),
                "merges": self.merges_by_score(kinds),
            }),
            adds_bos: true,
        }
    }

    /// The merges behind scored pieces: every way to cut a piece in two, best piece first. A join of two neighbours is
    /// then the best one exactly when the piece they make has the best score.
    fn merges_by_score(&self, kinds: &[Kind]) -> Vec<Json> {
        let mut pieces: BTreeMap<&str, usize> = BTreeMap::new();
        for (id, (token, kind)) in self.tokens.iter().zip(kinds).enumerate() {
            if *kind == Kind::Normal {
                pieces.entry(token).or_insert(id);
            }
        }
        let score = |id: usize| self.scores.get(id).copied().unwrap_or(0.0);
        let mut merges = Vec::new();
        for (piece, id) in &pieces {
            for (at, _) in piece.char_indices().skip(1) {
                let (left, right) = piece.split_at(at);
                if let (Some(first), Some(second)) = (pieces.get(left), pieces.get(right)) {
                    merges.push((score(*id), *first, *second, left, right));
                }
            }
        }
        merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
        merges.into_iter().map(|(_, _, _, left, right)| json!([left, right])).collect()
    }

    /// What the model puts around a text.
    fn post_processor(&self, adds_bos: bool) -> Json {
        let token = |id: Option<u64>| {
            let id = id?;
            Some((id, *self.tokens.get(usize::try_from(id).ok()?)?))
        };
        let first = token(self.bos).filter(|_| self.add_bos.unwrap_or(adds_bos));
        let last = token(self.eos).filter(|_| self.add_eos == Some(true));
        if first.is_none() && last.is_none() {
            return Json::Null;
        }
        let piece = |token: Option<(u64, &str)>, sequence: u8| {
            token.map(|(_, text)| json!({ "SpecialToken": { "id": text, "type_id": sequence } }))
        };
        let around = |name: &str, sequence: u8| {
            let text = json!({ "Sequence": { "id": name, "type_id": sequence } });
            let parts = [piece(first, sequence), Some(text), piece(last, sequence)];
            parts.into_iter().flatten().collect::<Vec<_>>()
        };
        let named = [first, last].into_iter().flatten().map(|(id, text)| {
            (text.to_owned(), json!({ "id": text, "ids": [id], "tokens": [text] }))
        });
        let pair = [around("A", 0), around("B", 1)].concat();
        json!({
            "type": "TemplateProcessing",
            "single": around("A", 0),
            "pair": pair,
            "special_tokens": named.collect::<Map<_, _>>(),
        })
    }
}

/// What depends on the algorithm.
struct Parts {
    normalizer: Json,
    pre_tokenizer: Json,
    decoder: Json,
    model: Json,
    /// Whether a beginning token is added when the vocabulary does not say.
    adds_bos: bool,
}

/// A merge as newer files spell it; one that is not two parts is left for the reader to refuse.
fn pair(merge: &str) -> Json {
    match merge.split_once(' ') {
        Some((left, right)) => json!([left, right]),
        None => json!([merge]),
    }
}

fn as_json<T: serde::Serialize>(part: &T) -> Result<Json> {
    serde_json::to_value(part).map_err(|error| Error::new(Code::TokenizerInvalid).found(error))
}
