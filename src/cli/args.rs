//! The command line as written. Doc comments here are the help texts and the man page.

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::backend::config::Clock;
use crate::checkpoint::random::Like;
use crate::report::Dialect;
use crate::serve::Address;
use crate::units::Size;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const EXIT_CODES: &str = "\
Exit codes:
  0        every gate passed
  2        usage, or the scenario does not validate
  3        could not be run: a workload without one success, an unwritable disk
  4        a gate is inconclusive and `inconclusive: fail` or --strict says that this fails
  5        the run is invalid (the client was the bottleneck), or two runs are not comparable
  99       a gate failed
  130, 143 interrupted; what was measured is written, marked incomplete";

/// A benchmark engine for LLM inference: scenario files in, verdicts and reports out.
#[derive(Debug, Parser)]
#[command(name = "sagebench", version, styles = STYLES, after_help = EXIT_CODES, max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run scenarios: validate, plan, play, judge, report
    Apply(Box<ApplyArgs>),
    /// Run scenarios, or one of the contract's workloads by its old name
    Run(Box<RunArgs>),
    /// Measure a server at several concurrencies, from one line
    Quick(QuickArgs),
    /// Check scenarios and print every error of every file
    Validate(ValidateArgs),
    /// Print what a scenario expands to, or write it as a plan file
    Plan(PlanArgs),
    /// Render a finished run with a template
    Report(ReportArgs),
    /// Hold runs against a base, metric by metric
    Compare(CompareArgs),
    /// Keep a run's numbers to compare later runs with
    Baseline(BaselineArgs),
    /// Look whether this machine can measure, or at what a server does
    Doctor(DoctorArgs),
    /// Serve a backend of a scenario as an OpenAI-compatible server
    Serve(Box<ServeArgs>),
    /// Fit the mock's cost model to recorded runs
    Calibrate(Box<CalibrateArgs>),
    /// Print a JSON Schema
    Schema(SchemaArgs),
    /// Read result files of other tools into a run, to report, compare and judge it
    Import(ImportArgs),
    /// Write a commented scenario to start from
    Init(InitArgs),
    /// Models for the CPU backend: what is here, what one is, random ones of real shapes
    #[command(subcommand)]
    Model(ModelCommand),
    /// Print shell completions
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page in roff
    Man,
}

/// How much is said on standard error while running.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Voice {
    /// Print results and errors only
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print more (-vv: even more); `SAGEBENCH_LOG` filters by module
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// What changes a scenario before it is planned.
#[derive(Debug, Clone, Default, Args)]
pub struct Changes {
    /// Set a value of the scenario, such as `workloads.chat.load.concurrency=4` (repeatable)
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// Run on this backend instead of the scenario's choice (repeatable, or comma-separated)
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub backend: Vec<String>,
    /// The model of the chosen backends: what a mock reports, what `kind: candle` computes
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Run only these workloads; a name stands for all its matrix points (repeatable, or comma-separated)
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Replace the scenario's seed
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Play the chosen backends on this clock
    #[arg(long, value_name = "CLOCK")]
    pub clock: Option<ClockChoice>,
    /// Three requests per workload and no gates: does the scenario work at all?
    #[arg(long)]
    pub smoke: bool,
}

/// A clock, on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ClockChoice {
    /// Simulated time
    Virtual,
    /// The machine's clock
    Real,
}

impl From<ClockChoice> for Clock {
    fn from(choice: ClockChoice) -> Self {
        match choice {
            ClockChoice::Virtual => Self::Virtual,
            ClockChoice::Real => Self::Real,
        }
    }
}

/// Arguments of `apply`.
#[derive(Debug, Clone, Default, Args)]
pub struct ApplyArgs {
    /// Scenario files (YAML or TOML), or names of shipped scenarios such as `year1`
    #[arg(required_unless_present = "plan", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// What changes the scenario.
    #[command(flatten)]
    pub changes: Changes,
    /// What happens to the results.
    #[command(flatten)]
    pub results: Results,
    /// Play a plan file written by `plan --out`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["files", "set", "seed", "only", "smoke"])]
    pub plan: Option<PathBuf>,
    /// Validate and plan, print the plan, run nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// What happens to the results of a run.
#[derive(Debug, Clone, Default, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Results {
    /// The folder for results
    #[arg(short, long, value_name = "DIR", default_value = "benchmark_results")]
    pub output: PathBuf,
    /// Finish an interrupted run of the same plan
    #[arg(long, conflicts_with = "force")]
    pub resume: bool,
    /// Move an incomplete earlier run to the history and start afresh
    #[arg(long)]
    pub force: bool,
    /// Let inconclusive rules fail the run
    #[arg(long)]
    pub strict: bool,
    /// Let the scenario start its servers (`launch`)
    #[arg(long)]
    pub allow_exec: bool,
    /// Play workloads and matrix points on the virtual clock on so many threads [default: as many as there are cores]
    #[arg(long, value_name = "N")]
    pub threads: Option<std::num::NonZeroU16>,
    /// How much is said.
    #[command(flatten)]
    pub voice: Voice,
}

