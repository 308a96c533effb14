//! The page that lists what a hook sees, written from the registrations themselves.

use std::fmt::Write as _;

use super::limits;
use super::script::{HOOKS, rows};
use crate::generated::row;

/// What each hook is for.
const HOOK_DOCS: [(&str, &str); 4] = [
    (
        "prompt",
        "Makes a prompt, in a workload whose prompt is `kind: script` (its `function` may name another). Gives back the text, or a map such as `#{ prompt: \"..\", output_tokens: 64 }` whose number replaces the one in the workload's `output`.",
    ),
    (
        "request",
        "May change a request before it is sent: its `prompt`, its `output_tokens`, its `body`. Gives the request back.",
    ),
    (
        "check",
        "Judges the response of a success. Gives back true, false, or a text that says what is wrong. It is called for every response, and is the check `hook` in rules and reports; a check of `kind: script` gives it another name, or names another function of the same parameters.",
    ),
    (
        "next_turn",
        "Makes what the user says in the next turn of a session (`kind: sessions`, and files and traces with sessions), when that turn is due: a text, or a map as for `prompt`. Gives back `()` to end the session before its planned number of turns; the turns that are left are skipped, outside the totals.",
    ),
];

/// Groups of rows: what stands above each, and what it says.
const GROUPS: [(&str, &str, &str); 7] = [
    ("Context", "`ctx`, for `prompt`", ""),
    ("Request", "`req`, for `request` and `check`", ""),
    ("Response", "`res`, for `check`", ""),
    ("Session", "`session`, for `next_turn`", ""),
    (
        "rng",
        "`rng`, everywhere",
        "Draws are a pure function of the scenario's seed, the workload, the repeat, the request and the hook: the same on every machine, whatever the load.",
    ),
    ("functions", "Functions", ""),
    ("mathematics", "Mathematics", "The functions of real numbers give the same bits on every machine."),
];

