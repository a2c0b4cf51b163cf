//! The call tree: where the time went, from the outermost call in.

use std::cmp::Reverse;
use std::io::{self, Write};

use super::{heading, painted, wrapped};
use crate::model::Profile;
use crate::output::names::Names;
use crate::output::summary::{column_count, count_heading, percent};
use crate::output::terminal::{Paint, Style, cut_middle};
use crate::output::tree::{Class, Node, Tree};

/// Branches below this share of all samples are not shown.
const MIN_PERCENT: f64 = 1.0;
/// Columns before the calls.
const FIXED: usize = 17;
const ARROW: &str = " > ";
const GAP: &str = "..";

/// A line of the tree: a chain of calls of which each made (nearly) only the next.
struct Branch<'t> {
    chain: Vec<&'t Node>,
    depth: usize,
}

pub(super) fn write(
    profile: &Profile,
    names: &Names<'_>,
    limit: usize,
    style: Style,
    out: &mut impl Write,
) -> io::Result<()> {
    let tree = Tree::new(profile, names);
    let branches = branches(&tree, MIN_PERCENT);
    heading(&format!(" TOTAL  {}  CALLS, OUTERMOST FIRST", count_heading(profile)), style, out)?;
    // The hottest lines that fit the limit, in the order of the tree: a line is never hotter than the one
    // that it hangs on, so no line loses its parent.
    let mut hottest: Vec<(Reverse<u64>, usize)> = branches
        .iter()
        .enumerate()
        .map(|(position, branch)| (Reverse(branch.chain.first().map_or(0, |node| node.total)), position))
        .collect();
    hottest.sort_unstable();
    hottest.truncate(limit);
    let mut shown: Vec<usize> = hottest.iter().map(|(_, position)| *position).collect();
    shown.sort_unstable();
    for branch in shown.iter().filter_map(|position| branches.get(*position)) {
        let Some(first) = branch.chain.first() else { continue };
        let indent = (branch.depth * 2).min(style.width / 3);
        let room = style.width.saturating_sub(FIXED + indent);
        writeln!(
            out,
            "{:>5.1}% {:>8}  {:indent$}{}",
            percent(first.total, tree.total()),
            column_count(profile, first.total),
            "",
            chain_text(&branch.chain, room, style)
        )?;
    }
    let cut = if branches.len() > shown.len() { "or further down" } else { "of all samples" };
    wrapped(&format!("(branches below {MIN_PERCENT}% {cut} are not shown)"), style, None, out)
}

/// The lines of the tree, hottest branch first at every level.
fn branches(tree: &Tree, min_percent: f64) -> Vec<Branch<'_>> {
    let visible = |node: &Node| {
        let mut children: Vec<&Node> = node
            .children
            .iter()
            .filter_map(|index| tree.get(*index))
            .filter(|child| percent(child.total, tree.total()) >= min_percent)
            .collect();
        children.sort_unstable_by_key(|child| (Reverse(child.total), &child.name, child.class));
        children
    };
    let mut branches = Vec::new();
    let mut waiting: Vec<(&Node, usize)> =
        tree.get(0).map(visible).unwrap_or_default().into_iter().rev().map(|node| (node, 0)).collect();
    while let Some((first, depth)) = waiting.pop() {
        let mut chain = vec![first];
        let mut children = visible(first);
        // A process has a line of its own.
        while first.class != Class::Process && children.len() == 1 {
            let Some(only) = children.first().copied() else { break };
            if percent(first.total - only.total, tree.total()) >= min_percent {
                break;
            }
            chain.push(only);
            children = visible(only);
        }
        waiting.extend(children.into_iter().rev().map(|child| (child, depth + 1)));
        branches.push(Branch { chain, depth });
    }
    branches
}

