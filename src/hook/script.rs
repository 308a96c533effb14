//! A script made ready: compiled once, called from any thread.

use std::cell::Cell;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Instant;

use regex::Regex;
use rhai::packages::{Package as _, StandardPackage};
use rhai::{
    AST, Caches, CallFnOptions, Dynamic, Engine, EvalAltResult, EvalContext, FuncArgs, ImmutableString,
    Module, Scope,
};

use super::config::Hooks;
use super::error::{Fault, HookError, ScriptText, innermost, words};
use super::functions::{Call, Recorded, Row, log, register};
use super::limits;
use super::modules::{Jail, read};
use super::rng::{Rng, refuse};
use super::values::{Context, Finding, Prompt, Request, Response, Session, json};
use crate::nearest::nearest;
use crate::tokenizer::Tokenizer;
use crate::units::TokenCount;

/// The hooks that are called by their names, with what they receive.
pub const HOOKS: [(&str, &[&str]); 4] =
    [("prompt", &["ctx"]), ("request", &["req"]), ("check", &["req", "res"]), ("next_turn", &["session"])];

thread_local! {
    /// When the call that runs on this thread began.
    static BEGUN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The names that every script knows although nothing in it declares them.
pub(super) fn constants() -> Scope<'static> {
    let mut scope = Scope::new();
    scope.push_constant("rng", ());
    scope
}

/// A compiled script. What stands at its top runs when it is compiled; where it imports other files it runs before each call
/// of a hook as well, for functions find what was imported there only.
pub struct Script {
    engine: Engine,
    ast: AST,
    main: Arc<ScriptText>,
    texts: Vec<Arc<ScriptText>>,
    functions: Vec<(String, usize)>,
    /// Whether it imports other files.
    imports: bool,
    metrics: Arc<[String]>,
    tokenizer: Arc<dyn Tokenizer>,
    /// Which functions the names in it mean, as earlier calls have found.
    resolved: Mutex<Vec<Resolved>>,
}

/// What Rhai found when it looked functions up, and how many calls have used it. Names that a script makes up as it runs are
/// remembered as well, so it is thrown away now and then.
#[derive(Default)]
struct Resolved {
    caches: Caches,
    calls: u32,
}

impl Resolved {
    const CALLS: u32 = 10_000;
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Script")
            .field("name", &self.main.name)
            .field("functions", &self.functions)
            .finish_non_exhaustive()
    }
}

/// The lines of the reference page, in its order.
pub fn rows() -> &'static [Row] {
    static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| sandbox().1);
    &ROWS
}

/// The sandbox, and the lines of the reference page.
pub(super) fn sandbox() -> (Engine, Vec<Row>) {
    let mut engine = Engine::new_raw();
    StandardPackage::new().register_into_engine(&mut engine);
    limits::pin(&mut engine);
    // Propagating the constants of `constants()` would put their placeholder in the place of each use.
    engine.set_optimization_level(rhai::OptimizationLevel::None);
    engine.disable_symbol("eval");
    // Its floats differ between platforms; `pow` is there.
    engine.disable_symbol("**").disable_symbol("**=");
    engine.register_fn("sleep", |_: Dynamic| refuse::<()>("`sleep` is not there: a hook takes no time"));
    engine.register_fn("sleep", |_: i64| refuse::<()>("`sleep` is not there: a hook takes no time"));
    engine.register_fn("sleep", |_: f64| refuse::<()>("`sleep` is not there: a hook takes no time"));
    engine.register_fn("timestamp", || refuse::<()>("`timestamp` is not there: a hook has no clock"));
    engine.register_fn("exit", || refuse::<()>("`exit` is not there: return from the hook instead"));
    engine
        .register_fn("exit", |_: Dynamic| refuse::<()>("`exit` is not there: return from the hook instead"));
    engine.on_print(log);
    engine.on_debug(|text, _, at| log(&format!("{at:?}: {text}")));
    engine.on_progress(|operations| {
        let late = || BEGUN.get().is_some_and(|begun| begun.elapsed() > limits::TIME);
        (operations % 256 == 0 && late()).then_some(Dynamic::UNIT)
    });
    #[expect(
        deprecated,
        reason = "the interface is marked as one that may change, not as one that goes away"
    )]
    engine.on_var(|name, _, context| {
        if name != "rng" {
            return Ok(None);
        }
        match context.tag().read_lock::<Call>() {
            Some(call) => Ok(Some(Dynamic::from(call.rng.clone()))),
            None => refuse("`rng` is for hooks; at the top of a file there is nothing to draw for"),
        }
    });
    let rows = register(&mut engine);
    (engine, rows)
}

