//! Templates: where they come from and how they are rendered.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use handlebars::{Context, Handlebars, RenderErrorReason, TemplateErrorReason};

use super::{RunReport, context, format};
use crate::nearest::nearest;

/// The templates that ship with the program: name and source.
pub const EMBEDDED: &[(&str, &str)] = &[
    ("summary.txt", include_str!("../../templates/summary.txt.hbs")),
    ("table.txt", include_str!("../../templates/table.txt.hbs")),
    ("report.md", include_str!("../../templates/report.md.hbs")),
    ("report.html", include_str!("../../templates/report.html.hbs")),
    ("junit.xml", include_str!("../../templates/junit.xml.hbs")),
    ("step-summary.md", include_str!("../../templates/step-summary.md.hbs")),
];

/// The templates of comparisons that ship with the program: what they see is a comparison, not a report.
const COMPARISONS: &[(&str, &str)] = &[
    ("compare.txt", include_str!("../../templates/compare.txt.hbs")),
    ("compare.md", include_str!("../../templates/compare.md.hbs")),
];

/// The templates of dialects that ship with the program: what they see is a translation.
const DIALECTS: &[(&str, &str)] = &[
    ("dialect.txt", include_str!("../../templates/dialect.txt.hbs")),
    ("dialect.md", include_str!("../../templates/dialect.md.hbs")),
];

/// What a template writes, which decides how values are escaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// HTML.
    Html,
    /// Markdown, tables included.
    Markdown,
    /// XML 1.0.
    Xml,
    /// Plain text: only control characters are taken out.
    Text,
    /// Nothing is escaped: JSON through the `json` helper, CSV, Prometheus text.
    Raw,
}

impl Kind {
    /// The kind of a template by its name: `x.html.hbs` and `x.html` write HTML; an unknown extension writes raw.
    pub fn of(name: &str) -> Self {
        let name = name.strip_suffix(".hbs").unwrap_or(name);
        match Path::new(name).extension().and_then(|extension| extension.to_str()) {
            Some("html" | "htm") => Self::Html,
            Some("md" | "markdown") => Self::Markdown,
            Some("xml") => Self::Xml,
            Some("txt") => Self::Text,
            _ => Self::Raw,
        }
    }
}

/// A template's source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// What messages call it: its name, or the file it was read from.
    pub name: String,
    /// The Handlebars source.
    pub source: Cow<'static, str>,
    /// What it writes.
    pub kind: Kind,
}

/// Why a report could not be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// No template of that name.
    #[error("no template `{name}`: looked for {}, and among those that ship with the program ({embedded}){hint}", paths(.looked))]
    NotFound {
        /// The name.
        name: String,
        /// The files that were looked for.
        looked: Vec<PathBuf>,
        /// The embedded names.
        embedded: String,
        /// A name that may be meant.
        hint: String,
    },
    /// The file is there and can not be read.
    #[error("can not read the template {}: {problem}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// The template is wrong.
    #[error("template `{name}`{place}: {problem}")]
    Template {
        /// Its name.
        name: String,
        /// Line and column, where known.
        place: String,
        /// What is wrong, and what to do.
        problem: String,
    },
}

