use super::*;

#[test]
fn a_prompt_is_a_text_or_a_map_with_its_answers_length() {
    let text = script(
        "fn prompt(ctx) { `${ctx.workload} ${ctx.index} ${ctx.phase} ${ctx.tags.tier} ${ctx.point[\"load.concurrency\"]}` }",
    );
    let prompt = text.prompt("prompt", &context(3)).unwrap();
    assert_eq!(prompt, Prompt { text: "chat 3 measured gold 4".into(), output_tokens: None });
    let map = script(r#"fn prompt(ctx) { #{ prompt: "hi", output_tokens: 5 + ctx.index } }"#);
    let prompt = map.prompt("prompt", &context(3)).unwrap();
    assert_eq!(prompt, Prompt { text: "hi".into(), output_tokens: Some(8) });
}

#[test]
fn a_request_is_changed_where_the_hook_says_so() {
    let hook = script(
        r#"fn request(req) {
            if req.index == 3 { req.prompt += "!"; req.output_tokens = 7; req.body.user = "u" + req.index; }
            req
        }"#,
    );
    let changed = hook.request(request(3)).unwrap();
    assert_eq!(changed.new_prompt.as_deref(), Some("tell me a story!"));
    assert_eq!((changed.output_tokens, changed.body["user"].to_string()), (7, "u3".into()));
    let left = hook.request(request(4)).unwrap();
    assert_eq!((left.new_prompt, left.output_tokens, left.body.len()), (None, 64, 0));
}

