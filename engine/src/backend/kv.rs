//! The key-value cache in host memory, shared by the oracle and the fast backend.
//!
//! Keys and values are rounded once, when they are appended: whatever reads them, rows of the same chunk included, sees
//! the same numbers.

use std::fmt;

use half::f16;
use half::slice::HalfFloatSliceExt as _;

use super::host::front;
use super::{KvCache, KvRows, KvShape, too_short};
use crate::error::{Code, Error, Place, Result};
use crate::probe::{Op, Site};

/// What keys and values are stored as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CacheType {
    /// Half precision, rounded to nearest, ties to even.
    #[default]
    F16,
    /// Single precision, as computed.
    F32,
}

impl CacheType {
    /// Every type, the default first.
    pub const ALL: &'static [Self] = &[Self::F16, Self::F32];

    /// The name on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::F32 => "f32",
        }
    }

    /// The type called `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|cache_type| cache_type.name() == name)
    }

    /// Bytes of one key or value.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F16 => size_of::<f16>(),
            Self::F32 => size_of::<f32>(),
        }
    }
}

impl fmt::Display for CacheType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Keys and values of one layer, `[positions, width]` each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cached<'a, T> {
    /// Rotated keys.
    pub keys: &'a [T],
    /// Values.
    pub values: &'a [T],
}

/// The same, as they are stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KvLayer<'a> {
    /// Half precision.
    F16(Cached<'a, f16>),
    /// Single precision.
    F32(Cached<'a, f32>),
}

/// A key-value cache in host memory that grows with the positions stored in it.
#[derive(Clone, Debug)]
pub struct HostKv {
    shape: KvShape,
    layers: Layers,
}

#[derive(Clone, Debug)]
enum Layers {
    F16(Vec<Rows<f16>>),
    F32(Vec<Rows<f32>>),
}

/// Keys and values of one layer, `[positions, width]` each.
#[derive(Clone, Debug, Default)]
struct Rows<T> {
    keys: Vec<T>,
    values: Vec<T>,
}

impl HostKv {
    /// An empty cache of `shape`.
    pub fn new(shape: KvShape) -> Self {
        let layers = match shape.cache_type {
            CacheType::F16 => Layers::F16(vec![Rows::default(); shape.layers]),
            CacheType::F32 => Layers::F32(vec![Rows::default(); shape.layers]),
        };
        Self { shape, layers }
    }

    /// Rounds rows to the cache type and stores them, forgetting what stood at their positions and after.
    ///
    /// # Errors
    /// [`Code::BackendShape`] for a missing layer, a gap before the first row, or short operands;
    /// [`Code::ContextExceeded`] beyond the capacity; [`Code::CacheRange`] for a finite value that would be stored as an
    /// infinity, with its layer and position.
    pub fn append(&mut self, k: &[f32], v: &[f32], rows: KvRows) -> Result<()> {
        if rows.position + rows.rows > self.shape.capacity {
            return Err(Error::new(Code::ContextExceeded)
                .expected(format_args!("at most {} positions", self.shape.capacity))
                .found(rows.position + rows.rows));
        }
        if rows.layer >= self.shape.layers {
            return Err(too_short(None, rows.layer + 1, self.shape.layers));
        }
        match &mut self.layers {
            Layers::F16(layers) => layers[rows.layer].append(k, v, rows, self.shape.width),
            Layers::F32(layers) => layers[rows.layer].append(k, v, rows, self.shape.width),
        }
    }

    /// The first `positions` keys and values of `layer`.
    ///
    /// # Errors
    /// [`Code::BackendShape`] when fewer than `positions` are stored.
    pub fn layer(&self, layer: usize, positions: usize) -> Result<KvLayer<'_>> {
        if layer >= self.shape.layers {
            return Err(too_short(None, layer + 1, self.shape.layers));
        }
        let len = positions * self.shape.width;
        Ok(match &self.layers {
            Layers::F16(layers) => KvLayer::F16(layers[layer].cached(len)?),
            Layers::F32(layers) => KvLayer::F32(layers[layer].cached(len)?),
        })
    }
}

impl KvCache for HostKv {
    fn bytes(&self) -> usize {
        match &self.layers {
            Layers::F16(layers) => layers.iter().map(Rows::bytes).sum(),
            Layers::F32(layers) => layers.iter().map(Rows::bytes).sum(),
        }
    }
}

