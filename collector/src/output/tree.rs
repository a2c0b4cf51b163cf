//! The call tree: samples merged by process name and calls from the outermost.

use std::collections::HashMap;
use std::sync::Arc;

use super::names::{NO_STACK, Names, samples};
use crate::model::{FrameKind, Profile};

/// What a node stands for; its colour in pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Class {
    /// All samples together.
    Root,
    /// A process, or all of one name.
    Process,
    /// Kernel code.
    Kernel,
    /// The program's own code.
    Program,
    /// Code of a library, or of an unknown file.
    Library,
    /// Code made at run time.
    Jit,
}

/// A function as called by its ancestors.
#[derive(Debug)]
pub(super) struct Node {
    /// What it is called.
    pub name: Arc<str>,
    /// What it is.
    pub class: Class,
    /// Module of the first frame merged into it.
    pub module: String,
    /// Samples that ended here.
    pub own: u64,
    /// Samples that ended here or below.
    pub total: u64,
    /// Nodes called from here, indices into [`Tree::nodes`].
    pub children: Vec<usize>,
}

/// All samples of a profile; node 0 is the root. Children follow their parent.
#[derive(Debug)]
pub(super) struct Tree {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// Calls below the root on the longest path, processes included.
    pub depth: usize,
}

impl Tree {
    /// The tree of `profile`, with children by name.
    pub fn new(profile: &Profile, names: &Names<'_>) -> Self {
        let mut builder = Builder {
            nodes: vec![Node {
                name: "all".into(),
                class: Class::Root,
                module: String::new(),
                own: 0,
                total: 0,
                children: Vec::new(),
            }],
            index: HashMap::new(),
        };
        let mut depth = 0;
        for sample in samples(profile) {
            let mut path = vec![0];
            let mut at = builder.child(0, &names.process(sample.process), Class::Process, String::new);
            path.push(at);
            for call in names.outermost_first(sample.stack) {
                let class = match call.frame.kind {
                    FrameKind::Kernel => Class::Kernel,
                    FrameKind::Jit => Class::Jit,
                    FrameKind::Native if names.in_executable(call.frame, sample.process) => Class::Program,
                    FrameKind::Native => Class::Library,
                };
                at = builder.child(at, call.name, class, || names.module(call.frame));
                path.push(at);
            }
            if path.len() == 2 {
                at = builder.child(at, &NO_STACK.into(), Class::Library, String::new);
                path.push(at);
            }
            depth = depth.max(path.len() - 1);
            builder.add(&path, sample.count);
        }
        let mut nodes = builder.nodes;
        let keys: Vec<_> = nodes.iter().map(|node| (node.name.clone(), node.class)).collect();
        for node in &mut nodes {
            node.children.sort_unstable_by(|a, b| keys.get(*a).cmp(&keys.get(*b)));
        }
        Self { nodes, depth }
    }

    /// The node behind an index taken from this tree.
    pub fn get(&self, index: usize) -> Option<&Node> {
        self.nodes.get(index)
    }

    /// Every sample.
    pub fn total(&self) -> u64 {
        self.nodes.first().map_or(0, |root| root.total)
    }
}

struct Builder {
    nodes: Vec<Node>,
    index: HashMap<(usize, Arc<str>, Class), usize>,
}

impl Builder {
    fn child(
        &mut self,
        parent: usize,
        name: &Arc<str>,
        class: Class,
        module: impl FnOnce() -> String,
    ) -> usize {
        let nodes = &mut self.nodes;
        *self.index.entry((parent, name.clone(), class)).or_insert_with(|| {
            let index = nodes.len();
            nodes.push(Node {
                name: name.clone(),
                class,
                module: module(),
                own: 0,
                total: 0,
                children: Vec::new(),
            });
            if let Some(parent) = nodes.get_mut(parent) {
                parent.children.push(index);
            }
            index
        })
    }

    fn add(&mut self, path: &[usize], count: u64) {
        for index in path {
            if let Some(node) = self.nodes.get_mut(*index) {
                node.total = node.total.saturating_add(count);
            }
        }
        if let Some(leaf) = path.last().and_then(|leaf| self.nodes.get_mut(*leaf)) {
            leaf.own = leaf.own.saturating_add(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::fixture;

    #[test]
    fn totals_are_own_plus_children() {
        let profile = fixture::server();
        let tree = Tree::new(&profile, &Names::new(&profile));
        assert_eq!(tree.total(), profile.samples.iter().map(|sample| sample.count).sum::<u64>());
        for node in &tree.nodes {
            let below: u64 = node.children.iter().map(|child| tree.nodes[*child].total).sum();
            assert_eq!(node.total, node.own + below, "{}", node.name);
        }
    }

    #[test]
    fn processes_of_one_name_are_one_node() {
        let profile = fixture::server();
        let tree = Tree::new(&profile, &Names::new(&profile));
        let names: Vec<&str> = tree.nodes[0].children.iter().map(|child| &*tree.nodes[*child].name).collect();
        let mut once = names.clone();
        once.dedup();
        assert_eq!(names, once);
        assert!(names.len() < profile.processes.len());
        assert!(names.is_sorted());
    }

    #[test]
    fn empty_profiles_have_a_root() {
        let profile = Profile::default();
        let tree = Tree::new(&profile, &Names::new(&profile));
        assert_eq!((tree.nodes.len(), tree.depth, tree.total()), (1, 0, 0));
    }
}
