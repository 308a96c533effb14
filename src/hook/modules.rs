//! `import`, kept inside the scenario's folder.

use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rhai::{Engine, EvalAltResult, Module, ModuleResolver, Position, Scope, Shared};
use rustc_hash::FxHashMap;

use super::error::ScriptText;
use super::limits;

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;

/// Reads and compiles imported files. All of them are read while the script is compiled; afterwards no file is touched.
#[derive(Debug, Clone, Default)]
pub(super) struct Jail(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    root: PathBuf,
    sealed: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    modules: FxHashMap<PathBuf, Shared<Module>>,
    texts: Vec<Arc<ScriptText>>,
    /// The files that are being compiled, each imported by the one before.
    open: Vec<PathBuf>,
}

/// Reads a script: at most [`limits::FILE`] bytes of UTF-8.
pub(super) fn read(path: &Path) -> std::result::Result<String, String> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    if !file.metadata().is_ok_and(|data| data.is_file()) {
        return Err("it is no file".into());
    }
    file.take(limits::FILE + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > limits::FILE {
        return Err(format!("it has more than {} bytes", limits::FILE));
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".into())
}

impl Jail {
    /// `root` is the scenario's folder, in canonical form.
    pub(super) fn new(root: PathBuf) -> Self {
        Self(Arc::new(Inner { root, ..Inner::default() }))
    }

    /// No file is read any more.
    pub(super) fn seal(&self) {
        self.0.sealed.store(true, Ordering::Relaxed);
    }

    /// The files that were imported, in the order in which they were first read.
    pub(super) fn texts(&self) -> Vec<Arc<ScriptText>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).texts.clone()
    }

    /// The file that a path names in a script of this name.
    fn find(&self, source: Option<&str>, path: &str) -> std::result::Result<PathBuf, String> {
        let wanted = Path::new(path);
        let plain = wanted
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir | Component::ParentDir));
        if path.is_empty() || path.contains(['\0', '\\']) || !plain {
            return Err("a path is relative to the file that imports it, with `/` between names".into());
        }
        let folder = Path::new(source.unwrap_or_default()).parent().unwrap_or(Path::new(""));
        let mut file = self.0.root.join(folder).join(wanted);
        if file.extension().is_none() {
            file.set_extension("rhai");
        }
        let file = file.canonicalize().map_err(|error| error.to_string())?;
        if file.starts_with(&self.0.root) {
            Ok(file)
        } else {
            Err("it lies outside the scenario's folder".into())
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn compile(&self, engine: &Engine, file: &Path, path: &str, at: Position) -> Result<Shared<Module>> {
        let text = read(file).map_err(|error| refusal(path, &error, at))?;
        let name = file.strip_prefix(&self.0.root).unwrap_or(file).to_string_lossy().replace('\\', "/");
        self.state().texts.push(Arc::new(ScriptText {
            name: name.clone(),
            offset: (0, 0),
            inline: false,
            text: text.clone(),
        }));
        let inside = |error: Box<EvalAltResult>| EvalAltResult::ErrorInModule(name.clone(), error, at).into();
        let mut ast = engine
            .compile_with_scope(&super::script::constants(), &text)
            .map_err(|error| inside(error.into()))?;
        ast.set_source(name.as_str());
        Module::eval_ast_as_new(Scope::new(), &ast, engine).map(Shared::new).map_err(inside)
    }
}

#[expect(clippy::unnecessary_box_returns, reason = "Rhai's results hold boxed errors")]
fn refusal(path: &str, reason: &str, at: Position) -> Box<EvalAltResult> {
    EvalAltResult::ErrorRuntime(format!("can not import `{path}`: {reason}").into(), at).into()
}

impl ModuleResolver for Jail {
    fn resolve(
        &self,
        engine: &Engine,
        source: Option<&str>,
        path: &str,
        at: Position,
    ) -> Result<Shared<Module>> {
        if self.0.sealed.load(Ordering::Relaxed) {
            // What was imported at the top of a file is found here again, by the way it was written.
            let key = PathBuf::from(format!("{}\0{path}", source.unwrap_or_default()));
            let known = self.state().modules.get(&key).cloned();
            return known.ok_or_else(|| {
                refusal(path, "`import` stands at the top of a file, with a literal path", at)
            });
        }
        let file = self.find(source, path).map_err(|error| refusal(path, &error, at))?;
        let known = self.state().modules.get(&file).cloned();
        let module = if let Some(module) = known {
            module
        } else {
            if self.state().open.contains(&file) {
                return Err(refusal(path, "the files import each other in a circle", at));
            }
            if self.state().open.len() >= limits::MODULES {
                return Err(refusal(path, "imports are nested too deep", at));
            }
            self.state().open.push(file.clone());
            let module = self.compile(engine, &file, path, at);
            self.state().open.pop();
            module?
        };
        let mut state = self.state();
        state
            .modules
            .insert(PathBuf::from(format!("{}\0{path}", source.unwrap_or_default())), Shared::clone(&module));
        state.modules.insert(file, Shared::clone(&module));
        Ok(module)
    }
}
