//! What a reader does about a broken invariant that does not keep it from reading on.

use crate::error::{Error, Result};

/// Most errors that are listed of one file: of a file that is no more than noise nobody reads them all.
const LISTED_MAX: usize = 1000;

/// Stops a reader at the first error, or keeps errors while it reads on.
#[derive(Debug, Default)]
pub(super) struct Lenience {
    /// Errors that may still be kept.
    room: usize,
    errors: Vec<Error>,
}

impl Lenience {
    /// The first error ends the reading.
    pub(super) const fn none() -> Self {
        Self { room: 0, errors: Vec::new() }
    }

    /// Errors are kept as long as the reader finds its way.
    pub(super) const fn listing() -> Self {
        Self { room: LISTED_MAX, errors: Vec::new() }
    }

    /// The value, or `None` for an error that was kept.
    ///
    /// # Errors
    /// The error, when none is to be kept any more.
    pub(super) fn pass<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if self.room > 0 => {
                self.room -= 1;
                self.errors.push(error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// What was kept, in the order of reading.
    pub(super) fn into_errors(self) -> Vec<Error> {
        self.errors
    }
}