/// Expressions of the language by what they work on, and what each comes to.
pub(super) const EXAMPLES: &[(&str, &[(&str, &str)])] = &[
    (
        "Numbers",
        &[
            ("7 / 2", "3"),
            ("7.0 / 2", "3.5"),
            ("7 % 3", "1"),
            ("abs(-3)", "3"),
            ("sign(-3)", "-1"),
            ("min(2, 5)", "2"),
            ("max(2, 5)", "5"),
            ("2.5.floor()", "2.0"),
            ("2.5.ceiling()", "3.0"),
            ("2.4.round()", "2.0"),
            ("2.5.int", "2.0"),
            ("2.5.fraction", "0.5"),
            ("16.0.sqrt()", "4.0"),
            ("(7).to_float()", "7.0"),
            ("3.7.to_int()", "3"),
            ("parse_int(\"12\")", "12"),
            ("parse_int(\"ff\", 16)", "255"),
            ("parse_float(\"1.5\")", "1.5"),
            ("(255).to_hex()", "ff"),
            ("(5).is_odd", "true"),
            ("6 & 3", "2"),
            ("1 << 4", "16"),
        ],
    ),
    (
        "Text",
        &[
            ("`${1 + 2} tokens`", "3 tokens"),
            ("\"Paris\".len()", "5"),
            ("\"Zürich\".bytes", "7"),
            ("\"Paris\" + \"!\"", "Paris!"),
            ("\"Paris\".to_lower()", "paris"),
            ("\"Paris\".to_upper()", "PARIS"),
            ("\"Paris\".contains(\"ari\")", "true"),
            ("\"Paris\".starts_with(\"Pa\")", "true"),
            ("\"Paris\".ends_with(\"is\")", "true"),
            ("\"Paris\".index_of(\"r\")", "2"),
            ("\"Paris\".sub_string(1, 3)", "ari"),
            ("\"Paris\"[0]", "P"),
            ("\"a,b\".split(\",\").len()", "2"),
            ("let s = \" a \"; s.trim(); s", "a"),
            ("let s = \"aa\"; s.replace(\"a\", \"b\"); s", "bb"),
            ("let s = \"7\"; s.pad(3, \"0\"); s", "700"),
            ("let s = \"Paris\"; s.truncate(2); s", "Pa"),
            ("let s = \"Paris\"; s.crop(1, 2); s", "ar"),
        ],
    ),
    (
        "Lists",
        &[
            ("[1, 2, 3].len()", "3"),
            ("[3, 1, 2][0]", "3"),
            ("[3, 1, 2][-1]", "2"),
            ("[1, 2, 3].contains(2)", "true"),
            ("2 in [1, 2, 3]", "true"),
            ("[4, 5].index_of(5)", "1"),
            ("[1, 2, 3].map(|x| x * 2).to_string()", "[2, 4, 6]"),
            ("[1, 2, 3].filter(|x| x > 1).to_string()", "[2, 3]"),
            ("[1, 2, 3].reduce(|sum, x| sum + x, 0)", "6"),
            ("[1, 2, 3].some(|x| x > 2)", "true"),
            ("[1, 2, 3].all(|x| x > 2)", "false"),
            ("[1, 2, 3].find(|x| x > 1)", "2"),
            ("[1, 2, 3].extract(1, 2).to_string()", "[2, 3]"),
            ("[1, 2].zip([3, 4], |x, y| x + y).to_string()", "[4, 6]"),
            ("let l = [3, 1, 2]; l.sort(); l.to_string()", "[1, 2, 3]"),
            ("let l = [3, 1, 2]; l.sort_desc(); l.to_string()", "[3, 2, 1]"),
            ("let l = [1, 2]; l.reverse(); l.to_string()", "[2, 1]"),
            ("let l = [1]; l.push(2); l += 3; l.to_string()", "[1, 2, 3]"),
            ("let l = [1, 2]; l.insert(0, 9); l.to_string()", "[9, 1, 2]"),
            ("let l = [1, 2]; l.pop()", "2"),
            ("let l = [1, 2]; l.remove(0)", "1"),
            ("let l = [1, 1, 2]; l.dedup(); l.len()", "2"),
        ],
    ),
    (
        "Maps",
        &[
            ("let m = #{ a: 1 }; m.b = 2; m.len()", "2"),
            ("let m = #{ a: 1 }; m[\"a\"]", "1"),
            ("let m = #{ a: 1 }; \"a\" in m", "true"),
            ("let m = #{ a: 1 }; m.get(\"b\") == ()", "true"),
            ("let m = #{ a: 1 }; m.get(\"b\") ?? 7", "7"),
            ("let m = #{ a: 1 }; m?.a", "1"),
            ("#{ a: 1, b: 2 }.keys().to_string()", "[\"a\", \"b\"]"),
            ("#{ a: 1, b: 2 }.values().to_string()", "[1, 2]"),
            ("let m = #{ a: 1, b: 2 }; m.remove(\"a\"); m.len()", "1"),
            ("let m = #{ a: 1 }; m.mixin(#{ b: 2 }); m.len()", "2"),
        ],
    ),
    (
        "Control",
        &[
            ("let n = 0; for i in 0..5 { n += i; } n", "10"),
            ("let n = 0; for i in 0..=5 { n += i; } n", "15"),
            ("let n = 0; for x in [2, 3] { n += x; } n", "5"),
            ("let n = 0; while n < 3 { n += 1; } n", "3"),
            ("let n = 7; if n > 5 { \"many\" } else { \"few\" }", "many"),
            ("switch 2 { 1 => \"one\", 2 | 3 => \"some\", _ => \"many\" }", "some"),
            ("let x = \"\"; try { throw \"no\" } catch (error) { x = error; } x", "no"),
            ("type_of(1.5)", "f64"),
            ("(1).type_of() == \"i64\"", "true"),
        ],
    ),
];