/// Arguments of `quick`.
#[derive(Debug, Clone, Args)]
pub struct QuickArgs {
    /// Where the server's API is, such as `http://127.0.0.1:8000/v1`
    #[arg(value_name = "URL")]
    pub url: String,
    /// The model to ask for; by default the only one that is served
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Tokens of each prompt
    #[arg(long, value_name = "TOKENS", default_value_t = 1024)]
    pub prompt: u32,
    /// Tokens of each answer
    #[arg(long, value_name = "TOKENS", default_value_t = 128)]
    pub output: u32,
    /// How many requests are in flight, one level after the other
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,4,16")]
    pub concurrency: Vec<u32>,
    /// How long each level lasts
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    pub duration: String,
    /// A limit that one request must keep to count for goodput, such as `ttft <= 500ms` (repeatable)
    #[arg(long, value_name = "LIMIT")]
    pub slo: Vec<String>,
    /// The environment variable that holds the API key
    #[arg(long, value_name = "NAME")]
    pub api_key_env: Option<String>,
    /// Write the scenario here
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,
    /// The folder for results
    #[arg(short = 'o', long = "results", value_name = "DIR", default_value = "benchmark_results")]
    pub results: PathBuf,
    /// Move an incomplete earlier run to the history and start afresh
    #[arg(long)]
    pub force: bool,
    /// How much is said.
    #[command(flatten)]
    pub voice: Voice,
}

/// Arguments of `doctor`.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// A server's API, such as `http://127.0.0.1:8000/v1`, or a scenario, whose servers are looked at. Default: this machine
    #[arg(value_name = "URL|FILE")]
    pub target: Option<String>,
    /// The model to ask for; by default the only one that is served
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// The environment variable that holds the API key of a URL
    #[arg(long, value_name = "NAME")]
    pub api_key_env: Option<String>,
    /// Look at this backend of the scenario (repeatable, or comma-separated)
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub backend: Vec<String>,
    /// Set a value of the scenario first (repeatable)
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// How findings are printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub format: DoctorFormat,
    /// How much is said.
    #[command(flatten)]
    pub voice: Voice,
}

/// How findings are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum DoctorFormat {
    /// A table.
    #[default]
    Table,
    /// JSON.
    Json,
}

/// Arguments of `run`: those of `apply`, or `--workload`.
#[derive(Debug, Clone, Default, Args)]
pub struct RunArgs {
    /// Scenario files or names of shipped scenarios, as for `apply`
    #[arg(required_unless_present = "workload", conflicts_with = "workload", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The contract's workloads: all of Year 1, or one of them
    #[arg(long, value_enum, value_name = "WORKLOAD")]
    pub workload: Option<ContractWorkload>,
    /// What changes the scenario.
    #[command(flatten)]
    pub changes: Changes,
    /// What happens to the results.
    #[command(flatten)]
    pub results: Results,
}

/// The contract's workloads by their short names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ContractWorkload {
    /// All three
    Year1,
    /// `short_input`
    Short,
    /// `long_input`
    Long,
    /// `stress_test`
    Stress,
}

/// Arguments of `validate`.
#[derive(Debug, Clone, Args)]
pub struct ValidateArgs {
    /// Scenario files, or names of shipped scenarios
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Set a value of each scenario first (repeatable)
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// How errors are printed
    #[arg(long, value_enum, default_value_t = DiagnosticFormat::Text)]
    pub format: DiagnosticFormat,
}

/// How diagnostics are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DiagnosticFormat {
    /// For people
    Text,
    /// One JSON array
    Json,
    /// GitHub workflow commands
    Github,
}

/// Arguments of `plan`.
#[derive(Debug, Clone, Args)]
pub struct PlanArgs {
    /// A scenario file, or the name of a shipped scenario
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// What changes the scenario.
    #[command(flatten)]
    pub changes: Changes,
    /// Write the plan here, as JSON lines
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Print the first N prompts of each workload
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "3", conflicts_with = "out")]
    pub prompts: Option<usize>,
}

