//! A judgement in one line, for people.

use super::judgement::{Against, Judgement, Verdict};
use crate::units::human;

/// What was measured and what that means, such as `measured 92.4 ms (90% interval 88.1 to 97 ms, n = 300)`.
///
/// An inconclusive rule also says what a verdict would take, one without data why there is none. How the verdict was
/// found stands in [`Judgement::method`].
pub fn explain(judgement: &Judgement) -> String {
    let Some(value) = judgement.value else {
        let reason = judgement.reason.as_deref().unwrap_or("nothing was measured");
        return format!("no data: {reason}");
    };
    let unit = judgement.unit.as_str();
    let mut notes = Vec::new();
    if let Some(against) = &judgement.against {
        return compared(judgement, value, against);
    }
    if let (Some([low, high]), Some(level)) = (judgement.interval, judgement.interval_level) {
        // `%` belongs to the number; any other unit is said once.
        let low = human(low, if unit == "%" { unit } else { "" });
        notes.push(format!("{} interval {low} to {}", human(level, "%"), human(high, unit)));
    }
    notes.extend(judgement.samples.map(|n| format!("n = {n}")));
    notes.extend(judgement.effective_samples.map(|n| format!("effective {n}")));
    let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join(", ")) };
    let reason = match &judgement.reason {
        Some(reason) if judgement.verdict == Verdict::Inconclusive => format!(": {reason}"),
        _ => String::new(),
    };
    format!("measured {}{notes}{reason}", human(value, unit))
}

/// `measured 20.4 ms against 19 ms in `main`, +7.4% (90% interval +4.9% to +9.4%; Welch's t over repeats, 5 runs against 5)`.
fn compared(judgement: &Judgement, value: f64, against: &Against) -> String {
    let unit = judgement.unit.as_str();
    let change = |ratio: f64| format!("{}{}", if ratio < 1.0 { "" } else { "+" }, human(ratio - 1.0, "%"));
    let ratio = against.ratio.map_or(String::new(), |ratio| format!(", {}", change(ratio)));
    let interval = match (against.interval, judgement.interval_level) {
        (Some([low, high]), Some(level)) => {
            format!("{} interval {} to {}; ", human(level, "%"), change(low), change(high))
        }
        _ => String::new(),
    };
    let reason = judgement.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
    let (ours, theirs) = (human(value, unit), human(against.value, unit));
    format!(
        "measured {ours} against {theirs} in `{}`{ratio} ({interval}{}){reason}",
        against.name, judgement.method
    )
}
