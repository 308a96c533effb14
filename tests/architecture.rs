//! Holds the `use crate::` lines of every source file against the table of allowed arrows, and refuses cycles.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Modules that import nothing of ours but each other.
const LEAVES: &[&str] = &[
    "checkpoint",
    "generated",
    "metric",
    "nearest",
    "record",
    "rule",
    "sample",
    "stats",
    "tokenizer",
    "union",
    "units",
];

/// What each module may import beside the leaves. `x::config` is the file `src/x/config.rs`.
const ALLOWED: &[(&str, &[&str])] = &[
    (
        "scenario",
        &[
            "backend::config",
            "check::config",
            "gate::config",
            "hook::config",
            "plan::config",
            "report::config",
        ],
    ),
    ("hook", &["hook::config"]),
    ("check", &["check::config", "hook"]),
    ("plan", &["check", "hook", "hook::config", "plan::config", "scenario"]),
    ("engine", &[]),
    ("backend", &["backend::config", "engine", "plan"]),
    ("calibrate", &["backend", "backend::config", "plan"]),
    ("run", &["backend", "backend::config", "plan"]),
    ("import", &["measure", "scenario"]),
    ("measure", &["backend", "backend::config", "gate::config", "plan", "plan::config", "run"]),
    ("gate", &["gate::config", "measure", "plan", "plan::config", "run", "scenario"]),
    (
        "report",
        &[
            "backend",
            "backend::config",
            "gate",
            "gate::config",
            "measure",
            "plan",
            "plan::config",
            "report::config",
            "run",
            "scenario",
        ],
    ),
    (
        "campaign",
        &[
            "backend",
            "backend::config",
            "check",
            "engine",
            "gate",
            "gate::config",
            "import",
            "measure",
            "plan",
            "plan::config",
            "report",
            "report::config",
            "run",
            "scenario",
        ],
    ),
    ("serve", &["backend", "backend::config", "engine", "plan"]),
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The module a file belongs to: `plan::config` for `src/plan/config.rs` and what is below it, else the top-level module.
fn module_of(relative: &Path) -> String {
    let parts: Vec<_> = relative.iter().map(|p| p.to_string_lossy().replace(".rs", "")).collect();
    if parts.len() >= 2 && parts[1] == "config" { format!("{}::config", parts[0]) } else { parts[0].clone() }
}

/// Every module that a text names as `crate::x` (or `crate::x::config`).
fn imports(text: &str) -> BTreeSet<String> {
    let code: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with('$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        assert!(!rest.starts_with('{'), "write one `use crate::module` per line, so that arrows can be read");
        let path: String =
            rest.chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | ':')).collect();
        let mut parts = path.split("::");
        let first = parts.next().unwrap_or_default().to_owned();
        if parts.next() == Some("config") {
            found.insert(format!("{first}::config"))
        } else {
            found.insert(first)
        };
    }
    found
}

fn arrows() -> BTreeMap<String, BTreeMap<String, PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut arrows: BTreeMap<String, BTreeMap<String, PathBuf>> = BTreeMap::new();
    for file in files {
        let relative = file.strip_prefix(&root).unwrap().to_owned();
        let module = module_of(&relative);
        for target in imports(&fs::read_to_string(&file).unwrap()) {
            if target != module && !target.is_empty() {
                arrows.entry(module.clone()).or_default().insert(target, relative.clone());
            }
        }
    }
    arrows
}

#[test]
fn every_import_is_in_the_table() {
    let mut wrong = Vec::new();
    for (module, targets) in arrows() {
        if matches!(module.as_str(), "cli" | "main" | "lib") {
            continue;
        }
        let allowed: &[&str] = ALLOWED.iter().find(|(name, _)| *name == module).map_or(&[], |(_, list)| list);
        for (target, file) in targets {
            // The macro of tagged unions is exported at the crate's root.
            if !LEAVES.contains(&target.as_str()) && !allowed.contains(&target.as_str()) {
                wrong.push(format!("{module} imports {target} ({})", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows outside the table:\n{}", wrong.join("\n"));
}

fn visit<'a>(
    at: &'a str,
    arrows: &'a BTreeMap<String, BTreeMap<String, PathBuf>>,
    path: &mut Vec<&'a str>,
    done: &mut BTreeSet<&'a str>,
) {
    assert!(!path.contains(&at), "cycle: {} -> {at}", path.join(" -> "));
    if !done.contains(at) {
        path.push(at);
        for target in arrows.get(at).into_iter().flat_map(BTreeMap::keys) {
            visit(target, arrows, path, done);
        }
        path.pop();
        done.insert(at);
    }
}

#[test]
fn there_is_no_cycle() {
    let arrows = arrows();
    let mut done = BTreeSet::new();
    for module in arrows.keys() {
        visit(module, &arrows, &mut Vec::new(), &mut done);
    }
}

#[test]
fn nobody_imports_the_doors() {
    for (module, targets) in arrows() {
        assert!(module == "main" || !targets.contains_key("cli"), "{module} imports cli");
        assert!(module == "cli" || !targets.contains_key("serve"), "{module} imports serve");
    }
}