/// The constants that a file has declared at its top, as `global::NAME` finds them.
fn constants_of(scope: &Scope<'_>) -> Module {
    let mut module = Module::new();
    for (name, is_constant, value) in scope.iter() {
        if is_constant && name != "rng" {
            module.set_var(name, value);
        }
    }
    module.build_index();
    module
}

impl Script {
    /// Compiles the script of a scenario in the folder `root`. `metrics` are the names that it may record to.
    ///
    /// # Errors
    /// Everything that can be told: of syntax the first error only.
    pub fn compile(
        hooks: &Hooks,
        root: &Path,
        metrics: Arc<[String]>,
        tokenizer: Arc<dyn Tokenizer>,
    ) -> Result<Self, Vec<Fault>> {
        let main = Arc::new(main_text(hooks, root)?);
        let mut texts = vec![Arc::clone(&main)];
        let (mut engine, _) = sandbox();
        let root = if root.as_os_str().is_empty() { Path::new(".") } else { root };
        let jail = Jail::new(root.canonicalize().unwrap_or_else(|_| root.to_owned()));
        engine.set_module_resolver(jail.clone());
        let compiled = engine.compile_with_scope(&constants(), &main.text);
        let mut ast = compiled.map_err(|error| vec![fault(&texts, error.into())])?;
        ast.set_source(if main.inline { "" } else { main.name.as_str() });
        BEGUN.set(Some(Instant::now()));
        let mut scope = constants();
        let top = engine.run_ast_with_scope(&mut scope, &ast);
        jail.seal();
        texts.extend(jail.texts());
        top.map_err(|error| vec![fault(&texts, *error)])?;
        let imports = texts.len() > 1;
        if !imports {
            engine.register_static_module("global", constants_of(&scope).into());
        }
        let functions = ast.iter_functions().map(|f| (f.name.to_owned(), f.params.len())).collect();
        let resolved = Mutex::default();
        Ok(Self { engine, ast, main, texts, functions, imports, metrics, tokenizer, resolved })
    }

    /// Every text that took part, the main one first: what the content digest covers.
    pub fn texts(&self) -> &[Arc<ScriptText>] {
        &self.texts
    }

    /// Whether there is a function of this name.
    pub fn has(&self, function: &str) -> bool {
        self.functions.iter().any(|(name, _)| name == function)
    }