/// Arguments of `report`.
#[derive(Debug, Clone, Args)]
#[command(group = clap::ArgGroup::new("source").required(true).args(["run", "input"]))]
pub struct ReportArgs {
    /// A results folder, its `run.json`, or a bare summary file
    #[arg(value_name = "RUN")]
    pub run: Option<PathBuf>,
    /// The same, by its old name
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Render with this template: a file, or the name of a shipped one
    #[arg(long, value_name = "FILE", conflicts_with = "format")]
    pub template: Option<String>,
    /// Render in a standard format
    #[arg(long, value_enum, default_value_t = ReportFormat::Table)]
    pub format: ReportFormat,
    /// Tell the run's requests under another tool's definitions, each number beside its formula
    #[arg(long, value_enum, value_name = "TOOL", conflicts_with = "template")]
    pub dialect: Option<DialectChoice>,
    /// Write here instead of standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// A tool whose definitions are spoken, on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DialectChoice {
    /// `vllm bench serve`
    Vllm,
    /// `guidellm benchmark`
    Guidellm,
    /// NVIDIA `aiperf profile`
    Aiperf,
    /// `MLPerf` `LoadGen`, server scenario
    Mlperf,
    /// The contract's 22 fields as they were first counted
    Seed,
}

impl From<DialectChoice> for Dialect {
    fn from(choice: DialectChoice) -> Self {
        match choice {
            DialectChoice::Vllm => Self::Vllm,
            DialectChoice::Guidellm => Self::Guidellm,
            DialectChoice::Aiperf => Self::Aiperf,
            DialectChoice::Mlperf => Self::Mlperf,
            DialectChoice::Seed => Self::Seed,
        }
    }
}

/// The standard formats of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// For a terminal
    Table,
    /// Markdown
    Markdown,
    /// The whole run as JSON
    Json,
    /// One self-contained page
    Html,
    /// `JUnit` XML
    Junit,
}

/// Arguments of `compare`.
#[derive(Debug, Clone, Args)]
pub struct CompareArgs {
    /// What to compare with: a results folder, its `run.json`, a saved baseline, or a bare summary file
    #[arg(value_name = "BASE")]
    pub base: PathBuf,
    /// The runs to hold against it
    #[arg(value_name = "RUN", required_unless_present = "noise")]
    pub runs: Vec<PathBuf>,
    /// How much worse a run may be
    #[arg(long, value_name = "SHARE", default_value = "5%", value_parser = allowance)]
    pub allow: f64,
    /// How sure each verdict must be
    #[arg(long, value_name = "LEVEL", default_value = "95%", value_parser = level)]
    pub confidence: f64,
    /// Compare these metrics of the result files, such as `p99_ttft_ms` (repeatable, or comma-separated)
    #[arg(long = "metric", value_name = "NAME", value_delimiter = ',')]
    pub metrics: Vec<String>,
    /// Split the repeats of BASE in two halves and compare these: what differs is noise
    #[arg(long, conflicts_with = "runs")]
    pub noise: bool,
    /// Let one run against one other decide, although how much runs differ is not known
    #[arg(long)]
    pub allow_single_run: bool,
    /// Refuse other prompts of the same lengths, and fail what can not be told
    #[arg(long)]
    pub strict: bool,
    /// How the comparison is printed
    #[arg(long, value_enum, default_value_t = ComparisonFormat::Table)]
    pub format: ComparisonFormat,
    /// Write here instead of standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// The formats of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ComparisonFormat {
    /// For a terminal
    Table,
    /// For a pull request
    Markdown,
    /// Everything
    Json,
}

/// A share of 0 or more, such as `5%`.
fn allowance(text: &str) -> Result<f64, String> {
    let crate::units::Ratio(share) =
        text.parse().map_err(|_| format!("{text} is no share; write one such as 5%"))?;
    Ok(share)
}

/// A confidence level, such as `95%`.
fn level(text: &str) -> Result<f64, String> {
    allowance(text)
        .ok()
        .filter(|level| *level > 0.5 && *level < 1.0)
        .ok_or_else(|| format!("{text} is no confidence; it lies above 50% and below 100%, such as 95%"))
}

/// Arguments of `baseline`.
#[derive(Debug, Clone, Args)]
pub struct BaselineArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: BaselineCommand,
}

/// What can be done with baselines.
#[derive(Debug, Clone, Subcommand)]
pub enum BaselineCommand {
    /// Write `baselines/NAME.json` from a finished run
    Save {
        /// The baseline's name: lower-case letters, digits, `_`, `.` and `-`
        name: String,
        /// The results folder to save from
        #[arg(long, value_name = "DIR", default_value = "benchmark_results")]
        run: PathBuf,
        /// Write this file instead
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Save it even if the run failed its gates or is incomplete
        #[arg(long)]
        force: bool,
    },
}

