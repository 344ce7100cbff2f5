//! What a measurement is at: it takes minutes, and whoever waits wants to know for what.

use std::fmt;

/// What is measured next, told between samples and never inside one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is measured.
    pub what: &'static str,
    /// Which sample, from 1.
    pub sample: usize,
    /// How many there are at most.
    pub of: usize,
    /// Which round, from 1: one that varies too much is measured again.
    pub round: usize,
}

impl Step {
    /// The only step of something.
    pub(crate) const fn one(what: &'static str) -> Self {
        Self { what, sample: 1, of: 1, round: 1 }
    }

    /// Sample `sample` of `of`, from 1, of the same thing in the same round.
    pub(crate) const fn at(self, sample: usize, of: usize) -> Self {
        Self { sample, of, ..self }
    }

    /// The same in round `round`, from 1.
    pub(super) const fn in_round(self, round: usize) -> Self {
        Self { round, ..self }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)?;
        if self.of > 1 {
            write!(f, ", {} of {}", self.sample, self.of)?;
        }
        if self.round > 1 {
            write!(f, " (round {}: the one before varied too much)", self.round)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_tells_which_sample_and_why_again() {
        let step = Step::one("prompt");
        assert_eq!(step.to_string(), "prompt");
        assert_eq!(step.at(3, 10).to_string(), "prompt, 3 of 10");
        let again = step.at(1, 10).in_round(2).to_string();
        assert_eq!(again, "prompt, 1 of 10 (round 2: the one before varied too much)");
    }
}