#[test]
fn a_check_says_yes_no_or_why() {
    let fault = |body, text| check(body, text).unwrap().fault;
    assert_eq!(fault("res.text.len() > 3", "long enough"), None);
    assert_eq!(fault("false", ""), Some("`check` says no".into()));
    assert_eq!(
        fault(r#"if res.finish_reason == "stop" { "too early" } else { true }"#, ""),
        Some("too early".into())
    );
    assert_eq!(fault("res.json.city == \"Paris\" && res.json.n == 2", r#"{"city": "Paris", "n": 2}"#), None);
    assert_eq!(fault("res.text.matches(\"^[a-z]+$\")", "abc"), None);
    assert_eq!(fault("res.ttft_ms == 10.0 && res.tpot_ms == () && res.e2e_ms > 35", ""), None);
    assert_eq!(fault("tokens(req.prompt) == 4 && req.prompt_tokens == 4 && req.forced", ""), None);
}

#[test]
fn what_is_recorded_adds_up_within_a_request() {
    let body = r#"record("lines", 3); record("score", 0.5); record("lines", res.text.len()); true"#;
    let finding = check(body, "ab").unwrap();
    assert_eq!(finding.recorded, [(0, 5.0), (1, 0.5)]);
    insta::assert_snapshot!(check(r#"record("line", 3); true"#, "").unwrap_err(), @r#"hooks.inline:1:22: check(req, res): there is no metric `line`; did you mean `lines`? (it received request 3 of chat, 4 prompt and 64 output tokens, and the response "")"#);
    insta::assert_snapshot!(check(r#"record("lines", "3"); true"#, "").unwrap_err(), @r#"hooks.inline:1:22: check(req, res): expected a number, found a text (it received request 3 of chat, 4 prompt and 64 output tokens, and the response "")"#);
    insta::assert_snapshot!(check(r#"record("lines", 0.0 / 0.0); true"#, "").unwrap_err(), @r#"hooks.inline:1:22: check(req, res): record("lines", NaN): a metric takes finite numbers (it received request 3 of chat, 4 prompt and 64 output tokens, and the response "")"#);
}

#[test]
fn a_session_goes_on_until_its_hook_ends_it() {
    let hook = script(
        r"fn next_turn(session) {
            if session.turn > 2 { return; }
            `turn ${session.turn} of ${session.messages.len()} after ${session.last}`
        }",
    );
    let messages = vec![("user".into(), "q".into()), ("assistant".into(), "a".into())];
    let session = |turn| Session { context: context(0), turn, messages: messages.clone() };
    assert_eq!(hook.next_turn(&session(2)).unwrap().unwrap().text, "turn 2 of 2 after a");
    assert_eq!(hook.next_turn(&session(3)).unwrap(), None);
}

#[test]
fn draws_are_a_function_of_seed_request_and_hook() {
    let text = r"
        fn draw() { [rng.unit(), rng.int(1, 6), rng.chance(0.5), rng.normal(10, 2), rng.exponential(3.0), rng.pick([1, 2, 3]), rng.shuffle([1, 2, 3, 4])] }
        fn prompt(ctx) { draw().to_string() }
        fn next_turn(session) { draw().to_string() }";
    let hook = script(text);
    let of = |index| hook.prompt("prompt", &context(index)).unwrap().text;
    insta::assert_snapshot!(of(0), @"[0.08547557271772632, 1, false, 9.539841964716757, 6.376067258097916, 2, [2, 3, 1, 4]]");
    assert_eq!(of(0), script(text).prompt("prompt", &context(0)).unwrap().text);
    assert_ne!(of(0), of(1));
    let session = Session { context: context(0), turn: 1, messages: Vec::new() };
    assert_ne!(of(0), hook.next_turn(&session).unwrap().unwrap().text);
    assert_eq!(Mock.count(&value("rng.text(17)")), 17);
}

#[test]
fn whole_numbers_are_drawn_from_both_ends() {
    let all =
        value("let seen = #{}; for i in 0..200 { seen[rng.int(-1, 1).to_string()] = true; } seen.keys()");
    assert_eq!(all, r#"["-1", "0", "1"]"#);
    assert_eq!(value("let low = -9223372036854775807 - 1; rng.int(low, 9223372036854775807) != 0"), "true");
}

#[test]
fn functions_of_real_numbers_are_libms() {
    assert_eq!(value("2.0.ln()"), libm::log(2.0).to_string());
    assert_eq!(value("exp(1.5)"), libm::exp(1.5).to_string());
    assert_eq!(value("pow(2, 0.5)"), libm::pow(2.0, 0.5).to_string());
    assert_eq!(value("sin(1.0) + cos(1.0)"), (libm::sin(1.0) + libm::cos(1.0)).to_string());
    assert_eq!(value("atan(1.0, 2.0)"), libm::atan2(1.0, 2.0).to_string());
}

#[test]
fn json_goes_both_ways() {
    assert_eq!(
        value(r#"parse_json("{\"a\": [1, 2.5, null, true, \"x\"]}").to_json()"#),
        r#"{"a":[1,2.5,null,true,"x"]}"#
    );
    assert_eq!(value(r#"let x = "fine"; try { parse_json("{"); } catch { x = "no"; } x"#), "no");
}

#[test]
fn constants_at_the_top_are_there_in_functions() {
    let hook = script("const WORDS = [\"a\", \"b\"];\nfn prompt(ctx) { rng.pick(global::WORDS) }");
    assert!(["a", "b"].contains(&hook.prompt("prompt", &context(0)).unwrap().text.as_str()));
}

#[test]
fn files_import_files_of_the_scenarios_folder() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("hooks/lib")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("hooks/main.rhai", "import \"lib/words\" as words;\nfn prompt(ctx) { words::greet(ctx.index) }");
    write(
        "hooks/lib/words.rhai",
        "import \"../names.rhai\" as names;\nfn greet(n) { `hello ${names::name(n)}` }",
    );
    write("hooks/names.rhai", "fn name(n) { if n > 5 { throw \"too many\" } `n${n}` }");
    let hooks = Hooks { file: Some("hooks/main.rhai".into()), inline: None, origin: None };
    let script = compile(&hooks, dir.path()).unwrap_or_else(|faults| panic!("{}", faults[0]));
    let names: Vec<&str> = script.texts().iter().map(|text| text.name.as_str()).collect();
    assert_eq!(names, ["hooks/main.rhai", "hooks/lib/words.rhai", "hooks/names.rhai"]);
    assert_eq!(script.prompt("prompt", &context(1)).unwrap().text, "hello n1");
    let error = script.prompt("prompt", &context(6)).unwrap_err();
    insta::assert_snapshot!(error, @"hooks/names.rhai:1:25: prompt(ctx): too many (it received request 6 of chat)");
}

#[test]
fn an_error_stands_at_its_line_of_the_scenario() {
    let text = "fn check(req, res) {\n    res.txt\n}\n";
    let origin = config::Origin { file: "year1.yaml".into(), line: 12, column: 4 };
    let hooks = Hooks { file: None, inline: Some(text.into()), origin: Some(origin) };
    let script = compile(&hooks, Path::new("")).unwrap_or_else(|faults| panic!("{}", faults[0]));
    let error = script.check("check", &request(3), &response("a long answer")).unwrap_err();
    insta::assert_snapshot!(error, @r#"year1.yaml:14:13: check(req, res): a Response has no such property `txt`; did you mean `text`? (it received request 3 of chat, 4 prompt and 64 output tokens, and the response "a long answer")"#);
}

#[test]
fn names_and_parameters_are_checked_when_the_script_is_read() {
    insta::assert_snapshot!(refused("fn chek(req, res) { true }"), @"hooks.inline:1:4: nothing calls `chek`; the hooks are prompt, request, check, next_turn; did you mean `check`?");
    let named = compile(&inline("fn checks(req, res) { true }"), Path::new(""))
        .map(|script| script.misnamed(&["checks"]));
    assert_eq!(named, Ok(Vec::new()));
    insta::assert_snapshot!(refused("fn check(res) { true }\nfn prompt() { \"\" }"), @"hooks.inline:2:4: `prompt()` must take one parameter: `prompt(ctx)`
hooks.inline:1:4: `check(res)` must take two parameters: `check(req, res)`");
    insta::assert_snapshot!(refused("fn check(req, res) { true "), @"hooks.inline:1:27: syntax error: Expecting ';' to terminate this statement");
    insta::assert_snapshot!(refused("fn check(req, res) { reqq.index == 1 }"), @"hooks.inline:1:22: syntax error: Undefined variable: reqq");
    assert_eq!(refused("fn requests(n) { n }\nfn check(req, res) { requests(1) == 1 }"), "compiles");
    let script = script("fn short(req, res) { true }\nfn odd(x) { 1 }");
    assert_eq!(script.lacks("short", &["req", "res"]), None);
    let lacks = |name| script.lacks(name, &["req", "res"]).unwrap().to_string();
    insta::assert_snapshot!(lacks("shrt"), @"hooks.inline: there is no function `shrt` in it; did you mean `short`?");
    insta::assert_snapshot!(lacks("odd"), @"hooks.inline:2:4: `odd(x)` must take two parameters: `odd(req, res)`");
}

#[test]
fn one_script_serves_many_threads() {
    let script = script("fn prompt(ctx) { `${ctx.index} ${rng.int(0, 1000000)}` }");
    let alone: Vec<String> =
        (0..64).map(|index| script.prompt("prompt", &context(index)).unwrap().text).collect();
    let together: Vec<String> = std::thread::scope(|scope| {
        let part = |thread: u64| {
            let script = &script;
            scope.spawn(move || {
                let own = (0..64).filter(move |index| index % 4 == thread);
                own.map(|index| (index, script.prompt("prompt", &context(index)).unwrap().text))
                    .collect::<Vec<_>>()
            })
        };
        let threads: Vec<_> = (0..4).map(part).collect();
        let mut all: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        all.sort();
        all.into_iter().map(|(_, text)| text).collect()
    });
    assert_eq!(alone, together);
}

#[test]
fn the_examples_of_the_page_come_to_what_it_says() {
    for (expression, wanted) in reference::EXAMPLES.iter().flat_map(|(_, examples)| *examples) {
        assert_eq!(value(expression), *wanted, "{expression}");
    }
}
