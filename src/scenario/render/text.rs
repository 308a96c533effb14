//! For people: the source's lines with marks under them, as rustc does.

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use crate::scenario::{Diagnostic, FileId, Severity, Sources, Span};

/// One block per diagnostic, an empty line between two.
pub fn render(sources: &Sources, diagnostics: &[Diagnostic], color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let mut out = String::new();
    for diagnostic in diagnostics {
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(renderer.render(&[group(sources, diagnostic)]).trim_end());
        out.push('\n');
    }
    out
}

fn group<'a>(sources: &'a Sources, diagnostic: &'a Diagnostic) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = Group::with_title(level.primary_title(diagnostic.message.as_str()));
    for file in files(diagnostic) {
        let source = sources.get(file);
        if source.text.is_empty() {
            group = group.element(Origin::path(source.name.as_str()));
            continue;
        }
        let snippet = Snippet::source(source.text.as_str()).path(source.name.as_str());
        group = group.element(snippet.annotations(annotations(sources, diagnostic, file)));
    }
    for note in &diagnostic.notes {
        group = group.element(Level::NOTE.message(note.as_str()));
    }
    for help in &diagnostic.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    group
}

/// The texts it points into, the one of its own place first.
fn files(diagnostic: &Diagnostic) -> Vec<FileId> {
    let spans = diagnostic.span.into_iter().chain(diagnostic.related.iter().map(|label| label.span));
    let mut files: Vec<FileId> = Vec::new();
    for span in spans {
        if !files.contains(&span.file) {
            files.push(span.file);
        }
    }
    files
}

fn annotations<'a>(sources: &Sources, diagnostic: &'a Diagnostic, file: FileId) -> Vec<Annotation<'a>> {
    let range = |span: Span| {
        let span = first_line(sources, span);
        span.start..span.end
    };
    let own = diagnostic
        .span
        .filter(|span| span.file == file)
        .map(|span| AnnotationKind::Primary.span(range(span)).label(diagnostic.label.as_deref()));
    let others = diagnostic.related.iter().filter(|label| label.span.file == file);
    let others =
        others.map(|label| AnnotationKind::Context.span(range(label.span)).label(label.text.as_str()));
    own.into_iter().chain(others).collect()
}

/// A mark stays on one line: a map that runs over many would hide what is meant.
fn first_line(sources: &Sources, span: Span) -> Span {
    let span = sources.clamp(span);
    let text = sources.text(span);
    let end = text.find(['\n', '\r']).unwrap_or(text.len());
    Span { end: span.start + end, ..span }
}