/// The chain in at most `room` columns: calls are left out of its middle before names are cut.
fn chain_text(chain: &[&Node], room: usize, style: Style) -> String {
    let length = |node: &Node| node.name.chars().count();
    let whole = |nodes: &[&Node]| {
        nodes.iter().map(|node| length(node)).sum::<usize>() + nodes.len().saturating_sub(1) * ARROW.len()
    };
    // The innermost call says most: it stays, then as many as fit, outermost and innermost in turn.
    let (mut head, mut tail) = (0, chain.len());
    if whole(chain) > room {
        let mut left = room.saturating_sub(GAP.len());
        let mut from_tail = true;
        while head < tail {
            let next = if from_tail { chain.get(tail - 1) } else { chain.get(head) };
            let cost = next.map_or(0, |node| length(node)) + ARROW.len();
            if cost > left {
                break;
            }
            left -= cost;
            if from_tail {
                tail -= 1
            } else {
                head += 1
            }
            from_tail = !from_tail;
        }
        if tail == chain.len() {
            // Not even one fits whole.
            let gap = if chain.len() > 1 { format!("{GAP}{ARROW}") } else { String::new() };
            let name = chain.last().map(|node| cut_middle(&node.name, room.saturating_sub(gap.len())));
            let class = chain.last().map_or(Class::Library, |node| node.class);
            return gap + &painted(&name.unwrap_or_default(), paint(class), style);
        }
    } else {
        head = chain.len();
    }
    let show = |node: &&Node| painted(&node.name, paint(node.class), style);
    let mut parts: Vec<String> = chain.iter().take(head).map(show).collect();
    if head < tail {
        parts.push(GAP.to_owned());
    }
    parts.extend(chain.iter().skip(tail).map(show));
    parts.join(ARROW)
}

fn paint(class: Class) -> Option<Paint> {
    match class {
        Class::Kernel => Some(Paint::Yellow),
        Class::Jit => Some(Paint::Green),
        Class::Process => Some(Paint::Bold),
        Class::Root | Class::Program | Class::Library => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::fixture::{self, Fixture};

    fn text(profile: &Profile, limit: usize, width: usize) -> String {
        let mut out = Vec::new();
        write(profile, &Names::new(profile), limit, Style { width, color: false }, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn single_calls_share_a_line_and_branches_have_their_own() {
        let mut fixture = Fixture::default();
        let process = fixture.process(1, "app", "/bin/app");
        fixture.sample(process, "_start;main;a", 70);
        fixture.sample(process, "_start;main;b;c", 29);
        fixture.sample(process, "_start;main;rare", 0);
        fixture.sample(process, "_start;main;b;c;k:d", 1);
        assert_eq!(
            text(&fixture.finish(), 9, 80),
            "\n TOTAL  SAMPLES  CALLS, OUTERMOST FIRST\n\
             100.0%      100  app\n\
             100.0%      100    _start > main\n \
              70.0%       70      a\n \
              30.0%       30      b > c\n  \
               1.0%        1        d\n\
               (branches below 1% of all samples are not shown)\n"
        );
    }

    #[test]
    fn limited_trees_keep_the_parents_of_what_they_show() {
        let profile = fixture::server();
        let full = text(&profile, usize::MAX, 120);
        for limit in 1..20 {
            let cut = text(&profile, limit, 120);
            let lines: Vec<&str> = cut.lines().skip(2).collect();
            assert_eq!(lines.len(), limit + 1);
            let mut depth = 0;
            for line in &lines[..limit] {
                assert!(full.contains(line));
                let calls = &line[FIXED..];
                let indent = (calls.len() - calls.trim_start().len()) / 2;
                assert!(indent <= depth, "{cut}");
                depth = indent + 1;
            }
        }
    }

    #[test]
    fn long_chains_lose_their_middle() {
        let mut fixture = Fixture::default();
        let process = fixture.process(1, "app", "/bin/app");
        fixture.sample(process, "outermost;second;third;fourth;fifth;innermost", 1);
        let profile = fixture.finish();
        let ends = |width, end: &str| {
            let text = text(&profile, 9, width);
            assert!(text.contains(&format!("    {end}\n")), "{text}");
        };
        ends(80, "outermost > second > third > fourth > fifth > innermost");
        ends(70, "outermost > second > .. > fifth > innermost");
        ends(50, "outermost > .. > innermost");
        ends(44, ".. > innermost");
        ends(27, ".. > ..t");
    }
}