impl<T: Element> Rows<T> {
    /// Stores rows of `width` values each behind the first `rows.position`.
    fn append(&mut self, k: &[f32], v: &[f32], rows: KvRows, width: usize) -> Result<()> {
        let (behind, len) = (rows.position * width, rows.rows * width);
        let first = rows.first_row * width;
        let parts = [(&mut self.keys, k, Op::RopeK), (&mut self.values, v, Op::V)];
        for (stored, new, op) in parts {
            let new = &front(new, first + len, None)?[first..];
            if stored.len() < behind {
                return Err(too_short(None, behind, stored.len()));
            }
            if let Some(at) = new.iter().position(|&value| T::overflows(value)) {
                let position = rows.position + at / width;
                return Err(Error::new(Code::CacheRange)
                    .place(Place::Site(Site::layer(rows.layer, op).to_string()))
                    .expected(format_args!("at most {} in magnitude ({})", f16::MAX, T::TYPE))
                    .found(format_args!("{} at position {position}", new[at]))
                    .hint("keep keys and values in f32 (`--cache-type f32`, by side in rosetta)"));
            }
            stored.truncate(behind);
            T::extend(stored, new);
        }
        Ok(())
    }

    fn cached(&self, len: usize) -> Result<Cached<'_, T>> {
        Ok(Cached { keys: front(&self.keys, len, None)?, values: front(&self.values, len, None)? })
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.keys) + size_of_val(&*self.values)
    }
}

/// A type that keys and values are stored in.
trait Element: Copy {
    const TYPE: CacheType;

    /// Whether a finite value would be stored as an infinity.
    fn overflows(value: f32) -> bool;

    /// Rounds `values` to nearest, ties to even, to the end of `stored`.
    fn extend(stored: &mut Vec<Self>, values: &[f32]);
}

impl Element for f16 {
    const TYPE: CacheType = CacheType::F16;

    fn overflows(value: f32) -> bool {
        /// Half a step above the largest number, from where rounding goes up.
        const LIMIT: f32 = 65_520.0;
        value.abs() >= LIMIT && value.is_finite()
    }

    fn extend(stored: &mut Vec<Self>, values: &[f32]) {
        let start = stored.len();
        stored.resize(start + values.len(), Self::ZERO);
        stored[start..].convert_from_f32_slice(values);
    }
}

impl Element for f32 {
    const TYPE: CacheType = CacheType::F32;

    fn overflows(_: f32) -> bool {
        false
    }

