//! What is told before anything runs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::super::config::{Confidence, NoData, Severity};
use super::super::{Checked, Planned, PlannedBackend, PlannedWorkload, Scope, Site, check};
use crate::scenario::Scenario;

fn scenario(rules: &Value, more: &Value) -> Scenario {
    let workload = |tags: Value, slo: Value| {
        json!({
            "prompt": { "kind": "synthetic", "tokens": 8 },
            "output": { "tokens": 8 },
            "load": { "kind": "closed", "concurrency": 1, "requests": 100 },
            "tags": tags,
            "slo": slo,
        })
    };
    let mut whole = json!({
        "version": 1,
        "backends": { "mock": { "kind": "mock", "ttft": "1ms", "tbt": "1ms" } },
        "workloads": {
            "chat": workload(json!({ "tier": "gold" }), json!(["ttft <= 1s"])),
            "batch": workload(json!({ "tier": "free" }), Value::Null),
        },
        "gates": { "rules": rules },
    });
    for (key, value) in more.as_object().unwrap() {
        whole[key] = value.clone();
    }
    serde_json::from_value(whole).unwrap()
}

fn planned() -> Planned {
    let workload = |name: &str, tier: &str, requests| PlannedWorkload {
        sessions: false,
        pooled: false,
        searches: None,
        name: name.to_owned(),
        tags: [("tier".to_owned(), tier.to_owned())].into_iter().collect(),
        requests,
        gaps: requests.map(|n: u64| n * 7),
        checks: Vec::new(),
    };
    let backend = |name: &str, deterministic| PlannedBackend { name: name.to_owned(), deterministic };
    Planned {
        workloads: vec![
            workload("chat@concurrency=1", "gold", Some(100)),
            workload("chat@concurrency=4", "gold", Some(400)),
            workload("batch", "free", None),
        ],
        backends: vec![backend("mock", true), backend("vllm", false)],
    }
}

fn checked(rules: &Value) -> Checked {
    check(&scenario(rules, &json!({})), &planned()).unwrap_or_else(|findings| panic!("{findings:#?}"))
}

/// Findings under the texts they are about.
fn refused(rules: &Value, more: &Value) -> String {
    let scenario = scenario(rules, more);
    let findings = check(&scenario, &planned()).expect_err("something is wrong");
    let mut out = String::new();
    for finding in findings {
        let text = match &finding.site {
            Site::Rule(index) => &scenario.gates.rules[*index].rule,
            Site::Slo(index) => &scenario.slo[*index],
            Site::WorkloadSlo(name, index) => &scenario.workloads[name].slo.as_ref().unwrap()[*index],
        };
        let (before, width) = (finding.at.start, finding.at.len().max(1));
        writeln!(out, "{text}\n{}{} {}", " ".repeat(before), "^".repeat(width), finding.message).unwrap();
        writeln!(out, "{}= help: {}", " ".repeat(before), finding.help).unwrap();
    }
    out
}

