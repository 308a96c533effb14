//! What a fit says: a report for people, and a backend block to paste into a scenario.

use std::fmt::Write as _;

use serde_json::Value;

use super::fit::{Fitted, Score};
use crate::units::human;

impl Fitted {
    /// The report.
    pub fn report(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "{} requests fitted, {} scored, {} simulations{}\n",
            self.fitted.requests,
            self.held_out.requests,
            self.simulations,
            match self.left_out {
                0 => String::new(),
                n => format!(
                    "; {n} that did not succeed are left out, although they may have loaded the server"
                ),
            }
        );
        let _ = writeln!(text, "{:<16}{:>12}{:>12}{:>12}", "parameter", "start", "fitted", "±");
        for found in &self.found {
            let margin = if found.margin.is_finite() { human(found.margin, "") } else { "unknown".into() };
            let note = if found.is_known { "" } else { "  not identified" };
            let _ = writeln!(
                text,
                "{:<16}{:>12}{:>12}{margin:>12}{note}",
                found.parameter.name,
                human(found.start, ""),
                human(found.value, "")
            );
        }
        let unknown: Vec<&str> =
            self.found.iter().filter(|found| !found.is_known).map(|found| found.parameter.name).collect();
        if !unknown.is_empty() {
            let _ = writeln!(
                text,
                "\nThe data can not tell {}: other values fit as well. What is measured from them is no better known; loads that\n\
                 differ more (short and long prompts, few and many requests at once) tell them apart.",
                unknown.join(", ")
            );
        }
        text.push('\n');
        let _ = writeln!(text, "{:<28}{:>10}{:>10}{:>10}", "error", "latency", "TTFT", "TPOT");
        for (name, score, is_fit) in [
            ("before, mean absolute", &self.before, false),
            ("fitted, mean absolute", &self.fitted, true),
            ("held out, mean absolute", &self.held_out, true),
        ] {
            row(&mut text, name, &score.mape, false);
            if is_fit {
                row(&mut text, "  of the mean", &score.mean, true);
            }
        }
        text
    }

    /// The backend block, as YAML.
    pub fn block(&self, name: &str) -> String {
        let Score { mape, requests, .. } = self.held_out;
        let mut text = format!(
            "# Fitted by `sagebench calibrate`: {:.1} % mean absolute error of the latency on {requests} requests that were held out.\n",
            mape[0] * 100.0
        );
        if !self.is_started {
            text.push_str("# The recorded times do not tell the server's limits: this cache never fills, and the engine's limits are defaults.\n");
        }
        let _ = write!(text, "backends:\n  {name}:\n    kind: mock\n");
        if let Ok(Value::Object(map)) = serde_json::to_value(&self.mock) {
            for (key, value) in map {
                let _ = writeln!(text, "    {key}: {}", flow(&value));
            }
        }
        text
    }
}

fn row(text: &mut String, name: &str, shares: &[f64; 3], signed: bool) {
    let percent = |share: f64| {
        let share = share * 100.0;
        if signed { format!("{share:+.2} %") } else { format!("{share:.2} %") }
    };
    let [latency, ttft, tpot] = shares.map(percent);
    let _ = writeln!(text, "{name:<28}{latency:>10}{ttft:>10}{tpot:>10}");
}

/// A value in YAML's flow form. Numbers carry six significant digits: more are noise.
fn flow(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let parts: Vec<String> =
                map.iter().map(|(key, value)| format!("{key}: {}", flow(value))).collect();
            format!("{{ {} }}", parts.join(", "))
        }
        Value::Array(list) => format!("[{}]", list.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Number(number) if number.is_f64() => {
            let value = number.as_f64().unwrap_or(0.0);
            let digits = if value == 0.0 { 0 } else { libm::floor(libm::log10(value.abs())) as i32 + 1 };
            let text = format!("{value:.*}", (6 - digits).clamp(0, 12) as usize);
            if text.contains('.') {
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            } else {
                text
            }
        }
        Value::String(word)
            if word.chars().all(|c| c.is_ascii_alphanumeric() || "_-%./".contains(c)) && !word.is_empty() =>
        {
            word.clone()
        }
        other => other.to_string(),
    }
}
