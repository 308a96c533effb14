//! The tree that every format is read into: values that know where they stand.

use std::ops::Range;

use indexmap::IndexMap;
use serde_json::{Number, Value};

use super::source::{Sources, Span};

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The value's text; of a map or list, from its start to the end of its last part.
    pub span: Span,
    /// The value.
    pub tree: Tree,
}

/// A map in the order of its file.
pub type Map = IndexMap<String, Entry>;

/// The value of a key.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Where the key stands.
    pub key: Span,
    /// The value.
    pub node: Node,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Tree {
    /// Nothing.
    Null,
    /// A truth value.
    Bool(bool),
    /// A finite number.
    Number(Number),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map.
    Map(Map),
}

impl Node {
    /// An empty map at a place.
    pub fn empty_map(span: Span) -> Self {
        Self { span, tree: Tree::Map(Map::new()) }
    }

    /// The map, if it is one.
    pub fn map(&self) -> Option<&Map> {
        if let Tree::Map(map) = &self.tree { Some(map) } else { None }
    }

    /// The map, if it is one.
    pub fn map_mut(&mut self) -> Option<&mut Map> {
        if let Tree::Map(map) = &mut self.tree { Some(map) } else { None }
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        if let Tree::Text(text) = &self.tree { Some(text) } else { None }
    }

    /// The list, if it is one.
    pub fn list(&self) -> Option<&[Node]> {
        if let Tree::List(list) = &self.tree { Some(list) } else { None }
    }

    /// The value of a key, if this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.map()?.get(key)
    }

    /// The node at the end of a path, as far as it exists.
    pub fn at<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Option<&Self> {
        path.into_iter().try_fold(self, |node, step| node.step(step).map(|(node, _)| node))
    }

    /// The node one step down, and its key's place where it has a key.
    pub fn step(&self, step: &str) -> Option<(&Self, Option<Span>)> {
        match &self.tree {
            Tree::Map(map) => map.get(step).map(|entry| (&entry.node, Some(entry.key))),
            Tree::List(list) => {
                step.parse::<usize>().ok().and_then(|at| list.get(at)).map(|node| (node, None))
            }
            _ => None,
        }
    }

    /// The plain value.
    pub fn to_json(&self) -> Value {
        match &self.tree {
            Tree::Null => Value::Null,
            Tree::Bool(value) => Value::Bool(*value),
            Tree::Number(number) => Value::Number(number.clone()),
            Tree::Text(text) => Value::String(text.clone()),
            Tree::List(list) => Value::Array(list.iter().map(Self::to_json).collect()),
            Tree::Map(map) => {
                Value::Object(map.iter().map(|(key, entry)| (key.clone(), entry.node.to_json())).collect())
            }
        }
    }

    /// Where bytes of its text stand; the whole node where they do not stand there literally.
    pub fn part_of_text(&self, sources: &Sources, bytes: Range<usize>) -> Span {
        let text = self.text().unwrap_or_default();
        match sources.text(self.span).find(text) {
            Some(start) if text.get(bytes.clone()).is_some() => {
                self.span.part(start + bytes.start..start + bytes.end)
            }
            _ => self.span,
        }
    }

    /// How many values it holds, itself included.
    pub fn count(&self) -> usize {
        1 + match &self.tree {
            Tree::List(list) => list.iter().map(Self::count).sum::<usize>(),
            Tree::Map(map) => map.values().map(|entry| entry.node.count()).sum(),
            _ => 0,
        }
    }

    /// What it is, for messages: a list, the number 5.
    pub fn described(&self) -> String {
        describe(&self.to_json())
    }

    /// Calls `visit` on every node, parents first.
    pub fn walk(&mut self, visit: &mut impl FnMut(&mut Self)) {
        visit(self);
        match &mut self.tree {
            Tree::List(list) => list.iter_mut().for_each(|node| node.walk(visit)),
            Tree::Map(map) => map.values_mut().for_each(|entry| entry.node.walk(visit)),
            _ => {}
        }
    }
}

/// What a value is, for messages.
pub fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::Bool(value) => format!("`{value}`"),
        Value::Number(number) => format!("the number `{number}`"),
        Value::String(text) => format!("the text {}", super::diagnostic::quote(text)),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a map".into(),
    }
}

/// Lays one tree over another: maps merge key by key, everything else is replaced. Where a map's `kind` changes, the
/// whole map is replaced, since the keys of one kind mean nothing to another.
pub fn merge(base: Node, over: Node) -> Node {
    match (base.tree, over.tree) {
        (Tree::Map(mut base), Tree::Map(over_map)) => {
            if kind(&base).is_some()
                && kind(&over_map).is_some_and(|kind_over| kind(&base) != Some(kind_over))
            {
                return Node { span: over.span, tree: Tree::Map(over_map) };
            }
            for (key, entry) in over_map {
                match base.get_mut(&key) {
                    Some(old) => {
                        let lower =
                            std::mem::replace(&mut old.node, Node { span: entry.key, tree: Tree::Null });
                        *old = Entry { key: entry.key, node: merge(lower, entry.node) };
                    }
                    None => {
                        base.insert(key, entry);
                    }
                }
            }
            Node { span: over.span, tree: Tree::Map(base) }
        }
        (_, tree) => Node { span: over.span, tree },
    }
}

fn kind(map: &Map) -> Option<&Tree> {
    map.get("kind").map(|entry| &entry.node.tree)
}