#[test]
fn out_of_reach() {
    let rules = json!([
        "p99(ttft) < 80ms",
        { "rule": "p95(ttft) < 80ms where prompt_tokens >= 4", "confidence": "99.9%" },
        { "rule": "p5(throughput) >= 5tok/s", "confidence": "99.9%" },
        "error_rate <= 1%",
        "share(ttft <= 1s) >= 99%",
        { "rule": "p99.9(ttft) < 80ms", "workloads": ["chat"] },
        { "rule": "p99.9(tbt) < 80ms", "workloads": ["chat"] },
    ]);
    insta::assert_snapshot!(refused(&rules, &json!({})), @r"
    p99(ttft) < 80ms
    ^^^^^^^^^ `p99(ttft)` needs 299 samples to pass at 95%, workload `chat@concurrency=1` has 100
    = help: raise its requests to 299, or set `confidence: none` and let the point decide
    p95(ttft) < 80ms where prompt_tokens >= 4
    ^^^^^^^^^ `p95(ttft)` needs 135 samples to pass at 99.9%, workload `chat@concurrency=1` has 100
    = help: raise its requests to 135, or set `confidence: none` and let the point decide
    p5(throughput) >= 5tok/s
    ^^^^^^^^^^^^^^ `p5(throughput)` needs 135 samples to pass at 99.9%, workload `chat@concurrency=1` has 100
    = help: raise its requests to 135, or set `confidence: none` and let the point decide
    error_rate <= 1%
    ^^^^^^^^^^ `error_rate` needs 299 samples to pass at 95%, workload `chat@concurrency=1` has 100
    = help: raise its requests to 299, or set `confidence: none` and let the point decide
    share(ttft <= 1s) >= 99%
    ^^^^^^^^^^^^^^^^^ `share(ttft <= 1s)` needs 299 samples to pass at 95%, workload `chat@concurrency=1` has 100
    = help: raise its requests to 299, or set `confidence: none` and let the point decide
    p99.9(ttft) < 80ms
    ^^^^^^^^^^^ `p99.9(ttft)` needs 2995 samples to pass at 95%, workload `chat@concurrency=1` has 100
    = help: raise its requests to 2995, or set `confidence: none` and let the point decide
    p99.9(tbt) < 80ms
    ^^^^^^^^^^ `p99.9(tbt)` needs 2995 samples to pass at 95%, workload `chat@concurrency=1` has 700
    = help: raise its requests or its output tokens, or set `confidence: none` and let the point decide
    ");
}

#[test]
fn within_reach() {
    checked(&json!([
        // Nothing is tested: the point decides, or there is nothing to test.
        { "rule": "p99(ttft) < 80ms", "confidence": "none" },
        "avg(ttft) < 80ms",
        "max(ttft) < 80ms",
        "error_rate == 0",
        "prefix_hit_rate >= 70%",
        // Deterministic, or large enough, or of a size that nobody knows.
        { "rule": "p99.9(ttft) < 80ms", "backends": ["mock"] },
        { "rule": "p99(ttft) < 80ms", "workloads": ["chat@concurrency=4", "batch"] },
        { "rule": "p99.9(ttft) < 80ms", "workloads": ["batch"] },
        { "rule": "p99(tbt) < 80ms", "workloads": ["chat"] },
        // Pooled, the size of `batch` is not known, so the whole is not.
        { "rule": "p99.9(ttft) < 80ms", "workloads": "all" },
        // One for which a single sample is enough.
        "p99(ttft) > 1ms",
    ]));
}

#[test]
fn pooled_samples_add_up() {
    let mut plan = planned();
    plan.workloads.pop();
    let of = |rule: &str| {
        let rules = json!([{ "rule": rule, "workloads": "all" }]);
        check(&scenario(&rules, &json!({})), &plan)
    };
    assert!(of("p99(ttft) < 80ms").is_ok(), "100 and 400 are more than 299");
    let finding = of("p99.9(ttft) < 80ms").unwrap_err().remove(0);
    assert_eq!(finding.message, "`p99.9(ttft)` needs 2995 samples to pass at 95%, this plan has 500");
}

#[test]
fn tags_and_slo() {
    let rules = json!([
        "p50(ttft) < 80ms where teir == gold",
        "p50(ttft) < 80ms where region == eu",
        "p50(ttft) < 80ms where tier == golf",
        { "rule": "p50(ttft) < 80ms where tier == gold", "workloads": ["batch"] },
        "slo_share >= 50%",
        { "rule": "goodput >= 1/s", "workloads": ["batch"] },
    ]);
    insta::assert_snapshot!(refused(&rules, &json!({})), @r"
    p50(ttft) < 80ms where teir == gold
                           ^^^^^^^^^^^^ `teir` is neither a metric of a request nor a tag of any workload
                           = help: did you mean `tier`?
    p50(ttft) < 80ms where region == eu
                           ^^^^^^^^^^^^ `region` is neither a metric of a request nor a tag of any workload
                           = help: give a workload `tags: { region: ... }`
    p50(ttft) < 80ms where tier == golf
                           ^^^^^^^^^^^^ no workload has the tag `tier: golf`
                           = help: did you mean `gold`?
    p50(ttft) < 80ms where tier == gold
                           ^^^^^^^^^^^^ none of the rule's workloads has these tags
                           = help: name other `workloads`, or other tags
    slo_share >= 50%
    ^^^^^^^^^ `slo_share` counts requests within the SLO, and workload `batch` has none
    = help: write its limits, such as `slo: [ttft <= 500ms]`, or name the rule's `workloads`
    goodput >= 1/s
    ^^^^^^^ `goodput` counts requests within the SLO, and workload `batch` has none
    = help: write its limits, such as `slo: [ttft <= 500ms]`, or name the rule's `workloads`
    ");
}

#[test]
fn texts_that_are_no_rules() {
    let mut more = json!({ "slo": ["ttft <= 5", "tpot <= 20ms"] });
    more["workloads"] = json!({
        "chat": {
            "prompt": { "kind": "synthetic", "tokens": 8 },
            "load": { "kind": "closed", "concurrency": 1, "requests": 100 },
            "slo": ["tbt <= 5ms"],
        },
    });
    insta::assert_snapshot!(refused(&json!(["p99(ttft) < 80", "avg(ttft) < 80ms"]), &more), @r"
    ttft <= 5
            ^ 5 what? `ttft` is a time and needs a unit
            = help: write `5ms`
    tbt <= 5ms
    ^^^ `tbt` is one value for each token, so no single request has it
    = help: write `tpot`, a request's own mean
    p99(ttft) < 80
                ^^ 80 what? `p99(ttft)` is a time and needs a unit
                = help: write `80ms`
    ");
}

#[test]
fn the_points_of_a_matrix_share_what_is_wrong_with_their_slo() {
    let point = json!({
        "prompt": { "kind": "synthetic", "tokens": 8 },
        "load": { "kind": "closed", "concurrency": 1, "requests": 100 },
        "slo": ["ttft <= 5", "tpot <= 5"],
    });
    let more = json!({ "workloads": { "chat@concurrency=1": point, "chat@concurrency=4": point } });
    let findings = check(&scenario(&json!([]), &more), &planned()).unwrap_err();
    let sites: Vec<Site> = findings.into_iter().map(|finding| finding.site).collect();
    let first = "chat@concurrency=1".to_owned();
    assert_eq!(sites, [Site::WorkloadSlo(first.clone(), 0), Site::WorkloadSlo(first, 1)]);
}

#[test]
fn scopes_are_resolved() {
    let rules = json!([
        "avg(ttft) < 80ms",
        { "rule": "avg(ttft) < 80ms", "workloads": ["chat"], "backends": ["vllm"], "severity": "warn", "no_data": "skip" },
        { "rule": "avg(ttft) < 80ms where tier != gold", "workloads": "all", "confidence": "none" },
        { "rule": "error_rate == 0", "workloads": ["batch"] },
    ]);
    let Checked { rules, slos } = checked(&rules);
    let names = |scope: &Scope| scope.names().join(" ");
    assert_eq!(names(&rules[0].scope), "chat@concurrency=1 chat@concurrency=4 batch");
    assert_eq!(rules[0].backends, ["mock", "vllm"]);
    assert_eq!((rules[0].index, rules[0].confidence), (Some(0), Confidence::Level(0.95)));
    assert_eq!(names(&rules[1].scope), "chat@concurrency=1 chat@concurrency=4");
    assert_eq!(
        (&rules[1].backends[..], rules[1].severity, rules[1].no_data),
        (&["vllm".to_owned()][..], Severity::Warn, NoData::Skip)
    );
    assert_eq!(rules[2].scope, Scope::Pooled(vec!["batch".to_owned()]));
    assert_eq!(rules[2].confidence, Confidence::None);
    // `batch` has a rule of its own about errors; the others get the implicit one.
    assert_eq!(names(&rules[3].scope), "batch");
    assert_eq!(rules.len(), 5);
    let implicit = &rules[4];
    assert_eq!((implicit.index, implicit.text.as_str()), (None, "error_rate <= 1%"));
    assert_eq!(names(&implicit.scope), "chat@concurrency=1 chat@concurrency=4");
    assert_eq!((&implicit.backends, implicit.confidence), (&rules[0].backends, Confidence::None));
    assert!(implicit.case("chat@concurrency=1", "mock").implicit);
    assert_eq!(slos["chat@concurrency=4"].len(), 1);
    assert!(slos["batch"].is_empty());
}

#[test]
fn an_error_rule_for_one_backend_leaves_the_other_to_the_implicit_one() {
    let Checked { rules, .. } = checked(&json!([{ "rule": "error_rate == 0", "backends": ["mock"] }]));
    assert_eq!(rules[1].backends, ["vllm"]);
    assert_eq!(rules[1].scope.names().len(), 3);
    assert_eq!(checked(&json!([{ "rule": "error_rate == 0", "workloads": "all" }])).rules.len(), 1);
    assert_eq!(checked(&json!([])).rules.len(), 1);
}

#[test]
fn a_common_slo_is_for_those_without_their_own() {
    let more = json!({ "slo": ["tpot <= 20ms", "ttft <= 2s"] });
    let found = check(&scenario(&json!([]), &more), &planned()).unwrap();
    assert_eq!((found.slos["chat@concurrency=1"].len(), found.slos["batch"].len()), (1, 2));
}

#[test]
fn a_check_that_no_rule_is_about_must_pass_each_time() {
    let mut planned = planned();
    planned.workloads[0].checks = vec!["json".into(), "polite".into()];
    planned.workloads[2].checks = vec!["json".into()];
    let said = |rules: Value| -> Vec<String> {
        let checked = check(&scenario(&rules, &json!({})), &planned).unwrap();
        let unsaid =
            checked.rules.iter().filter(|rule| rule.index.is_none() && rule.text.starts_with("check("));
        unsaid
            .map(|rule| {
                format!("{} for {} on {}", rule.text, rule.scope.names().join(" "), rule.backends.join(" "))
            })
            .collect()
    };
    let (chat, both) = ("chat@concurrency=1", "chat@concurrency=1 batch");
    assert_eq!(
        said(json!([])),
        [
            format!("check(json) == 100% for {both} on mock vllm"),
            format!("check(polite) == 100% for {chat} on mock vllm"),
        ]
    );
    assert_eq!(
        said(json!(["check(json) >= 90%"])),
        [format!("check(polite) == 100% for {chat} on mock vllm")]
    );
    let one = json!([{ "rule": "checks_pass_rate >= 90%", "backends": ["mock"], "workloads": ["chat"] }]);
    assert_eq!(
        said(one),
        [
            format!("check(json) == 100% for {chat} on vllm"),
            format!("check(polite) == 100% for {chat} on vllm"),
            "check(json) == 100% for batch on mock vllm".to_owned(),
        ]
    );
}

#[test]
fn a_rule_about_a_check_is_for_the_workloads_that_have_it() {
    let mut planned = planned();
    planned.workloads[0].checks = vec!["json".into()];
    let rules = json!(["check(json) >= 90%", "checks_pass_rate >= 90%"]);
    let checked = check(&scenario(&rules, &json!({})), &planned).unwrap();
    assert_eq!(checked.rules[0].scope.names().join(" "), "chat@concurrency=1");
    assert_eq!(checked.rules[1].scope.names().join(" "), "chat@concurrency=1");
    let wrong = |rule: &str, workloads: Value| {
        let rule = json!({ "rule": rule, "workloads": workloads });
        let findings = check(&scenario(&json!([rule]), &json!({})), &planned).unwrap_err();
        format!("{}; {}", findings[0].message, findings[0].help)
    };
    assert_eq!(
        wrong("check(jsn) >= 90%", json!(["chat"])),
        "no workload of the rule has a check `jsn`; did you mean `json`?"
    );
    assert_eq!(
        wrong("checks_pass_rate >= 90%", json!(["batch"])),
        "no workload of the rule has checks; write them in the workload's `expect`"
    );
}