    fn extend(stored: &mut Vec<Self>, values: &[f32]) {
        stored.extend_from_slice(values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(cache_type: CacheType) -> HostKv {
        HostKv::new(KvShape { layers: 2, width: 2, capacity: 8, cache_type })
    }

    fn rows(position: usize, rows: usize) -> KvRows {
        KvRows { layer: 1, first_row: 0, position, rows }
    }

    /// What the cache gives back of `values`.
    fn stored(values: &[f32]) -> Vec<f32> {
        let shape =
            KvShape { layers: 1, width: values.len(), capacity: 1, cache_type: CacheType::F16 };
        let mut kv = HostKv::new(shape);
        kv.append(values, values, KvRows { layer: 0, first_row: 0, position: 0, rows: 1 }).unwrap();
        let KvLayer::F16(Cached { keys, values }) = kv.layer(0, 1).unwrap() else {
            panic!("another type was asked for");
        };
        let bits = |stored: &[f16]| stored.iter().map(|one| one.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(keys), bits(values));
        keys.iter().map(|key| key.to_f32()).collect()
    }

    #[test]
    fn values_are_rounded_to_nearest_and_ties_to_even() {
        // The unit of the last place is 2^-10 from 1 on, and 2^-24 below the normal numbers.
        let (unit, least) = (2f32.powi(-10), 2f32.powi(-24));
        for (value, expected) in [
            (0.0, 0.0),
            (1.0 + 0.49 * unit, 1.0),
            (1.0 + 0.5 * unit, 1.0),
            (1.0 + 0.51 * unit, 1.0 + unit),
            (1.0 + 1.5 * unit, 1.0 + 2.0 * unit),
            (-1.0 - 1.5 * unit, -1.0 - 2.0 * unit),
            (-1.0 - 2.5 * unit, -1.0 - 2.0 * unit),
            (2f32.powi(-14), 2f32.powi(-14)),
            (1023.5 * least, 1024.0 * least),
            (1022.5 * least, 1022.0 * least),
            (1.5 * least, 2.0 * least),
            (0.5 * least, 0.0),
            (0.51 * least, least),
            (-0.49 * least, 0.0),
            (1e-45, 0.0),
            (65_504.0, 65_504.0),
            (65_519.996, 65_504.0),
            (-65_519.996, -65_504.0),
        ] {
            // As many as are converted at once, and one by one.
            for len in [1, 3, 4, 8, 13] {
                assert_eq!(stored(&vec![value; len]), vec![expected; len], "{value:e}");
            }
        }
    }

    #[test]
    fn every_rounding_is_that_of_the_nearest_number() {
        // Between each two neighbours: below the middle, the middle, above it.
        let (mut given, mut nearest) = (Vec::new(), Vec::new());
        for low in 0..f16::MAX.to_bits() {
            let [a, b] = [low, low + 1].map(|bits| f16::from_bits(bits).to_f32());
            let middle = f32::midpoint(a, b);
            let even = if low.is_multiple_of(2) { a } else { b };
            given.extend([middle.next_down(), middle, middle.next_up()]);
            nearest.extend([a, even, b]);
        }
        assert_eq!(stored(&given), nearest);
    }

    #[test]
    fn a_finite_value_outside_the_range_is_refused_with_its_place_and_nothing_is_stored() {
        for (bad, found) in [(65_520.0, "65520"), (-1e30, "-1000000000000000000000000000000")] {
            let mut kv = cache(CacheType::F16);
            let (fine, wrong) = ([1.0; 4], [1.0, 1.0, bad, 1.0]);
            kv.append(&fine, &fine, rows(0, 2)).unwrap();
            let before = kv.bytes();
            let error = kv.append(&wrong, &fine, rows(2, 2)).unwrap_err();
            assert_eq!(error.code(), Code::CacheRange);
            assert_eq!(error.location(), &Place::Site("layers.1.rope_k".into()));
            assert_eq!(error.found_text(), format!("{found} at position 3"));
            assert!(error.hint_text().contains("--cache-type f32"), "{error}");
            assert_eq!(kv.bytes(), before);
            let error = kv.append(&fine, &wrong, rows(2, 2)).unwrap_err();
            assert_eq!(error.location(), &Place::Site("layers.1.v".into()));
            kv.append(&fine, &fine, rows(2, 2)).unwrap();
            kv.layer(1, 4).unwrap();
            cache(CacheType::F32).append(&wrong, &wrong, rows(0, 2)).unwrap();
        }
    }

    #[test]
    fn what_was_not_finite_before_stays_so_and_is_no_error_of_the_cache() {
        let bad = stored(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
        assert!(bad[0].is_nan() && bad[1..] == [f32::INFINITY, f32::NEG_INFINITY]);
    }

    #[test]
    fn rows_behind_an_append_are_forgotten_and_a_gap_is_refused() {
        for &cache_type in CacheType::ALL {
            let mut kv = cache(cache_type);
            kv.append(&[1.0; 8], &[2.0; 8], rows(0, 4)).unwrap();
            kv.append(&[3.0; 2], &[4.0; 2], rows(1, 1)).unwrap();
            assert_eq!(kv.bytes(), 2 * 2 * 2 * cache_type.bytes());
            assert_eq!(kv.layer(1, 3).unwrap_err().code(), Code::BackendShape);
            let (keys, values): (Vec<f32>, Vec<f32>) = match kv.layer(1, 2).unwrap() {
                KvLayer::F16(Cached { keys, values }) => (
                    keys.iter().map(|key| key.to_f32()).collect(),
                    values.iter().map(|value| value.to_f32()).collect(),
                ),
                KvLayer::F32(Cached { keys, values }) => (keys.to_vec(), values.to_vec()),
            };
            assert_eq!((keys, values), (vec![1.0, 1.0, 3.0, 3.0], vec![2.0, 2.0, 4.0, 4.0]));
            let gap = kv.append(&[1.0; 2], &[1.0; 2], rows(3, 1)).unwrap_err();
            assert_eq!(gap.code(), Code::BackendShape);
        }
    }

    #[test]
    fn every_type_has_a_name_and_f16_is_the_default() {
        for &cache_type in CacheType::ALL {
            assert_eq!(CacheType::from_name(cache_type.name()), Some(cache_type));
        }
        assert_eq!(CacheType::from_name("q8_0"), None);
        assert_eq!((CacheType::default(), CacheType::F16.bytes()), (CacheType::F16, 2));
    }
}
