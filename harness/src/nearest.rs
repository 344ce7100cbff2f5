//! What somebody who mistyped a name may have meant.

/// Below this likeness two names have nothing to do with each other; clap's bound.
const ALIKE: f64 = 0.7;

/// The known name that is most like `word`, if any is.
pub fn nearest<'n>(word: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let likeness = |name: &'n str| (strsim::jaro_winkler(word, name), name);
    let alike = known.into_iter().map(likeness).filter(|(likeness, _)| *likeness > ALIKE);
    alike.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, name)| name)
}

/// `; did you mean NAME?` for the nearest known name, or nothing.
pub fn did_you_mean<'n>(word: &str, known: impl IntoIterator<Item = &'n str>) -> String {
    nearest(word, known).map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swapped_lost_and_doubled_letters_are_seen_through() {
        let known = ["logits-close", "answers", "roundtrip"];
        for (word, meant) in
            [("logits-colse", "logits-close"), ("anwers", "answers"), ("roundtripp", "roundtrip")]
        {
            assert_eq!(nearest(word, known), Some(meant));
        }
        assert_eq!(nearest("xyzzy", known), None);
        assert_eq!(did_you_mean("xyzzy", known), "");
    }
}
