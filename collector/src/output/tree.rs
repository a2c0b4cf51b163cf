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
#[derive(Debug, Clone)]
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
    /// The same of the profile that this one is compared with.
    pub before: u64,
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
    /// Samples of each node by slots of time, ascending; empty of a tree that does not count time.
    pub times: Vec<Vec<(u32, u32)>>,
}

impl Tree {
    /// The tree of `profile`, with children by name.
    pub fn new(profile: &Profile, names: &Names<'_>) -> Self {
        let mut builder = Builder::default();
        builder.add(profile, names, Side::Now);
        builder.finish()
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

/// Nodes of a tree; calls below are counted where they come from. What this program records has fewer.
const MAX_NODES: usize = 1 << 22;

/// Which of two profiles samples belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The one that is shown.
    Now,
    /// The one that it is compared with.
    #[cfg(feature = "compare")]
    Before,
    /// The one that is shown, in a slot of time that is no earlier than the last one.
    Slot(u32),
}

/// A tree that grows.
#[derive(Debug, Clone)]
pub(super) struct Builder {
    nodes: Vec<Node>,
    times: Vec<Vec<(u32, u32)>>,
    /// Entries of `times`.
    entries: usize,
    index: HashMap<(usize, Arc<str>, Class), usize>,
    depth: usize,
    /// Whether functions of one name are one, whatever file they are in.
    pub all_of_a_name: bool,
    /// Nodes that there is room for.
    pub most_nodes: usize,
    /// What every process is called, in place of its own name.
    pub process: Option<Arc<str>>,
}

impl Default for Builder {
    fn default() -> Self {
        let root = Node {
            name: "all".into(),
            class: Class::Root,
            module: String::new(),
            own: 0,
            total: 0,
            before: 0,
            children: Vec::new(),
        };
        Self {
            nodes: vec![root],
            times: Vec::new(),
            entries: 0,
            index: HashMap::new(),
            depth: 0,
            all_of_a_name: false,
            most_nodes: MAX_NODES,
            process: None,
        }
    }
}

impl Builder {
    /// Adds a profile's samples.
    pub fn add(&mut self, profile: &Profile, names: &Names<'_>, side: Side) {
        let mut path = Vec::new();
        for sample in samples(profile) {
            path.clear();
            path.push(0);
            let process = self.process.clone().unwrap_or_else(|| names.process(sample.process));
            let mut whole = self.descend(&mut path, &process, Class::Process, String::new);
            let mut calls = names.outermost_first(sample.stack).peekable();
            if calls.peek().is_none() {
                self.descend(&mut path, &NO_STACK.into(), Class::Library, String::new);
            }
            while let Some(call) = calls.next().filter(|_| whole) {
                let class = match call.frame.kind {
                    FrameKind::Kernel => Class::Kernel,
                    FrameKind::Jit => Class::Jit,
                    #[cfg(feature = "python")]
                    FrameKind::Python => Class::Program,
                    FrameKind::Native if names.in_executable(call.frame, sample.process) => Class::Program,
                    FrameKind::Native => Class::Library,
                };
                whole = self.descend(&mut path, call.name, class, || names.module(call.frame));
            }
            self.depth = self.depth.max(path.len() - 1);
            self.count(&path, sample.count, side);
        }
    }

    /// Goes on to a node below the path's last; false where there is no room for one more.
    fn descend(
        &mut self,
        path: &mut Vec<usize>,
        name: &Arc<str>,
        class: Class,
        module: impl FnOnce() -> String,
    ) -> bool {
        let parent = path.last().copied().unwrap_or_default();
        let key = (parent, name.clone(), if self.all_of_a_name { Class::Root } else { class });
        let nodes = &mut self.nodes;
        let node = match self.index.get(&key) {
            Some(node) => *node,
            None if nodes.len() >= self.most_nodes => return false,
            None => {
                let node = nodes.len();
                nodes.push(Node {
                    name: name.clone(),
                    class,
                    module: module(),
                    own: 0,
                    total: 0,
                    before: 0,
                    children: Vec::new(),
                });
                if let Some(parent) = nodes.get_mut(parent) {
                    parent.children.push(node);
                }
                self.index.insert(key, node);
                node
            }
        };
        path.push(node);
        true
    }

    fn count(&mut self, path: &[usize], count: u64, side: Side) {
        for index in path {
            let Some(node) = self.nodes.get_mut(*index) else { continue };
            let counter = match side {
                Side::Now | Side::Slot(_) => &mut node.total,
                #[cfg(feature = "compare")]
                Side::Before => &mut node.before,
            };
            *counter = counter.saturating_add(count);
        }
        if let Side::Slot(slot) = side {
            self.count_in(slot, path, count);
        }
        let leaf = path.last().and_then(|leaf| self.nodes.get_mut(*leaf));
        if let Some(leaf) = leaf.filter(|_| matches!(side, Side::Now | Side::Slot(_))) {
            leaf.own = leaf.own.saturating_add(count);
        }
    }

    fn count_in(&mut self, slot: u32, path: &[usize], count: u64) {
        self.times.resize(self.nodes.len(), Vec::new());
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        for index in path {
            let Some(times) = self.times.get_mut(*index) else { continue };
            match times.last_mut() {
                Some((last, counted)) if *last == slot => *counted = counted.saturating_add(count),
                _ => {
                    times.push((slot, count));
                    self.entries += 1;
                }
            }
        }
    }

    /// Numbers of all slots of all nodes.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Makes one slot of every two.
    pub fn halve_slots(&mut self) {
        self.entries = 0;
        for times in &mut self.times {
            times.iter_mut().for_each(|(slot, _)| *slot /= 2);
            times.dedup_by(|(slot, count), (kept, sum)| {
                let same = slot == kept;
                if same {
                    *sum = sum.saturating_add(*count);
                }
                same
            });
            self.entries += times.len();
        }
    }

    /// The tree as it is now, with children by name.
    pub fn finish(self) -> Tree {
        let Self { mut nodes, mut times, depth, .. } = self;
        let keys: Vec<_> = nodes.iter().map(|node| (node.name.clone(), node.class)).collect();
        for node in &mut nodes {
            node.children.sort_unstable_by(|a, b| keys.get(*a).cmp(&keys.get(*b)));
        }
        if !times.is_empty() {
            times.resize(nodes.len(), Vec::new());
        }
        Tree { nodes, depth, times }
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
    fn without_room_for_more_calls_their_callers_have_their_samples() {
        let profile = fixture::server();
        let names = Names::new(&profile);
        let mut builder = Builder { most_nodes: 10, ..Builder::default() };
        builder.add(&profile, &names, Side::Now);
        let tree = builder.finish();
        let whole = Tree::new(&profile, &names).total();
        assert_eq!((tree.nodes.len(), tree.total()), (10, whole));
        assert_eq!(tree.nodes.iter().map(|node| node.own).sum::<u64>(), whole);
    }

    #[test]
    fn empty_profiles_have_a_root() {
        let profile = Profile::default();
        let tree = Tree::new(&profile, &Names::new(&profile));
        assert_eq!((tree.nodes.len(), tree.depth, tree.total()), (1, 0, 0));
    }
}
