//! Which name was probably meant.

/// The candidate nearest to a word, whatever its case: at most a third of the letters differ (at least one may, at most
/// four), or one begins with the other. Of equally near ones the first; `None` when none is near.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // The distance takes time in proportion to the word, and no name is nearly so long.
    if word.len() > 100 {
        return None;
    }
    let word = word.to_lowercase();
    let limit = (word.chars().count() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .map(|candidate| {
            let folded = candidate.to_lowercase();
            let distance = strsim::damerau_levenshtein(&word, &folded);
            let begins = word.len() >= 4 && (folded.starts_with(&word) || word.starts_with(&folded));
            (if begins { distance.min(1) } else { distance }, candidate)
        })
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let names = ["ttft", "tbt", "concurrency", "year1", "year1-full"];
        for (word, meant) in [
            ("tfft", Some("ttft")),
            ("TTFT", Some("ttft")),
            ("concurency", Some("concurrency")),
            ("conc", Some("concurrency")),
            ("yer1", Some("year1")),
            ("zebra", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, names), meant, "{word}");
        }
        assert_eq!(nearest(&"x".repeat(101), names), None);
    }
}
