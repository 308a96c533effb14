//! Dotted paths into the tree: `workloads.chat.load.concurrency`, as `--set` and `matrix` write them.

use super::node::{Entry, Node, Tree};
use super::source::{Sources, Span};

/// One name of a path.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The name, or an index into a list.
    pub name: String,
    /// Where it stands.
    pub span: Span,
}

/// Splits a dotted path that stands at `at`. Each step gets its own place where the path stands there literally.
pub fn split(path: &str, at: Span, sources: &Sources) -> Vec<Step> {
    let literal = sources.text(at).find(path);
    let mut start = 0;
    path.split('.')
        .map(|name| {
            let span = literal.map_or(at, |first| at.part(first + start..first + start + name.len()));
            start += name.len() + 1;
            Step { name: name.to_owned(), span }
        })
        .collect()
}

/// Why a path leads nowhere: the step that fails, and the reason.
#[derive(Debug, PartialEq)]
pub struct DeadEnd {
    /// Where the failing step stands.
    pub span: Span,
    /// Why it fails.
    pub reason: String,
}

/// Puts a value at the end of a path, making the maps on the way. `combine` says what becomes of a value that is there.
pub fn put(
    node: &mut Node,
    path: &[Step],
    value: Node,
    combine: fn(Node, Node) -> Node,
) -> Result<(), DeadEnd> {
    let Some((step, rest)) = path.split_first() else {
        let old = std::mem::replace(node, Node { span: value.span, tree: Tree::Null });
        *node = combine(old, value);
        return Ok(());
    };
    if node.tree == Tree::Null {
        *node = Node::empty_map(node.span);
    }
    let description = node.described();
    match &mut node.tree {
        Tree::Map(map) => {
            // a name may contain dots: the longest key that is there wins
            let longest = (1..=path.len())
                .rev()
                .map(|n| (n, joined(&path[..n])))
                .find(|(_, key)| map.contains_key(key));
            let (length, key) = longest.unwrap_or((1, step.name.clone()));
            let rest = &path[length..];
            if rest.is_empty() && key == "kind" {
                let new = Node {
                    span: step.span,
                    tree: Tree::Map([(key, Entry { key: step.span, node: value })].into()),
                };
                let old = std::mem::replace(node, Node { span: step.span, tree: Tree::Null });
                *node = super::node::merge(old, new);
                return Ok(());
            }
            let fresh = || Entry { key: step.span, node: Node { span: step.span, tree: Tree::Null } };
            put(&mut map.entry(key).or_insert_with(fresh).node, rest, value, combine)
        }
        Tree::List(list) => {
            let length = list.len();
            match step.name.parse::<usize>().ok().and_then(|at| list.get_mut(at)) {
                Some(item) => put(item, rest, value, combine),
                None => Err(DeadEnd {
                    span: step.span,
                    reason: format!("{description} of {length} stands here, counted from 0"),
                }),
            }
        }
        _ => Err(DeadEnd { span: step.span, reason: format!("{description} stands here, not a map") }),
    }
}

fn joined(path: &[Step]) -> String {
    path.iter().map(|step| step.name.as_str()).collect::<Vec<_>>().join(".")
}
