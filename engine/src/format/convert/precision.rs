//! In which dtype each tensor is written.
//!
//! The mixed recipes are those of llama.cpp's quantiser (`llama-quant.cpp`, without importance matrix): the head, and in
//! some layers the value and down projections, get more bits than the rest.

use crate::dtype::Dtype;
use crate::format::Format;
use crate::model::{Config, Role, Slot};
use crate::tensor::{Shape, TensorView};

/// The precision of the written weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// As stored, bit for bit, where the target format has the dtype; else the exact values in F32.
    #[default]
    Stored,
    /// Matrices in this dtype, vectors (norms and biases) in F32, or in the dtype itself where Hugging Face stores a
    /// plain one. Rows that are not whole blocks fall back to [`Dtype::Q8_0`], then to F16.
    Uniform(Dtype),
    /// Matrices in the mixture that llama.cpp calls by this name, vectors in F32.
    Mixed(Recipe),
}

/// A mixture of block dtypes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// As llama.cpp writes it.
    pub name: &'static str,
    /// `general.file_type` of GGUF.
    pub(super) file_type: u64,
    /// What most matrices are stored in.
    base: Dtype,
    /// Whether some value and down projections get more bits.
    boosts: bool,
}

impl Recipe {
    /// Every mixture, in order of size.
    pub const ALL: &'static [Self] = &[
        Self { name: "Q4_0", file_type: 2, base: Dtype::Q4_0, boosts: false },
        Self { name: "Q4_K_M", file_type: 15, base: Dtype::Q4K, boosts: true },
        Self { name: "Q5_K_M", file_type: 17, base: Dtype::Q5K, boosts: true },
        Self { name: "Q6_K", file_type: 18, base: Dtype::Q6K, boosts: false },
        Self { name: "Q8_0", file_type: 7, base: Dtype::Q8_0, boosts: false },
    ];

    /// The dtype of a matrix. `tied`: the embedding is the head too.
    fn dtype(&self, slot: Option<Slot>, shape: Shape, config: &Config, tied: bool) -> Dtype {
        let role = slot.map(|slot| slot.role);
        let layer = slot.and_then(|slot| slot.layer).unwrap_or(0);
        let is_head = role == Some(Role::Head) || tied && role == Some(Role::Embed);
        let more_bits = self.boosts && more_bits(layer, config.layers);
        let boosts_values = self.base == Dtype::Q4K && config.gguf_boosts_values();
        let wanted = match role {
            _ if is_head && self.base == Dtype::Q8_0 => Dtype::Q8_0,
            _ if is_head && self.base.row_bytes(shape.cols()).is_err() => Dtype::Q8_0,
            _ if is_head => Dtype::Q6K,
            // Where values are fused with queries and keys, all of them count as values.
            Some(Role::V | Role::Qkv | Role::Down) if more_bits => Dtype::Q6K,
            Some(Role::V | Role::Qkv) if boosts_values => Dtype::Q5K,
            _ => self.base,
        };
        fallback(wanted, shape)
    }
}

/// The first and the last eighth of the layers, and every third one between.
fn more_bits(layer: usize, layers: usize) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

/// The dtype that stands in where rows are not whole blocks.
fn fallback(wanted: Dtype, shape: Shape) -> Dtype {
    let smaller = match wanted {
        Dtype::Q4K => Dtype::Q5_0,
        Dtype::Q5K => Dtype::Q5_1,
        Dtype::Q6K => Dtype::Q8_0,
        other => other,
    };
    let fits = |dtype: &Dtype| dtype.row_bytes(shape.cols()).is_ok();
    [wanted, smaller].into_iter().find(fits).unwrap_or(Dtype::F16)
}

impl Precision {
    /// The precision called `name`, without regard to case: a mixture of llama.cpp before a dtype.
    pub fn from_name(name: &str) -> Option<Self> {
        let recipe = Recipe::ALL.iter().find(|recipe| recipe.name.eq_ignore_ascii_case(name));
        recipe.copied().map(Self::Mixed).or_else(|| Dtype::from_name(name).map(Self::Uniform))
    }

    /// Whether SafeTensors can hold it.
    pub(super) fn is_plain(self) -> bool {
        match self {
            Self::Stored => true,
            Self::Uniform(dtype) => dtype.safetensors_name().is_some(),
            Self::Mixed(_) => false,
        }
    }

