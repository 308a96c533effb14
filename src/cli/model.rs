//! `model`: what is on this machine, what a checkpoint is, and random ones of real shapes.

use std::fmt::Write as _;
use std::path::Path;

use super::args::{ModelCommand, ModelInfoArgs, ModelRandomArgs, WeightType};
use super::error::CliError;
use super::terminal;
use crate::checkpoint::random::{Like, Random, Stored};
use crate::checkpoint::{Checkpoint, CheckpointError, Hub, Outline, Wanted};
use crate::gate::exit;
use crate::tokenizer::{Hf, Tokenizer};
use crate::units::MIB;

/// `model`.
pub fn model(command: &ModelCommand) -> Result<u8, CliError> {
    match command {
        ModelCommand::Random(args) => random(args),
        ModelCommand::Info(args) => info(args),
        ModelCommand::List => list(),
    }
}

fn input(error: &CheckpointError) -> CliError {
    CliError::Input(error.to_string())
}

/// A checkpoint with random weights.
fn random(args: &ModelRandomArgs) -> Result<u8, CliError> {
    let like = Like::from(args.like);
    let tiny = if args.tiny { "-tiny" } else { "" };
    let out = args.out.clone().unwrap_or_else(|| format!("random-{}{tiny}", like.name()).into());
    if out.join("config.json").exists() && !args.force {
        return Err(CliError::Input(format!(
            "{} holds a model already; --force replaces it, --out names another folder",
            out.display()
        )));
    }
    let stored = match args.dtype {
        WeightType::F32 => Stored::F32,
        WeightType::Bf16 => Stored::Bf16,
    };
    let random = Random { like, tiny: args.tiny, stored, seed: args.seed };
    random.write(&out).map_err(|error| input(&error))?;
    let checkpoint = Checkpoint { name: out.display().to_string(), path: out.clone(), revision: None };
    let outline = Outline::read(&checkpoint).map_err(|error| input(&error))?;
    terminal::say(&format!(
        "{} written: {} parameters, {} MiB; its answers mean nothing, its speed is that of {}",
        out.display(),
        millions(outline.parameters),
        outline.weight_bytes / MIB,
        if args.tiny { "nothing real".to_owned() } else { like.name().to_owned() }
    ));
    Ok(exit::PASS)
}

fn millions(count: u64) -> String {
    format!("{:.1}M", count as f64 / 1e6)
}

/// What one checkpoint is.
fn info(args: &ModelInfoArgs) -> Result<u8, CliError> {
    let revision = args.revision.as_deref();
    let checkpoint = Checkpoint::find(&args.model, revision, Path::new(""), &Hub::from_env(), Wanted::Model)
        .map_err(|error| input(&error))?;
    let outline = Outline::read(&checkpoint).map_err(|error| input(&error))?;
    let tokenizer = Hf::open(&checkpoint).map_err(|error| input(&error))?;
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "{name:<13}{value}");
    };
    let number = |value: Option<u64>| value.map_or_else(|| "unknown".to_owned(), |value| value.to_string());
    line("path", checkpoint.path.display().to_string());
    if let Some(revision) = &checkpoint.revision {
        line("revision", revision.clone());
    }
    line("architecture", outline.architecture.clone());
    line("layers", number(outline.layers));
    line("hidden", number(outline.hidden));
    let kv_heads = number(outline.kv_heads);
    line("heads", format!("{}, {kv_heads} of keys and values", number(outline.heads)));
    line("context", format!("{} tokens", number(outline.context)));
    line("vocabulary", number(outline.vocabulary));
    line("tokenizer", format!("{}, {} tokens", tokenizer.name(), tokenizer.vocabulary()));
    let types: Vec<String> =
        outline.dtypes.iter().map(|(dtype, count)| format!("{} {dtype}", millions(*count))).collect();
    line("parameters", format!("{} ({})", millions(outline.parameters), types.join(", ")));
    line("weights", format!("{} MiB", outline.weight_bytes / MIB));
    let ends: Vec<String> = outline.end_tokens.iter().map(u32::to_string).collect();
    line(
        "ends with",
        if ends.is_empty() { "nothing".into() } else { format!("token {}", ends.join(" or ")) },
    );
    terminal::print(&out)?;
    Ok(exit::PASS)
}

/// The models in the hub's cache on this machine.
fn list() -> Result<u8, CliError> {
    let hub = Hub::from_env();
    let found = hub.list();
    let mut out = String::new();
    for (id, folder) in &found {
        let commit = folder.file_name().unwrap_or_default().to_string_lossy();
        let short: String = commit.chars().take(12).collect();
        let checkpoint =
            Checkpoint::find(&folder.to_string_lossy(), None, Path::new(""), &hub, Wanted::Model);
        let state = match checkpoint.and_then(|checkpoint| Outline::read(&checkpoint)) {
            Ok(outline) => format!(
                "{}, {} parameters, {} MiB",
                outline.architecture,
                millions(outline.parameters),
                outline.weight_bytes / MIB
            ),
            Err(CheckpointError::Incomplete { lacking, .. }) => format!("incomplete: {lacking} is missing"),
            Err(error) => error.to_string(),
        };
        let _ = writeln!(out, "{id:<44}  {short:<12}  {state}");
    }
    terminal::print(&out)?;
    if found.is_empty() {
        terminal::say(&format!("no models in {}", hub.cache.display()));
    }
    Ok(exit::PASS)
}
