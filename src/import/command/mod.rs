//! From another tool's command line to a scenario that asks for the same work.
//!
//! Every flag is accounted for: it became part of the scenario, or a comment of the scenario says why it has no equal here.

mod aiperf;
mod draft;
mod guidellm;
mod serving;
#[cfg(test)]
mod tests;
mod words;

use self::draft::Draft;
use self::words::Flags;

/// A scenario made from a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Translated {
    /// The scenario, in YAML, with its comments.
    pub text: String,
    /// Flags that are not known: perhaps misspelt, perhaps newer than this program.
    pub unknown: Vec<String>,
}

/// A scenario for a command line of `vllm bench serve`, `guidellm benchmark`, `aiperf profile` or
/// `python -m sglang.bench_serving`.
///
/// # Errors
/// It is of none of these tools, a quote is not closed, or a value is not what its flag takes.
pub fn scenario(line: &str) -> Result<Translated, String> {
    let words = words::split(line)?;
    let (tool, rest) = tool(&words).ok_or_else(|| {
        let program = words.first().map_or("nothing", String::as_str);
        format!(
            "`{program}` begins no command line that is known; there are `vllm bench serve`, `guidellm benchmark`, `aiperf profile` and `python -m sglang.bench_serving`"
        )
    })?;
    let mut draft = Draft::default();
    let mut flags = Flags::new(rest);
    match tool {
        Program::Vllm => serving::vllm(&mut flags, &mut draft)?,
        Program::Sglang => serving::sglang(&mut flags, &mut draft)?,
        Program::Guidellm => guidellm::fill(&mut flags, &mut draft)?,
        Program::Aiperf => aiperf::fill(&mut flags, &mut draft)?,
    }
    let unknown = flags.rest();
    for flag in &unknown {
        draft.note(flag, "not known here; look up what it does");
    }
    // A key in the line is not repeated: the scenario may be shared.
    Ok(Translated { text: draft.text(&format!("{} {}", tool.name(), flags.shown())), unknown })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    Vllm,
    Sglang,
    Guidellm,
    Aiperf,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::Vllm => "vllm bench serve",
            Self::Sglang => "python -m sglang.bench_serving",
            Self::Guidellm => "guidellm benchmark",
            Self::Aiperf => "aiperf profile",
        }
    }
}

/// Which tool a command line is of, and its arguments. What stands before (variables, `uv run`) is passed over.
fn tool(words: &[String]) -> Option<(Program, &[String])> {
    let last = |word: &str| word.rsplit('/').next().unwrap_or_default().to_owned();
    (0..words.len()).find_map(|at| {
        let next = |n: usize| words.get(at + n).map_or("", String::as_str);
        let (program, taken) = match (last(&words[at]).as_str(), next(1), next(2)) {
            ("vllm", "bench", "serve") => (Program::Vllm, 3),
            ("benchmark_serving.py", ..) => (Program::Vllm, 1),
            ("guidellm", "benchmark", "run") => (Program::Guidellm, 3),
            ("guidellm", "benchmark", _) => (Program::Guidellm, 2),
            ("aiperf" | "genai-perf", "profile", _) => (Program::Aiperf, 2),
            ("-m", "sglang.bench_serving", _) => (Program::Sglang, 2),
            ("sglang.bench_serving" | "bench_serving.py", ..) => (Program::Sglang, 1),
            _ => return None,
        };
        Some((program, &words[at + taken..]))
    })
}