const SERVE_HELP: &str = "\
A mock (`kind: mock`) or a real model (`kind: candle`) is served: /v1/completions, /v1/chat/completions, /v1/models, /tokenize,
/detokenize, /metrics, /health. Chats with a model go through its own chat template.

Answers end with the times of the engine, modelled or measured: a stream with a comment behind `[DONE]`, a whole answer with the header
`x-sagebench-times`. Clients can be measured against them.

Exit codes:
  0        ended by SIGINT or SIGTERM, after every answer under way was finished
  2        usage, or the scenario does not validate
  3        the address can not be listened at
  130, 143 ended at once by a second signal";

/// Arguments of `serve`.
#[derive(Debug, Clone, Args)]
#[command(after_help = SERVE_HELP)]
pub struct ServeArgs {
    /// A scenario file, or the name of a shipped scenario
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The backend to serve. Default: the scenario's choice
    #[arg(long, value_name = "NAME")]
    pub backend: Option<String>,
    /// Where to listen: `HOST:PORT` (port 0 takes a free one) or `unix:PATH`
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8000")]
    pub listen: Address,
    /// Set a value of the scenario first (repeatable)
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// The model's name. Default: the backend's
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// The workload whose faults and responses are in force; those for any workload always are
    #[arg(long, value_name = "NAME")]
    pub workload: Option<String>,
    /// The longest prompt and answer together, in tokens. Default: what the KV cache holds, 131072 without one
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_model_len: Option<u32>,
    /// At most so many requests at once; others get status 429
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub max_requests: usize,
    /// The longest body of a request
    #[arg(long, value_name = "SIZE", default_value = "16MiB")]
    pub max_body: Size,
    /// Threads that talk to clients
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,
    /// Let modelled time pass so many times as fast as the machine's clock
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = factor)]
    pub speed: f64,
    /// End answers without their modelled times
    #[arg(long)]
    pub no_times: bool,
    /// How much is said.
    #[command(flatten)]
    pub voice: Voice,
}

/// A number above 0.
fn factor(text: &str) -> Result<f64, String> {
    let factor = text.parse().ok().filter(|factor| (0.001..=1e6).contains(factor));
    factor.ok_or_else(|| "write a number from 0.001 to 1000000, such as 10".into())
}

/// Arguments of `calibrate`.
#[derive(Debug, Clone, Args)]
pub struct CalibrateArgs {
    /// A results folder, or a file of JSON lines, one request each
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// Start from the batched mock of this scenario, with its engine and cache; `FILE#NAME` where it has several
    #[arg(long, value_name = "FILE")]
    pub from: Option<String>,
    /// Fit only these parameters of `cost` (comma-separated); the others keep their value
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub fit: Vec<String>,
    /// Only requests of this workload
    #[arg(long, value_name = "NAME")]
    pub workload: Option<String>,
    /// Only requests of this backend
    #[arg(long, value_name = "NAME")]
    pub backend: Option<String>,
    /// The key that holds a value: arrival, prompt, output, first, last or blocks (repeatable). Defaults are those of
    /// `requests.jsonl`
    #[arg(long, value_name = "ROLE=KEY")]
    pub field: Vec<String>,
    /// The unit of the recorded times
    #[arg(long, value_enum, default_value_t = TimeUnit::Ms)]
    pub unit: TimeUnit,
    /// Tokens in one of the recorded blocks
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub block_tokens: u32,
    /// Write the backend block here instead of standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// The unit of recorded times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TimeUnit {
    /// Seconds
    S,
    /// Milliseconds
    Ms,
    /// Microseconds
    Us,
    /// Nanoseconds
    Ns,
}

/// Arguments of `schema`.
#[derive(Debug, Clone, Args)]
pub struct SchemaArgs {
    /// Which schema
    #[arg(value_enum, default_value_t = SchemaName::Scenario)]
    pub name: SchemaName,
}

/// The schemas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SchemaName {
    /// Scenario files, as an editor needs it
    Scenario,
    /// `run.json`
    Run,
    /// `<workload>_metrics.json`
    Metrics,
}

/// What to do with models.
#[derive(Debug, Clone, Subcommand)]
pub enum ModelCommand {
    /// Write a model with the shapes of a real one and random weights
    ///
    /// It computes as fast as the real one, for machines that can not download any; its answers mean nothing.
    Random(ModelRandomArgs),
    /// Print what a model is
    Info(ModelInfoArgs),
    /// List the models in the hub's cache on this machine
    List,
}