    /// What is wrong with a function that the scenario names: it is not there, or takes something else than `parameters`.
    pub fn lacks(&self, function: &str, parameters: &[&str]) -> Option<Fault> {
        let mut own = self.functions.iter().filter(|(name, _)| name == function).peekable();
        let list = parameters.join(", ");
        if own.peek().is_none() {
            let names = self.functions.iter().map(|(name, _)| name.as_str());
            let help = match nearest(function, names) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("write `fn {function}({list}) {{ .. }}`"),
            };
            let message = format!("there is no function `{function}` in it");
            return Some(Fault { source: Arc::clone(&self.main), at: None, message, help: Some(help) });
        }
        if own.any(|(_, arity)| *arity == parameters.len()) {
            return None;
        }
        let (at, written) = self.definition(function)?;
        let message = format!("`{written}` must take {}: `{function}({list})`", count(parameters.len()));
        Some(Fault { source: Arc::clone(&self.main), at: Some(at), message, help: None })
    }

    /// Hooks that take something else than they are given, and functions that nobody calls and that are nearly named like
    /// one. `named` are those that the scenario names itself.
    pub fn misnamed(&self, named: &[&str]) -> Vec<Fault> {
        let mut faults: Vec<Fault> = HOOKS
            .iter()
            .filter(|(hook, _)| self.has(hook))
            .filter_map(|(hook, parameters)| self.lacks(hook, parameters))
            .collect();
        for (name, _) in &self.functions {
            let hooks = HOOKS.iter().map(|(hook, _)| *hook);
            let Some(near) = nearest(name, hooks.clone()).filter(|near| near != name) else { continue };
            if named.contains(&name.as_str()) || self.is_called(name) || self.has(near) {
                continue;
            }
            let Some((at, _)) = self.definition(name) else { continue };
            let hooks: Vec<&str> = hooks.collect();
            faults.push(Fault {
                source: Arc::clone(&self.main),
                at: Some(at),
                message: format!("nothing calls `{name}`; the hooks are {}", hooks.join(", ")),
                help: Some(format!("did you mean `{near}`?")),
            });
        }
        faults
    }

    /// Whether the text mentions a function beside its definition.
    fn is_called(&self, name: &str) -> bool {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let text = &self.main.text;
        text.match_indices(name).any(|(at, _)| {
            let (before, after) = (&text[..at], &text[at + name.len()..]);
            !before.ends_with(word) && !after.starts_with(word) && !before.trim_end().ends_with("fn")
        })
    }

    /// Line and column of a function's definition, and how it is written.
    fn definition(&self, name: &str) -> Option<((u32, u32), String)> {
        static DEFINITION: LazyLock<Regex> = LazyLock::new(|| {
            Regex::new(r"\bfn\s+(\w+)\s*\(([^)]*)\)").expect("the pattern is a literal that a test compiles")
        });
        let text = &self.main.text;
        let found = DEFINITION.captures_iter(text).find(|found| &found[1] == name)?;
        let start = found.get(1)?.start();
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.matches('\n').count() + 1;
        let column = before[line_start..].chars().count() + 1;
        Some(((line as u32, column as u32), format!("{name}({})", found[2].trim())))
    }

    /// Makes a prompt with `function(ctx)`.
    ///
    /// # Errors
    /// When the function fails or gives back something else than a text, or a map with `prompt` and `output_tokens`.
    pub fn prompt(&self, function: &str, context: &Context) -> Result<Prompt, HookError> {
        let call = self.call_of(function, context.seed, None);
        let given = (context.clone(),);
        let error = |fault| hook_error(function, &["ctx"], fault, context.to_string());
        self.call(function, given, call).and_then(|value| self.as_prompt(function, value)).map_err(error)
    }

    /// The next turn of a session by `next_turn(session)`; `None` when the hook ends the session with `()`.
    ///
    /// # Errors
    /// As for [`Self::prompt`].
    pub fn next_turn(&self, session: &Session) -> Result<Option<Prompt>, HookError> {
        const NAME: &str = "next_turn";
        let call = self.call_of(NAME, crate::sample::key(&[session.context.seed, session.turn.into()]), None);
        let given = (session.clone(),);
        let error = |fault| hook_error(NAME, &["session"], fault, session.to_string());
        let value = self.call(NAME, given, call).map_err(error)?;
        if value.is_unit() { Ok(None) } else { self.as_prompt(NAME, value).map(Some).map_err(error) }
    }

    /// The request as `request(req)` wants it.
    ///
    /// # Errors
    /// When the function fails, gives back something else than a request, or one that can not be sent.
    pub fn request(&self, request: Request) -> Result<Request, HookError> {
        const NAME: &str = "request";
        let call = self.call_of(NAME, request.context.seed, None);
        let received = request.head();
        let changed = self.call(NAME, (request,), call).and_then(|value| {
            let request = value.try_cast_result::<Request>().map_err(|value| {
                let what = described(&value);
                self.whole(
                    NAME,
                    format!("it must give back the request, but gives back {what}"),
                    "end it with `req`",
                )
            })?;
            self.sendable(request)
        });
        changed.map_err(|fault| hook_error(NAME, &["req"], fault, received.to_string()))
    }

    fn sendable(&self, request: Request) -> Result<Request, Fault> {
        if !(1..=i64::from(TokenCount::MAX)).contains(&request.output_tokens) {
            let message =
                format!("`req.output_tokens` is {}, which is no number of tokens", request.output_tokens);
            return Err(self.whole("request", message, "an answer has at least 1 token"));
        }
        if request.new_prompt.as_ref().is_some_and(|prompt| prompt.is_empty()) {
            return Err(self.whole(
                "request",
                "`req.prompt` is empty".into(),
                "a prompt has at least 1 token",
            ));
        }
        let bad = request.body.iter().find(|(_, value)| json(value).is_none());
        match bad {
            Some((key, value)) => {
                let message = format!("`req.body.{key}` is {}, which JSON has no form for", described(value));
                Err(self.whole("request", message, "a body holds texts, numbers, booleans, lists and maps"))
            }
            None => Ok(request),
        }
    }

    /// Judges a response with `function(req, res)`.
    ///
    /// # Errors
    /// When the function fails, or gives back something else than true, false or a text that says what is wrong.
    pub fn check(
        &self,
        function: &str,
        request: &Request,
        response: &Response,
    ) -> Result<Finding, HookError> {
        let recorded = Arc::new(Recorded { names: Arc::clone(&self.metrics), values: Mutex::default() });
        let call = self.call_of(function, request.context.seed, Some(Arc::clone(&recorded)));
        let given = (request.clone(), response.clone());
        let error = |fault| {
            hook_error(function, &["req", "res"], fault, format!("{request}, and the response {response}"))
        };
        let value = self.call(function, given, call).map_err(error)?;
        let fault = match (value.as_bool(), value.as_immutable_string_ref()) {
            (Ok(true), _) => None,
            (Ok(false), _) => Some(format!("`{function}` says no")),
            (_, Ok(reason)) => Some(reason.to_string()),
            _ => {
                let message = format!(
                    "it must give back true, false or a reason, but gives back {}",
                    described(&value)
                );
                return Err(error(self.whole(
                    function,
                    message,
                    "a text says why the response does not pass",
                )));
            }
        };
        let recorded = std::mem::take(&mut *recorded.values.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Finding { fault, recorded })
    }

    fn call_of(&self, hook: &str, seed: u64, recorded: Option<Arc<Recorded>>) -> Call {
        Call { rng: Rng::new(seed, hook, Arc::clone(&self.tokenizer)), recorded }
    }

    fn call(&self, function: &str, given: impl FuncArgs, call: Call) -> Result<Dynamic, Fault> {
        BEGUN.set(Some(Instant::now()));
        let (tag, mut scope) = (Dynamic::from(call), Scope::new());
        let result = if self.imports {
            let options = CallFnOptions::new().with_tag(tag).eval_ast(true);
            self.engine.call_fn_with_options::<Dynamic>(options, &mut scope, &self.ast, function, given)
        } else {
            self.call_resolved(function, given, tag, &mut scope)
        };
        result.map_err(|error| {
            let mut fault = fault(&self.texts, *error);
            if fault.at.is_none() {
                // Of a limit that is exceeded Rhai does not tell the place: it is somewhere in the function.
                fault.at = self.definition(function).map(|(at, _)| at);
            }
            fault
        })
    }

    /// Calls a function of a script that is whole in itself: what a name means is then the same in every call.
    fn call_resolved(
        &self,
        function: &str,
        given: impl FuncArgs,
        tag: Dynamic,
        scope: &mut Scope<'_>,
    ) -> Result<Dynamic, Box<EvalAltResult>> {
        let all = || self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        let mut resolved = all().pop().unwrap_or_default();
        let mut global = self.engine.new_global_runtime_state();
        global.lib.push(self.ast.shared_lib().clone());
        global.tag = tag;
        let mut context = EvalContext::new(&self.engine, &mut global, &mut resolved.caches, scope, None);
        let value = context.call_fn::<Dynamic>(function, given)?;
        resolved.calls += 1;
        if resolved.calls < Resolved::CALLS {
            all().push(resolved);
        }
        Ok(value)
    }

    /// A fault of a function's result.
    fn whole(&self, function: &str, message: String, help: &str) -> Fault {
        let at = self.definition(function).map(|(at, _)| at);
        Fault { source: Arc::clone(&self.main), at, message, help: Some(help.to_owned()) }
    }

    fn as_prompt(&self, function: &str, value: Dynamic) -> Result<Prompt, Fault> {
        let help = "a text, or a map such as `#{ prompt: \"..\", output_tokens: 64 }`";
        let prompt = |text: ImmutableString, output_tokens| {
            if text.is_empty() {
                return Err(self.whole(
                    function,
                    "it gives back an empty prompt".into(),
                    "a prompt has at least 1 token",
                ));
            }
            Ok(Prompt { text: text.into(), output_tokens })
        };
        if value.is_string() {
            return prompt(value.cast(), None);
        }
        let map = value.try_cast_result::<rhai::Map>();
        let map =
            map.map_err(|value| self.whole(function, format!("it gives back {}", described(&value)), help))?;
        if let Some(key) = map.keys().find(|key| !matches!(key.as_str(), "prompt" | "output_tokens")) {
            return Err(self.whole(function, format!("it gives back a map with `{key}`"), help));
        }
        let text = map.get("prompt").and_then(|text| text.clone().into_immutable_string().ok());
        let text = text.ok_or_else(|| {
            self.whole(function, "it gives back a map without a text `prompt`".into(), help)
        })?;
        let tokens = map.get("output_tokens").filter(|tokens| !tokens.is_unit());
        let tokens = tokens.map(|tokens| {
            let count = tokens.as_int().ok().and_then(|n| u32::try_from(n).ok());
            count.filter(|n| (1..=TokenCount::MAX).contains(n)).ok_or_else(|| {
                self.whole(
                    function,
                    format!("it gives back `output_tokens: {tokens}`, which is no number of tokens"),
                    help,
                )
            })
        });
        prompt(text, tokens.transpose()?)
    }
}

