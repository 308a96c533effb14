//! Every scenario of a mock under `scenarios/` is applied on the virtual clock; what the terminal says is golden.

use std::fs;

use crate::common::{repo, run};

#[test]
fn worked_scenarios_say_what_they_said() {
    let mut names: Vec<String> = fs::read_dir(repo("scenarios"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        // Those of servers are applied beside a server.
        .filter(|path| {
            let text = fs::read_to_string(path).unwrap();
            let mut lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
            !lines.any(|line| line.contains("base_url"))
        })
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert!(names.len() >= 20, "{names:?}");
    for name in names {
        let dir = tempfile::tempdir().unwrap();
        let said =
            run(dir.path(), ["apply".as_ref(), repo("scenarios").join(&name).as_os_str(), "-q".as_ref()]);
        let code = said.code.unwrap();
        insta::assert_snapshot!(name.trim_end_matches(".yaml"), format!("exit {code}\n{}", said.out));
    }
}

#[test]
fn every_scenario_without_files_is_inside_the_binary() {
    for entry in fs::read_dir(repo("scenarios")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let needs_files = text.contains("path: ") || text.contains("template: ");
        let shipped = sagebench::campaign::Shipped::named(name);
        assert_eq!(shipped.is_some(), !needs_files, "{name}");
    }
}

#[test]
fn reports_of_ones_own_are_written_beside_the_standard_ones() {
    let dir = tempfile::tempdir().unwrap();
    let scenario = repo("scenarios/own-report.yaml");
    let said = run(dir.path(), ["apply".as_ref(), scenario.as_os_str(), "-q".as_ref()]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let read = |name: &str| fs::read_to_string(dir.path().join("benchmark_results").join(name)).unwrap();
    insta::assert_snapshot!("own-report-files", format!("{}\n{}", read("message.md"), read("row.csv")));
}

#[test]
fn a_starter_scenario_passes_as_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["scenario.yaml", "other.toml"] {
        assert_eq!(run(dir.path(), ["init", "--out", file]).code, Some(0));
        assert_eq!(run(dir.path(), ["init", "--out", file]).code, Some(2), "an existing file is kept");
        let said = run(dir.path(), ["apply", file, "-o", &format!("{file}.results")]);
        assert_eq!(said.code, Some(0), "{}", said.err);
    }
    let [yaml, toml] = ["scenario.yaml", "other.toml"]
        .map(|file| fs::read_to_string(dir.path().join(format!("{file}.results/requests.jsonl"))).unwrap());
    assert_eq!(yaml, toml);
}

/// Each purpose's scenario passes on the mock as it is written; the one for a server passes in front of one.
#[test]
fn starters_for_a_purpose_pass_as_they_are_written() {
    let dir = tempfile::tempdir().unwrap();
    for purpose in ["chat", "rag", "batch", "ci-gate", "trace", "sweep", "server"] {
        let folder = dir.path().join(purpose);
        fs::create_dir(&folder).unwrap();
        let said = run(&folder, ["init", purpose]);
        assert_eq!(said.code, Some(0), "{purpose}: {}", said.err);
        let said = run(&folder, ["apply", "scenario.yaml", "--backend", "mock", "-q"]);
        assert_eq!(said.code, Some(0), "{purpose}: {}{}", said.out, said.err);
        assert!(!said.out.contains("WARN"), "{purpose}: {}", said.out);
    }
}

#[test]
fn a_starter_replaces_nothing_and_a_wrong_purpose_is_told_the_others() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("trace.jsonl"), "mine").unwrap();
    let said = run(dir.path(), ["init", "trace"]);
    assert!(said.code == Some(2) && said.err.contains("trace.jsonl exists already"), "{}", said.err);
    assert!(!dir.path().join("scenario.yaml").exists(), "all of it or nothing");
    assert_eq!(run(dir.path(), ["init", "trace", "--force"]).code, Some(0));
    let said = run(dir.path(), ["init", "trce"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("chat, rag, batch, ci-gate, trace, sweep, server"), "{}", said.err);
    let said = run(dir.path(), ["init", "chat", "--out", "chat.toml"]);
    assert!(said.code == Some(2) && said.err.contains(".yaml"), "{}", said.err);
}
