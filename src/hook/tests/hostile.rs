//! Scripts that mean harm, or that went wrong: each ends within its limits, with a message at its place.

use super::*;

/// What `check` comes to with this body.
fn outcome(body: &str) -> String {
    let text = format!("fn help(n) {{ help(n + 1) }}\nfn check(req, res) {{\n    {body}\n}}");
    match compile(&inline(&text), Path::new("")) {
        Err(faults) => format!("refused: {}", faults[0]),
        Ok(script) => match script.check("check", &request(3), &response("text")) {
            Ok(finding) => format!("ends: {finding:?}"),
            Err(error) => error.to_string().replace(
                " (it received request 3 of chat, 4 prompt and 64 output tokens, and the response \"text\")",
                "",
            ),
        },
    }
}

#[test]
fn everything_ends_with_a_located_message() {
    let bodies = [
        ("an infinite loop", "loop { }"),
        ("an infinite loop that works", "let x = 0; while true { x = (x + 1) % 7; }"),
        ("endless recursion", "help(0)"),
        ("a text that doubles", "let s = \"x\"; loop { s += s; }"),
        ("a list that doubles", "let a = [1]; loop { a += a; }"),
        ("a list of lists", "let a = [0]; loop { a = [a, a, a, a]; }"),
        ("a list that grows", "let a = []; loop { a.push(1); }"),
        ("a map that grows", "let m = #{}; let i = 0; loop { m[i.to_string()] = i; i += 1; }"),
        ("padding", "let s = \"x\"; s.pad(1000000000, \"y\"); s"),
        ("list padding", "let a = []; a.pad(1000000000, 1); a"),
        ("a blob", "let b = blob(1000000000); b.len() > 0"),
        ("a long text", "let s = rng.text(100000000); s"),
        (
            "text by joining",
            "let s = \"\"; for i in 0..1000000 { s += \"0123456789012345678901234567890123456789\"; } s",
        ),
        ("interpolation that doubles", "let s = \"xx\"; loop { s = `${s}${s}`; }"),
        ("replace that grows", "let s = \"aaaa\"; loop { s.replace(\"a\", \"aaaaaaaa\"); }"),
        ("split", "let s = \"a\"; for i in 0..21 { s += s; } s.split(\"\").len() > 0"),
        ("a range without end", "for i in 0..9223372036854775807 { } true"),
        ("a range of steps of nothing", "for i in range(0, 10, 0) { } true"),
        ("sleep", "sleep(3600); true"),
        ("sleep of a real number", "sleep(3600.0); true"),
        ("sleep of something else", "sleep(\"1\"); true"),
        ("the time", "timestamp(); true"),
        ("exit", "exit(1)"),
        ("eval", "eval(\"1\")"),
        ("a function by name", "Fn(\"sleep\").call(3600)"),
        ("a closure that calls itself", "let f = |g, n| g.call(g, n + 1); f.call(f, 0)"),
        ("import in a function", "import \"/etc/passwd\" as p; true"),
        ("a file", "open(\"/etc/passwd\")"),
        ("overflow", "9223372036854775807 + req.index > 0"),
        ("division by nothing", "1 / (req.index - 3) > 0"),
        ("the smallest number", "let x = -9223372036854775807 - 1; -x > 0"),
        ("a remainder that overflows", "let x = -9223372036854775807 - 1; x % -1 == 0"),
        ("an absolute value that overflows", "let x = -9223372036854775807 - 1; abs(x) > 0"),
        ("a shift too far", "1 << 9999 == 0"),
        ("a power", "2 ** 9999 > 0"),
        ("a number from a text", "parse_int(\"99999999999999999999\") > 0"),
        ("an index out of bounds", "[1, 2][7] == 1"),
        ("an index far below", "[1, 2][-9223372036854775807] == 1"),
        (
            "a slice out of bounds",
            "let a = [1, 2]; a.splice(-9223372036854775807, 9223372036854775807, [1]); a.len() > 0",
        ),
        ("bits out of bounds", "let x = 1; x.set_bits(60..99, 1); true"),
        ("a character out of bounds", "\"ab\"[9] == 'x'"),
        ("an unknown function", "frobnicate(res.text)"),
        ("an unknown property", "res.txt == \"\""),
        ("an unknown property of a map", "#{ a: 1 }.b == 1"),
        ("an unknown variable", "nope == 1"),
        ("a wrong type", "res.text + 1 > 3"),
        ("a number as a result", "42"),
        ("nothing as a result", "let x = 1;"),
        ("a function as a result", "|x| x"),
        ("a constant assigned", "rng = 1; true"),
        ("a throw", "throw \"bad day\""),
        ("a throw of a map", "throw #{ code: 7 }"),
        ("a pattern that is none", "res.text.matches(\"(\")"),
        ("a pattern that is too large", "res.text.matches(\"(?:a{1000}){1000}{1000}\")"),
        ("JSON that is deep", "let s = \"[\"; for i in 0..14 { s += s; } parse_json(s) == ()"),
        ("a deep expression", &format!("{}1{} == 1", "(".repeat(200), ")".repeat(200))),
        ("too many variables", &(0..60).map(|n| format!("let v{n} = {n};")).collect::<Vec<_>>().join(" ")),
        ("catching the limits", "loop { try { loop { } } catch { } }"),
        ("catching a size", "let s = \"x\"; loop { try { s += s; } catch { } }"),
        (
            "sorting by a function that lies",
            "let a = []; for i in 0..5000 { a.push(i); } a.sort(|x, y| 1); a.len() == 5000",
        ),
    ];
    let said: Vec<String> =
        bodies.iter().map(|(name, body)| format!("{name}\n    {}", outcome(body))).collect();
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn imports_stay_inside_the_scenarios_folder() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret.rhai"), "fn secret() { 1 }").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("scenarios");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(dir.path().join("sibling.rhai"), "fn secret() { 1 }").unwrap();
    std::fs::write(root.join("round.rhai"), "import \"round\" as r;").unwrap();
    std::fs::write(root.join("bad.rhai"), "fn x() { let = 1; }").unwrap();
    std::fs::write(root.join("binary.rhai"), [0xff, 0xfe, 0]).unwrap();
    std::fs::write(root.join("large.rhai"), " ".repeat(300_000)).unwrap();
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(outside.path().join("secret.rhai"), root.join("link.rhai")).unwrap();
        std::os::unix::fs::symlink(outside.path(), root.join("folder")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", root.join("zero.rhai")).unwrap();
    }
    let absolute = outside.path().join("secret.rhai").display().to_string();
    let paths = [
        "../sibling",
        "../sibling.rhai",
        "x/../../sibling",
        &absolute,
        "link",
        "folder/secret",
        "zero",
        "round",
        "bad",
        "binary",
        "large",
        "nothing",
        "",
        "a\\\\b",
        ".",
    ];
    let said: Vec<String> = paths
        .iter()
        .map(|path| {
            let text = format!("import \"{path}\" as m;\nfn check(req, res) {{ true }}");
            let said = match compile(&inline(&text), &root) {
                Ok(_) => "compiles".to_owned(),
                Err(faults) => faults[0].to_string(),
            };
            let path = path.replace(&absolute, "ABSOLUTE");
            format!("{path:?}: {}", said.replace(&absolute, "ABSOLUTE"))
        })
        .collect();
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn a_path_that_is_computed_finds_nothing_new_at_run_time() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("lib.rhai"), "fn one() { 1 }").unwrap();
    let late = inline("fn check(req, res) { import \"lib\" as lib; lib::one() == 1 }");
    let script = compile(&late, dir.path()).unwrap_or_else(|faults| panic!("{}", faults[0]));
    insta::assert_snapshot!(script.check("check", &request(3), &response("")).unwrap_err(), @r#"hooks.inline:1:29: check(req, res): can not import `lib`: `import` stands at the top of a file, with a literal path (it received request 3 of chat, 4 prompt and 64 output tokens, and the response "")"#);
    let early = inline("import \"lib\" as lib;\nfn check(req, res) { lib::one() == 1 }");
    let script = compile(&early, dir.path()).unwrap_or_else(|faults| panic!("{}", faults[0]));
    std::fs::remove_file(dir.path().join("lib.rhai")).unwrap();
    assert_eq!(
        script.check("check", &request(3), &response("")).unwrap().fault,
        None,
        "no file is read at run time"
    );
}

#[test]
fn what_stands_at_the_top_has_limits_too() {
    insta::assert_snapshot!(refused("loop { }\nfn check(req, res) { true }"), @"hooks.inline:1:6: it takes more than 1000000 operations; does a loop end?");
    insta::assert_snapshot!(refused("const X = rng.unit();"), @"hooks.inline:1:11: `rng` is for hooks; at the top of a file there is nothing to draw for");
    insta::assert_snapshot!(refused("record(\"lines\", 1);"), @"hooks.inline:1:1: `record` is for hooks; it has nothing to work on at the top of a file");
}
