//! A judgement in one line, for people.

use super::judgement::{Judgement, Verdict};
use crate::units::human;

/// What was measured and what that means, such as `measured 92.4 ms (90% interval 88.1 ms to 97 ms, n = 300)`.
///
/// An inconclusive rule also says what a verdict would take, one without data why there is none.
pub fn explain(judgement: &Judgement) -> String {
    let Some(value) = judgement.value else {
        let reason = judgement.reason.as_deref().unwrap_or("nothing was measured");
        return format!("no data: {reason}");
    };
    let mut notes = Vec::new();
    if let (Some([low, high]), Some(level)) = (judgement.interval, judgement.interval_level) {
        let unit = judgement.unit.as_str();
        notes.push(format!("{} interval {} to {}", human(level, "%"), human(low, unit), human(high, unit)));
    }
    match judgement.samples {
        // The method says the size itself where the sample counts for less.
        Some(_) if judgement.method.contains("effective") => notes.push(judgement.method.clone()),
        Some(n) => notes.push(format!("n = {n}")),
        None => {}
    }
    let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join(", ")) };
    let reason = match &judgement.reason {
        Some(reason) if judgement.verdict == Verdict::Inconclusive => format!(": {reason}"),
        _ => String::new(),
    };
    format!("measured {}{notes}{reason}", human(value, &judgement.unit))
}
