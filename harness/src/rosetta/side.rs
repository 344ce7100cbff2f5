//! What is compared: a model on a backend, or values that somebody recorded.

use std::borrow::Cow;
use std::fmt;

use apr_engine::backend::CacheType;
use apr_engine::format::safetensors;
use apr_engine::model::{Config, Lm, Model, RopeStyle};
use apr_engine::probe::{Op, Site};

use crate::recording::{Recording, Rows};

/// Starts a model on the backend of a side, with an empty cache.
pub type Start<'a> = dyn Fn() -> apr_engine::Result<Box<dyn Lm>> + 'a;

/// A model on a backend.
pub struct Side<'a> {
    /// What reports call it.
    pub name: String,
    /// The model.
    pub model: &'a Model,
    /// How it is started.
    pub start: &'a Start<'a>,
    /// Whether the backend is the oracle's: double precision, no rounding of activations.
    pub exact: bool,
    /// What keys and values are cached as.
    pub cache_type: CacheType,
}

impl fmt::Debug for Side<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Side").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The side that the other one is compared with.
#[derive(Debug)]
pub enum Source<'a> {
    /// A model that is run.
    Model(Side<'a>),
    /// Values that another implementation recorded.
    Recorded(Recorded),
}

/// Tokens and the values of sites, recorded by an independent implementation.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// What reports call it.
    pub name: String,
    /// The tokens that were read at once.
    pub tokens: Vec<u32>,
    pub(crate) sites: Recording,
}

impl Recorded {
    /// Reads a SafeTensors file with `tokens` and one tensor `[tokens, width]` for each site, under the site's name, the
    /// logits under `logits`. Sites that are not wanted and tensors of other names are left alone.
    ///
    /// # Errors
    /// What is wrong with the file, in one sentence: it does not parse, has no tokens, no wanted site, or a site with
    /// another number of rows.
    pub fn parse(
        name: &str,
        bytes: &[u8],
        logits: &str,
        wanted: &dyn Fn(Site) -> bool,
    ) -> Result<Self, String> {
        let container = safetensors::parse(bytes).map_err(|error| error.to_string())?;
        let tokens = container.tensor("tokens").ok_or("no tensor is called tokens")?;
        let tokens: Vec<u32> = tokens
            .view
            .bytes()
            .chunks_exact(4)
            .map(|raw| u32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]))
            .collect();
        let mut sites = Recording::default();
        for entry in &container.tensors {
            let site = if entry.name == logits {
                Some(Site::model(Op::Logits))
            } else {
                Site::from_name(&entry.name).filter(|site| site.op != Op::Logits)
            };
            let Some(site) = site.filter(|site| wanted(*site)) else { continue };
            if entry.view.rows() != tokens.len() {
                let (rows, tokens) = (entry.view.rows(), tokens.len());
                return Err(format!("{site} has {rows} rows for {tokens} tokens"));
            }
            let values = entry.view.dequantize().map_err(|error| error.to_string())?;
            let rows = values.chunks_exact(entry.view.cols().max(1)).map(<[f32]>::to_vec).collect();
            sites.sites.insert(site, Rows { rows });
        }
        if sites.sites.is_empty() {
            return Err(format!("no tensor is called {logits} or after another wanted site"));
        }
        Ok(Self { name: name.to_owned(), tokens, sites })
    }
}

/// `recording` of a model of `from` in the order in which a model of `to` rotates: files differ in which two values of a
/// head form a pair, and queries and keys are ordered after it.
pub(super) fn reordered<'r>(
    recording: &'r Recording,
    from: RopeStyle,
    to: RopeStyle,
    config: &Config,
) -> Cow<'r, Recording> {
    if from == to {
        return Cow::Borrowed(recording);
    }
    let half = config.rope.dims / 2;
    // Where value `at` of the halves stands among the pairs.
    let adjacent = |at: usize| if at < half { 2 * at } else { 2 * (at - half) + 1 };
    let mut sites = recording.sites.clone();
    for (site, rows) in &mut sites {
        if !matches!(site.op, Op::Q | Op::K | Op::QNorm | Op::KNorm | Op::RopeQ | Op::RopeK) {
            continue;
        }
        for row in &mut rows.rows {
            for head in row.chunks_exact_mut(config.head_dim) {
                let before = head.to_vec();
                for at in 0..2 * half {
                    match to {
                        RopeStyle::Neox => head[at] = before[adjacent(at)],
                        RopeStyle::Adjacent => head[adjacent(at)] = before[at],
                    }
                }
            }
        }
    }
    Cow::Owned(Recording { sites, ended: recording.ended.clone() })
}
