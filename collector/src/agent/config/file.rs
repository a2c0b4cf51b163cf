//! The file: TOML to keys, with the line of whatever is wrong.

use super::toml::{self, Node, Table};
use super::{AgentConfig, Given, Problem, SECTIONS, find_tracer};
use crate::key::{Value, unknown};

/// Deepest nesting of values that any key takes.
const MAX_DEPTH: usize = 4;

/// Sets everything that the file says.
pub(super) fn apply(config: &mut AgentConfig, name: &str, text: &str) -> Result<(), Problem> {
    let problem = |at: usize, what: String| {
        let line = 1 + text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count();
        Problem { place: format!("{name}:{line}"), what }
    };
    for section in toml::parse(text).map_err(|wrong| problem(wrong.at, wrong.what))? {
        let (name, at) = (section.key.name.as_str(), section.key.at);
        let known = SECTIONS.iter().map(|(name, _)| *name).chain(["tracer"]);
        let is_known = known.clone().any(|known| known == name);
        let Node::Table(table) = section.node else {
            let what = if is_known {
                format!("{name} is a table: write [{name}]")
            } else {
                unknown("table", name, known)
            };
            return Err(problem(at, what));
        };
        if name != "tracer" {
            if !is_known {
                return Err(problem(at, unknown("table", name, known)));
            }
            apply_table(config, name, table, &problem)?;
            continue;
        }
        for tracer in table {
            let at = tracer.key.at;
            let info = find_tracer(&tracer.key.name).map_err(|what| problem(at, what))?;
            let Node::Table(table) = tracer.node else {
                return Err(problem(at, format!("{0} is a table: write [tracer.{0}]", info.name)));
            };
            apply_table(config, &format!("tracer.{}", info.name), table, &problem)?;
        }
    }
    Ok(())
}

fn apply_table(
    config: &mut AgentConfig,
    section: &str,
    table: Table,
    problem: &dyn Fn(usize, String) -> Problem,
) -> Result<(), Problem> {
    for entry in table {
        let what = |what: String| problem(entry.key.at, format!("[{section}]: {what}"));
        let value = convert(entry.node, MAX_DEPTH).map_err(|e| what(format!("{}: {e}", entry.key.name)))?;
        config.assign(section, &entry.key.name, &Given::Value(&value)).map_err(what)?;
    }
    Ok(())
}

fn convert(node: Node, depth: usize) -> Result<Value, String> {
    if depth == 0 {
        return Err("no key has values nested so deep".to_owned());
    }
    Ok(match node {
        Node::Text(text) => Value::Text(text),
        Node::Int(n) => Value::Int(n),
        Node::Float(n) => Value::Float(n),
        Node::Bool(b) => Value::Bool(b),
        Node::List(entries) => {
            Value::List(entries.into_iter().map(|entry| convert(entry, depth - 1)).collect::<Result<_, _>>()?)
        }
        Node::Table(table) => {
            let pairs = table.into_iter().map(|entry| match entry.node {
                Node::Text(text) => Ok((entry.key.name, text)),
                _ => Err("it takes texts in quotes".to_owned()),
            });
            Value::Map(pairs.collect::<Result<_, String>>()?)
        }
    })
}