    /// The dtype in which `view` is written to `format`.
    pub(super) fn dtype(
        self,
        format: Format,
        slot: Option<Slot>,
        view: &TensorView<'_>,
        config: &Config,
        tied: bool,
    ) -> Dtype {
        let (stored, shape) = (view.dtype(), view.shape());
        if is_integer(stored) {
            return stored;
        }
        if shape.rank() < 2 {
            return self.vector_dtype(format, stored);
        }
        match self {
            Self::Stored if can_hold(format, view) => stored,
            Self::Stored => Dtype::F32,
            Self::Mixed(recipe) => recipe.dtype(slot, shape, config, tied),
            Self::Uniform(wanted) if wanted.is_flat() => wanted,
            Self::Uniform(wanted) => {
                let fits = |dtype: &Dtype| dtype.row_bytes(shape.cols()).is_ok();
                [wanted, Dtype::Q8_0].into_iter().find(fits).unwrap_or(Dtype::F16)
            }
        }
    }

    /// GGUF readers compute with norms and biases directly, so there these are always single precision.
    fn vector_dtype(self, format: Format, stored: Dtype) -> Dtype {
        let is_plain = stored.safetensors_name().is_some();
        match self {
            Self::Stored if format != Format::Gguf && is_plain => stored,
            Self::Uniform(dtype) if format == Format::SafeTensors => dtype,
            Self::Stored | Self::Uniform(_) | Self::Mixed(_) => Dtype::F32,
        }
    }
}

fn is_integer(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 | Dtype::U8)
}

/// Whether `format` can hold the stored bytes as they are.
fn can_hold(format: Format, view: &TensorView<'_>) -> bool {
    let (dtype, cols) = (view.dtype(), view.shape().cols());
    match format {
        Format::SafeTensors => dtype.safetensors_name().is_some(),
        // Padded rows and blocks over several rows are an affair of APR.
        Format::Gguf => {
            let row = dtype.row_bytes(cols).ok();
            dtype.gguf_id().is_some() && row.is_some() && row == view.row_stride().map(|n| n as u64)
        }
        Format::Apr => !matches!(dtype, Dtype::I16 | Dtype::Q8K),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layers_with_more_bits_are_those_of_the_published_rule() {
        let of = |layers: usize| (0..layers).filter(|&layer| more_bits(layer, layers)).collect();
        let expected: [(usize, Vec<usize>); 4] = [
            (2, vec![1]),
            (4, vec![2, 3]),
            (9, vec![0, 3, 6, 7, 8]),
            (24, vec![0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23]),
        ];
        for (layers, expected) in expected {
            let found: Vec<usize> = of(layers);
            assert_eq!(found, expected, "{layers}");
        }
    }

    #[test]
    fn fused_projections_get_the_bits_of_values() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let model = crate::model::Model::load(&path.join("../fixtures/pygmy/phi3")).unwrap();
        let shape = Shape::new(&[512, 256]).unwrap();
        for (name, usual, expected) in [
            ("q4_k_m", Dtype::Q4K, Dtype::Q6K),
            ("q5_k_m", Dtype::Q5K, Dtype::Q6K),
            ("q6_k", Dtype::Q6K, Dtype::Q6K),
            ("q4_0", Dtype::Q4_0, Dtype::Q4_0),
        ] {
            let Some(Precision::Mixed(recipe)) = Precision::from_name(name) else { panic!() };
            let of = |layer, role| {
                recipe.dtype(Some(Slot::layer(layer, role)), shape, model.config(), false)
            };
            // The last of two layers is one of those with more bits.
            assert_eq!([of(0, Role::Qkv), of(1, Role::Qkv)], [usual, expected], "{name}");
            assert_eq!([of(0, Role::GateUp), of(1, Role::GateUp)], [usual, usual], "{name}");
        }
    }

    #[test]
    fn rows_that_are_not_whole_blocks_fall_back_step_by_step() {
        let shape = |cols| Shape::new(&[4, cols]).unwrap();
        for (wanted, cols, expected) in [
            (Dtype::Q4K, 512, Dtype::Q4K),
            (Dtype::Q4K, 288, Dtype::Q5_0),
            (Dtype::Q5K, 288, Dtype::Q5_1),
            (Dtype::Q6K, 288, Dtype::Q8_0),
            (Dtype::Q8_0, 100, Dtype::F16),
            (Dtype::Q6K, 100, Dtype::F16),
        ] {
            assert_eq!(fallback(wanted, shape(cols)), expected, "{wanted} {cols}");
        }
    }

    #[test]
    fn a_name_means_the_mixture_where_there_is_one() {
        let dtype = |name: &str| Precision::from_name(name);
        assert!(
            matches!(dtype("q4_k_m"), Some(Precision::Mixed(recipe)) if recipe.name == "Q4_K_M")
        );
        assert!(matches!(dtype("Q8_0"), Some(Precision::Mixed(_))));
        assert_eq!(dtype("bf16"), Some(Precision::Uniform(Dtype::BF16)));
        assert_eq!(dtype("q4_k"), Some(Precision::Uniform(Dtype::Q4K)));
        assert_eq!(dtype("q4_k_xl"), None);
    }
}
