//! Every broken scenario in `tests/bad/` beside what a user sees. A file dropped in there is a test;
//! `SAGEBENCH_UPDATE=1` writes what is expected.
//!
//! The first line of a YAML file says whether an editor with the schema must show an error on the same line as we do:
//! `# schema-error: yes` or `# schema-error: no`.

use std::fs;
use std::path::{Path, PathBuf};

use sagebench::campaign::{Changes, Rejected, complete};
use sagebench::scenario::render::{Render, render};
use sagebench::scenario::{Options, load, read_file};

/// What the user sees for a file: the validation that `sagebench validate` runs.
fn validate(path: &Path) -> Result<(), String> {
    let env = |name: &str| match name {
        "SLOW" => Some("slow".to_owned()),
        "EIGHT" => Some("8".to_owned()),
        _ => None,
    };
    let options = Options { set: &[], backend_chosen: false, env: &env, read: &read_file };
    let result = load(path, &options).map_err(|failed| Rejected::Invalid(Box::new(failed)));
    match result.and_then(|loaded| complete(loaded, &Changes::default())) {
        Ok(_) => Ok(()),
        Err(Rejected::Invalid(failed) | Rejected::NotComparable(failed)) => {
            Err(render(&failed.sources, &failed.diagnostics, Render::Text { color: false }))
        }
        Err(Rejected::Message(message)) => Err(format!("error: {message}\n")),
    }
}

fn broken() -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir("tests/bad")
        .expect("the folder of broken scenarios")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml" || extension == "toml"))
        .collect();
    paths.sort();
    paths
}

#[test]
fn every_broken_scenario_says_what_is_wrong() {
    let update = std::env::var_os("SAGEBENCH_UPDATE").is_some();
    let paths = broken();
    assert!(paths.len() >= 45, "only {} broken scenarios", paths.len());
    let mut wrong = Vec::new();
    for path in paths {
        let Err(shown) = validate(&path) else {
            wrong.push(format!("{} is accepted", path.display()));
            continue;
        };
        let expected =
            path.with_extension(format!("{}.stderr", path.extension().unwrap_or_default().display()));
        if update {
            fs::write(&expected, &shown).expect("written");
        }
        let expected = fs::read_to_string(&expected).unwrap_or_default();
        if expected != shown {
            wrong.push(format!("{}\n--- expected\n{expected}--- found\n{shown}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn every_broken_yaml_says_what_an_editor_must_find() {
    for path in
        broken().into_iter().filter(|path| path.extension().is_some_and(|e| e == "yaml") && path.is_file())
    {
        let bytes = fs::read(&path).expect("readable");
        let text = String::from_utf8_lossy(&bytes);
        let first = text.trim_start_matches('\u{feff}').lines().next().unwrap_or_default();
        let marked = first == "# schema-error: yes" || first == "# schema-error: no";
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        assert!(marked || ["empty", "binary"].contains(&name.as_str()), "{}: {first:?}", path.display());
    }
}

#[test]
fn no_expectation_is_left_without_its_scenario() {
    for entry in fs::read_dir("tests/bad").expect("the folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "stderr") {
            assert!(path.with_extension("").exists(), "{} belongs to nothing", path.display());
        }
    }
}

#[test]
fn the_editors_schema_refuses_what_is_marked_and_nothing_else() {
    let validator =
        jsonschema::validator_for(&sagebench::scenario::editor_schema()).expect("the schema compiles");
    let mut wrong = Vec::new();
    for path in broken() {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let text = text.trim_start_matches('\u{feff}');
        let options = serde_yaml::options! { strict_booleans: true };
        let parsed = serde_yaml::from_str_with_options::<serde_json::Value>(text, options);
        let Some(value) = parsed.ok().filter(|value| !value.is_null()) else { continue };
        let refused = !validator.is_valid(&value);
        let Some(marked) = text.lines().next().and_then(|line| line.strip_prefix("# schema-error: ")) else {
            continue;
        };
        if refused != (marked == "yes") {
            wrong.push(format!("{}: marked {marked}, refused: {refused}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