/// Arguments of `model random`.
#[derive(Debug, Clone, Args)]
pub struct ModelRandomArgs {
    /// Whose shapes
    #[arg(long, value_enum, value_name = "MODEL")]
    pub like: LikeChoice,
    /// The folder to write; default `random-MODEL`
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Decides every weight
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub seed: u64,
    /// How weights are stored
    #[arg(long, value_enum, default_value_t = WeightType::F32)]
    pub dtype: WeightType,
    /// Two narrow layers and 512 tokens, for tests: computed in no time
    #[arg(long)]
    pub tiny: bool,
    /// Replace the model that is there
    #[arg(long)]
    pub force: bool,
}

/// A real model, on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LikeChoice {
    /// GPT-2, 124M parameters
    Gpt2,
    /// OPT, 125M
    #[value(name = "opt-125m")]
    Opt125m,
    /// `SmolLM2`, 135M
    #[value(name = "smollm2-135m")]
    Smollm2,
    /// Qwen2.5, 0.5B
    #[value(name = "qwen2.5-0.5b")]
    Qwen25,
}

impl From<LikeChoice> for Like {
    fn from(choice: LikeChoice) -> Self {
        match choice {
            LikeChoice::Gpt2 => Self::Gpt2,
            LikeChoice::Opt125m => Self::Opt125m,
            LikeChoice::Smollm2 => Self::Smollm2Of135m,
            LikeChoice::Qwen25 => Self::Qwen25Of05b,
        }
    }
}

/// How weights are stored, on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WeightType {
    /// 32 bits
    F32,
    /// 16 bits
    Bf16,
}

/// Arguments of `model info`.
#[derive(Debug, Clone, Args)]
pub struct ModelInfoArgs {
    /// A folder, a GGUF file, or a hub id
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// The branch, tag or commit of the hub
    #[arg(long, value_name = "REVISION")]
    pub revision: Option<String>,
}

/// What a starter scenario is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Purpose {
    /// Conversations of several turns that arrive by the clock
    Chat,
    /// Long prompts that share documents, short answers
    Rag,
    /// A fixed amount of work, as fast as the server takes it
    Batch,
    /// A small gate for a pipeline, with an exit code
    CiGate,
    /// Recorded traffic at its own times
    Trace,
    /// The same work at several loads
    Sweep,
    /// A first look at an OpenAI-compatible server
    Server,
}

/// Arguments of `import`.
#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    /// Result files of one tool; equal loads in several files are repeats of each other
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The tool that wrote them, when the content does not tell: vllm, sglang, guidellm, aiperf, inference-perf or contract
    #[arg(long, value_name = "TOOL")]
    pub format: Option<String>,
    /// Judge them by the rules, SLO and baselines of this scenario
    #[arg(long, value_name = "SCENARIO", conflicts_with_all = ["rules", "slo"])]
    pub gates: Option<PathBuf>,
    /// Judge them by this rule, such as `p99(ttft) <= 500ms` (repeatable)
    #[arg(long = "rule", value_name = "RULE")]
    pub rules: Vec<String>,
    /// A limit that one request must keep to count for goodput, such as `ttft <= 500ms` (repeatable)
    #[arg(long, value_name = "LIMIT")]
    pub slo: Vec<String>,
    /// The workload's name, to be compared or judged under [default: the scenario's only one, else the tool's name]
    #[arg(long, value_name = "NAME")]
    pub workload: Option<String>,
    /// The backend's name [default: imported]
    #[arg(long, value_name = "NAME")]
    pub backend: Option<String>,
    /// The folder for results
    #[arg(short, long, value_name = "DIR", default_value = "benchmark_results")]
    pub output: PathBuf,
    /// Move an incomplete earlier run to the history
    #[arg(long)]
    pub force: bool,
    /// Let inconclusive rules fail
    #[arg(long)]
    pub strict: bool,
}

/// Arguments of `init`.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// What the scenario is for. Default: a bit of everything
    #[arg(value_enum, value_name = "PURPOSE", conflicts_with = "from")]
    pub purpose: Option<Purpose>,
    /// Make it from a command line, in quotes, of `vllm bench serve`, `guidellm benchmark`, `aiperf profile` or
    /// `sglang.bench_serving`
    #[arg(long, value_name = "COMMAND")]
    pub from: Option<String>,
    /// The file to write; its ending says YAML or TOML
    #[arg(long, value_name = "FILE", default_value = "scenario.yaml")]
    pub out: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    pub force: bool,
}
