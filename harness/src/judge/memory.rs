//! What several gates of a cell look at, made once.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError};

use super::{JudgeContext, Look};
use crate::case::ModelRef;

/// Bytes of large things that are kept; the oldest go first.
const LARGE_BYTES_MAX: usize = 256 << 20;

type Thing = Arc<dyn Any + Send + Sync>;

/// Things by what they are and what they were made from.
#[derive(Debug, Default)]
pub(super) struct Memory {
    small: BTreeMap<String, Thing>,
    large: VecDeque<(String, usize, Thing)>,
}

impl Memory {
    /// The thing called `key`, if it is still known.
    pub(super) fn find<T: Send + Sync + 'static>(&self, key: &str) -> Option<Arc<T>> {
        let large = || self.large.iter().find(|(name, ..)| name == key).map(|(.., thing)| thing);
        let thing = self.small.get(key).or_else(large)?;
        Arc::clone(thing).downcast().ok()
    }

    /// Keeps `thing`, of `bytes` bytes; one of no size is kept for good.
    pub(super) fn keep(&mut self, key: String, bytes: usize, thing: Thing) {
        if bytes == 0 {
            self.small.insert(key, thing);
            return;
        }
        self.large.push_back((key, bytes, thing));
        let mut total: usize = self.large.iter().map(|(_, bytes, _)| bytes).sum();
        while total > LARGE_BYTES_MAX
            && let Some((_, bytes, _)) = self.large.pop_front()
        {
            total -= bytes;
        }
    }
}

impl JudgeContext {
    /// What `make` makes, made once for `what` on `form` under the planted fault. Errors are not kept.
    ///
    /// # Errors
    /// Those of `make`.
    pub(super) fn remember<T: Send + Sync + 'static>(
        &self,
        what: &str,
        form: &ModelRef,
        make: impl FnOnce() -> Look<T>,
    ) -> Look<Arc<T>> {
        self.remember_sized(what, form, |_| 0, make)
    }

    /// The same for something of `bytes` bytes, which is forgotten when there is too much of its kind.
    ///
    /// # Errors
    /// Those of `make`.
    pub(super) fn remember_sized<T: Send + Sync + 'static>(
        &self,
        what: &str,
        form: &ModelRef,
        bytes: impl FnOnce(&T) -> usize,
        make: impl FnOnce() -> Look<T>,
    ) -> Look<Arc<T>> {
        let plant = self.plant.as_ref().map(|plant| plant.id()).unwrap_or_default();
        let key = format!("{plant}\n{}\n{what}", form.path.display());
        let memory = || self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = memory().find(&key) {
            return Ok(known);
        }
        let made = Arc::new(make()?);
        memory().keep(key, bytes(&made), Arc::clone(&made) as _);
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_things_make_room_for_newer_ones_and_small_ones_stay() {
        let mut memory = Memory::default();
        memory.keep("small".into(), 0, Arc::new(1u8));
        for (key, value) in [("a", 2u8), ("b", 3), ("c", 4)] {
            memory.keep(key.into(), LARGE_BYTES_MAX / 2, Arc::new(value));
        }
        let found = |key: &str| memory.find::<u8>(key).map(|value| *value);
        assert_eq!(
            [found("small"), found("a"), found("b"), found("c")],
            [Some(1), None, Some(3), Some(4)]
        );
        assert!(memory.find::<u16>("b").is_none());
    }
}