/// What a value is, for messages.
pub(super) fn described(value: &Dynamic) -> String {
    match value.type_name() {
        "()" => "nothing".into(),
        "bool" | "i64" | "f64" => format!("`{value}`"),
        "string" => "a text".into(),
        "array" => "a list".into(),
        "map" => "a map".into(),
        "Fn" => "a function".into(),
        other => format!("a value of type {other}"),
    }
}

fn count(parameters: usize) -> &'static str {
    if parameters == 1 { "one parameter" } else { "two parameters" }
}

fn hook_error(function: &str, parameters: &[&str], fault: Fault, received: String) -> HookError {
    HookError { hook: format!("{function}({})", parameters.join(", ")), fault: Box::new(fault), received }
}

/// The text that the scenario names.
fn main_text(hooks: &Hooks, root: &Path) -> Result<ScriptText, Vec<Fault>> {
    match (&hooks.file, &hooks.inline) {
        (Some(file), _) => {
            let name = file.to_string_lossy().replace('\\', "/");
            let read = read(&root.join(file));
            let text = |text| ScriptText { name: name.clone(), offset: (0, 0), inline: false, text };
            read.map(text).map_err(|error| {
                let source = Arc::new(text(String::new()));
                vec![Fault {
                    source,
                    at: None,
                    message: format!("the file can not be read: {error}"),
                    help: None,
                }]
            })
        }
        (None, inline) => {
            let origin = hooks.origin.as_ref();
            Ok(ScriptText {
                name: origin.map_or_else(|| "hooks.inline".to_owned(), |origin| origin.file.clone()),
                offset: origin.map_or((0, 0), |origin| (origin.line, origin.column)),
                inline: true,
                text: inline.clone().unwrap_or_default(),
            })
        }
    }
}

/// Line and column of a place in a text. What ends too early is shown at the end of what is written.
fn within(text: &str, line: usize, column: usize) -> (u32, u32) {
    let written = text.trim_end();
    let (lines, last) = (written.lines().count().max(1), written.lines().last().unwrap_or_default());
    if line > lines {
        (lines as u32, last.chars().count().max(1) as u32)
    } else {
        (line as u32, column as u32)
    }
}

/// An error of Rhai in one of these texts, the first of which is the main one.
fn fault(texts: &[Arc<ScriptText>], error: EvalAltResult) -> Fault {
    let (file, at, error) = innermost(error);
    let source = texts.iter().find(|text| text.name == file).or(texts.first());
    let source = source.map_or_else(
        || Arc::new(ScriptText { name: file, offset: (0, 0), inline: false, text: String::new() }),
        Arc::clone,
    );
    let at = at.line().map(|line| within(&source.text, line, at.position().unwrap_or(1)));
    let (message, help) = words(&error);
    Fault { source, at, message, help }
}