fn paths(looked: &[PathBuf]) -> String {
    looked.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// An embedded template by its name, with or without `.hbs`.
pub fn embedded(name: &str) -> Option<Template> {
    let name = name.strip_suffix(".hbs").unwrap_or(name);
    let (name, source) =
        EMBEDDED.iter().chain(COMPARISONS).chain(DIALECTS).find(|(known, _)| *known == name)?;
    Some(Template { name: (*name).into(), source: Cow::Borrowed(source), kind: Kind::of(name) })
}

/// Finds a template: as a file in `beside` (the scenario's folder), then in its `templates/`, then among the embedded
/// ones. The name is tried as it is and with `.hbs`.
pub fn find(name: &str, beside: &Path) -> Result<Template, RenderError> {
    let mut looked = Vec::new();
    for folder in [beside.to_owned(), beside.join("templates")] {
        for file in [name.to_owned(), format!("{name}.hbs")] {
            let path = folder.join(file);
            if path.is_file() {
                let source = std::fs::read_to_string(&path).map_err(|error| RenderError::Unreadable {
                    path: path.clone(),
                    problem: error.to_string(),
                })?;
                return Ok(Template {
                    kind: Kind::of(name),
                    name: path.display().to_string(),
                    source: Cow::Owned(source),
                });
            }
            looked.push(path);
        }
    }
    embedded(name).ok_or_else(|| {
        let near = nearest(name, EMBEDDED.iter().map(|(known, _)| *known));
        RenderError::NotFound {
            name: name.into(),
            looked,
            embedded: EMBEDDED.iter().map(|(known, _)| *known).collect::<Vec<_>>().join(", "),
            hint: near.map(|known| format!("; is `{known}` meant?")).unwrap_or_default(),
        }
    })
}

impl Template {
    /// Whether it can be parsed: tells before a run what would be told after it. Those that ship with the program can, and
    /// parsing them takes longer than all else that a scenario needs before its run.
    pub fn check(&self) -> Result<(), RenderError> {
        match self.source {
            Cow::Borrowed(_) => Ok(()),
            Cow::Owned(_) => registry(self).map(drop),
        }
    }
}

/// Renders a report with an embedded template.
pub fn render_standard(report: &RunReport, name: &str) -> Result<String, RenderError> {
    let template = embedded(name).map_or_else(|| find(name, Path::new("templates")), Ok)?;
    render(report, &template)
}

/// Renders a report. A pure function of both; a variable that does not exist is an error.
pub fn render(report: &RunReport, template: &Template) -> Result<String, RenderError> {
    render_value(context::context(report), template)
}

/// Renders what a template sees.
pub(super) fn render_value(context: serde_json::Value, template: &Template) -> Result<String, RenderError> {
    let context = Context::from(context);
    registry(template)?.render_with_context(&template.name, &context).map_err(|error| {
        let place = error.line_no.zip(error.column_no);
        problem(template, place, explain(error.reason()))
    })
}

/// A registry with this one template, its escaping and the helpers.
fn registry(template: &Template) -> Result<Handlebars<'static>, RenderError> {
    let mut registry = Handlebars::new();
    registry.set_strict_mode(true);
    registry.set_prevent_indent(true);
    match template.kind {
        Kind::Html => registry.register_escape_fn(handlebars::html_escape),
        Kind::Markdown => registry.register_escape_fn(format::escape_markdown),
        Kind::Xml => registry.register_escape_fn(format::escape_xml),
        Kind::Text => registry.register_escape_fn(format::escape_text),
        Kind::Raw => registry.register_escape_fn(handlebars::no_escape),
    }
    format::register(&mut registry);
    registry.register_template_string(&template.name, &template.source).map_err(|error| {
        let text = match error.reason() {
            TemplateErrorReason::InvalidSyntax(_) => {
                "the syntax is broken here: a tag or a block that is not closed, perhaps".into()
            }
            other => lower(&other.to_string()),
        };
        problem(template, error.pos(), text)
    })?;
    Ok(registry)
}

fn problem(template: &Template, place: Option<(usize, usize)>, problem: String) -> RenderError {
    let mut text = String::new();
    if let Some((line, column)) = place {
        let _ = write!(text, ", line {line}, column {column}");
    }
    RenderError::Template { name: template.name.clone(), place: text, problem }
}

fn explain(reason: &RenderErrorReason) -> String {
    match reason {
        RenderErrorReason::MissingVariable(Some(name)) => {
            format!("there is no `{name}` here; `run.json` shows what there is")
        }
        RenderErrorReason::MissingVariable(None) => {
            "a value that is used here does not exist; `run.json` shows what there is".into()
        }
        RenderErrorReason::HelperNotFound(name) => format!("there is no helper `{name}`"),
        RenderErrorReason::ParamNotFoundForIndex(helper, at) => {
            format!("the helper `{helper}` lacks its parameter {}", at + 1)
        }
        other => lower(&other.to_string()),
    }
}

/// Starts a message of the template engine as ours start: in lower case.
fn lower(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}
