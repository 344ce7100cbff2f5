//! The key-value cache in host memory, shared by the oracle and the fast backend.

use super::host::front;
use super::{KvRows, KvShape, too_short};
use crate::error::{Code, Error, Result};

/// A key-value cache in host memory that grows with the positions stored in it.
#[derive(Clone, Debug)]
pub struct HostKv {
    shape: KvShape,
    /// Per layer: keys and values, each `[positions, width]`.
    layers: Vec<(Vec<f32>, Vec<f32>)>,
}

impl HostKv {
    /// An empty cache of `shape`.
    pub fn new(shape: KvShape) -> Self {
        Self { shape, layers: vec![(Vec::new(), Vec::new()); shape.layers] }
    }

    /// Stores rows, forgetting what stood at their positions and after.
    ///
    /// # Errors
    /// [`Code::BackendShape`] for a missing layer, a gap before the first row, or short operands;
    /// [`Code::ContextExceeded`] beyond the capacity.
    pub fn append(&mut self, k: &[f32], v: &[f32], rows: KvRows) -> Result<()> {
        let width = self.shape.width;
        if rows.position + rows.rows > self.shape.capacity {
            return Err(Error::new(Code::ContextExceeded)
                .expected(format_args!("at most {} positions", self.shape.capacity))
                .found(rows.position + rows.rows));
        }
        let len = rows.rows * width;
        let Some((keys, values)) = self.layers.get_mut(rows.layer) else {
            return Err(too_short(None, rows.layer + 1, self.shape.layers));
        };
        for (stored, new) in [(keys, k), (values, v)] {
            if stored.len() < rows.position * width {
                return Err(too_short(None, rows.position * width, stored.len()));
            }
            stored.truncate(rows.position * width);
            stored.extend_from_slice(front(new, len, None)?);
        }
        Ok(())
    }

    /// Keys and values of `layer`, each `[positions, width]`.
    ///
    /// # Errors
    /// [`Code::BackendShape`] when fewer than `positions` are stored.
    pub fn layer(&self, layer: usize, positions: usize) -> Result<(&[f32], &[f32])> {
        let Some((keys, values)) = self.layers.get(layer) else {
            return Err(too_short(None, layer + 1, self.shape.layers));
        };
        let len = positions * self.shape.width;
        Ok((front(keys, len, None)?, front(values, len, None)?))
    }
}
