//! Two profiles in one picture: widths of the later one, colours by what changed.

use std::io::{self, Write};

use super::{Container, Fill, Picture};
use crate::output::compare::{Chance, Comparison, amount};
use crate::output::summary::percent;
use crate::output::tree::Node;

/// Writes a differential flame graph: an SVG.
///
/// # Errors
///
/// What `out` says.
pub fn write(comparison: &Comparison<'_>, out: &mut impl Write) -> io::Result<()> {
    write_as(Container::Svg, comparison, out)
}

/// The same as an HTML page.
///
/// # Errors
///
/// What `out` says.
pub fn write_html(comparison: &Comparison<'_>, out: &mut impl Write) -> io::Result<()> {
    write_as(Container::Html, comparison, out)
}

fn write_as(container: Container, comparison: &Comparison<'_>, out: &mut impl Write) -> io::Result<()> {
    let tree = comparison.tree();
    let (all, before) = (tree.total(), tree.get(0).map_or(0, |root| root.before));
    let chance = Chance::of(&comparison.before, &comparison.after);
    let shares = |node: &Node| (percent(node.before, before), percent(node.total, all));
    let picture = Picture {
        title: comparison.title(),
        subtitle: format!(
            "before: {}; after: {}; by shares of each total",
            amount(comparison.before.recording),
            amount(comparison.after.recording)
        ),
        legend: vec![
            (Fill::of_change(1.0), "larger share, or new"),
            (Fill::UNCHANGED, "no more change than chance may make"),
            (Fill::of_change(-1.0), "smaller share, or gone"),
        ],
        tree: &tree,
        before: Some(before),
        slots: None,
        fill: &|node| {
            let (then, now) = shares(node);
            let larger = then.max(now);
            if larger == 0.0 || then == now || chance.is_enough_for(node.before, node.total) {
                Fill::UNCHANGED
            } else {
                Fill::of_change((now - then) / larger)
            }
        },
        numbers: &|node| {
            let (then, now) = shares(node);
            format!(
                "{then:.2}% before ({}), {now:.2}% after ({}), {:+.2}",
                node.before,
                node.total,
                now - then
            )
        },
    };
    picture.write(container, out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::compare::Named;
    use crate::output::fixture::Fixture;
    use crate::read::{Recording, ValueType};

    fn of(stacks: &[(&str, u64)]) -> Recording {
        let mut fixture = Fixture::default();
        let process = fixture.process(1, "app", "/bin/app");
        stacks.iter().for_each(|(stack, count)| fixture.sample(process, stack, *count));
        let value = ValueType { kind: "samples".to_owned(), ..ValueType::default() };
        Recording { profile: fixture.finish(), value, ..Recording::default() }
    }

    #[test]
    fn widths_are_of_the_later_one_and_colours_of_the_change() {
        let before = of(&[("main;less", 800), ("main;same", 400), ("main;gone", 800)]);
        let after = of(&[("main;less", 100), ("main;same", 200), ("main;new", 700)]);
        let comparison = Comparison::new(
            Named { name: "a.otlp", recording: &before },
            Named { name: "b.otlp", recording: &after },
        );
        let mut svg = Vec::new();
        write(&comparison, &mut svg).unwrap();
        let svg = String::from_utf8(svg).unwrap();
        assert!(svg.contains(">b.otlp compared with a.otlp</text>"));
        let frame = |name: &str| {
            let line = svg.lines().find(|line| line.contains(&format!("<title>{name}&"))).unwrap();
            line.to_owned()
        };
        let fill = |frame: &str| frame.split("fill=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        let less = frame("less");
        assert!(less.starts_with("<g data-n=\"100\" data-l=\"3\" data-b=\"800\"><title>"), "{less}");
        assert!(less.contains("app, 40.00% before (800), 10.00% after (100), -30.00</title>"), "{less}");
        assert_eq!(fill(&less), Fill::of_change(-0.75).to_string());
        assert_eq!(fill(&frame("same")), Fill::UNCHANGED.to_string());
        assert_eq!(fill(&frame("new")), Fill::of_change(1.0).to_string());
        let gone = frame("gone");
        assert!(gone.contains("data-b=\"800\" class=\"hidden\">"), "{gone}");
        assert_eq!(fill(&gone), Fill::of_change(-1.0).to_string());
        assert_eq!(fill(&frame("main")), Fill::UNCHANGED.to_string());
    }
}