/// The page in Markdown.
fn page() -> String {
    let mut page = String::from(HEAD);
    page.push_str("\n## Hooks\n\n| hook | what it does |\n|---|---|\n");
    for (name, parameters) in HOOKS {
        let doc = HOOK_DOCS.iter().find(|(of, _)| *of == name).map_or("", |(_, doc)| doc);
        row(&mut page, [&format!("`{name}({})`", parameters.join(", ")), doc]);
    }
    for (group, title, doc) in GROUPS {
        let _ = write!(page, "\n## {title}\n\n");
        if !doc.is_empty() {
            let _ = write!(page, "{doc}\n\n");
        }
        page.push_str("| written | what it is |\n|---|---|\n");
        for one in rows().iter().filter(|row| row.group == group) {
            row(&mut page, [&format!("`{}`", one.written), one.doc]);
        }
    }
    page.push_str(LANGUAGE);
    for (group, examples) in EXAMPLES {
        let _ = write!(page, "\n### {group}\n\n| expression | comes to |\n|---|---|\n");
        for (expression, value) in *examples {
            // A backquote ends a code span of one, so two stand around it.
            let around = if expression.contains('`') { ("`` ", " ``") } else { ("`", "`") };
            row(&mut page, [&format!("{}{expression}{}", around.0, around.1), &format!("`{value}`")]);
        }
    }
    limits_of(&mut page);
    page
}

const HEAD: &str = "# Hooks

Functions in the [Rhai](https://rhai.rs/book) language that make prompts, change requests, judge responses and record metrics. They stand in a file or in the
scenario, at its top or in a workload:

```yaml
metrics:
  lines: { unit: \"1\", better: higher }
hooks:
  inline: |
    fn check(req, res) {
        record(\"lines\", res.text.split(\"\\n\").len());
        if res.text.contains(\"TODO\") { \"leaves work undone\" } else { true }
    }
```

`hooks: { file: hooks/year1.rhai }` names a file relative to the scenario. It may `import \"other\" as other;` at its top: files of the scenario's folder or
below, relative to the file that imports them. Constants at the top of a file are `global::NAME` inside functions.

A hook runs when a request is made and when its response is complete, never between tokens. It has no clock, no file and no network. A hook that fails fails
its own request, which is counted as `hook_failed`, with file, line and column; the others go on. `sagebench validate` compiles hooks and checks their names and
parameters. Their sources are part of the content digest.
";

const LANGUAGE: &str = "
## The language

A script is in [Rhai](https://rhai.rs/book), with all of its standard functions but `eval`, `sleep`, `timestamp` and `exit`, and without the operator `**`.
Numbers are 64-bit integers or floats, and overflow is an error. What an author needs most, each line run in a test:
";

fn limits_of(page: &mut String) {
    page.push_str("\n## Limits\n\nA call that goes beyond one of them fails, and its request with it.\n\n");
    page.push_str("| what | at most |\n|---|--:|\n");
    let all = [
        ("operations of one call", limits::OPERATIONS),
        ("seconds of one call, for the few functions whose operations are long", limits::TIME.as_secs()),
        ("functions that call each other", limits::CALL_LEVELS as u64),
        ("depth of an expression", limits::EXPRESSION_DEPTH as u64),
        ("bytes of a text, those inside a list or map together", limits::STRING as u64),
        ("items of a list, those inside others together", limits::ARRAY as u64),
        ("keys of a map, those inside others together", limits::MAP as u64),
        ("variables of a function", limits::VARIABLES as u64),
        ("functions of a file", limits::FUNCTIONS as u64),
        ("imported files", limits::MODULES as u64),
        ("bytes of a file", limits::FILE),
    ];
    for (what, most) in all {
        row(page, [what, &most.to_string()]);
    }
}

#[test]
fn the_page_is_the_one_of_the_registrations() {
    crate::generated::is_committed("docs/hooks.md", &page());
}

#[test]
fn every_registration_stands_on_the_page() {
    for row in rows() {
        assert!(GROUPS.iter().any(|(group, ..)| *group == row.group), "{row:?}");
        assert!(row.doc.ends_with('.'), "{row:?}");
    }
    assert_eq!(HOOKS.map(|(name, _)| name), HOOK_DOCS.map(|(name, _)| name));
}
