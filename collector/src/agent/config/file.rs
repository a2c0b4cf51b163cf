//! The file: TOML to keys, with the line of whatever is wrong.

use toml::de::{DeTable, DeValue};

use super::{AgentConfig, Given, Problem, SECTIONS, find_tracer};
use crate::key::{Value, unknown};

/// Deepest nesting of values that any key takes, which keeps hostile files from the stack's end.
const MAX_DEPTH: usize = 4;

/// Sets everything that the file says.
pub(super) fn apply(config: &mut AgentConfig, name: &str, text: &str) -> Result<(), Problem> {
    let problem = |at: usize, what: String| {
        let line = 1 + text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count();
        Problem { place: format!("{name}:{line}"), what }
    };
    let document = DeTable::parse(text).map_err(|error| {
        let what = error.message().replace('\n', ", ");
        problem(error.span().map_or(0, |span| span.start), what)
    })?;
    for (section, table) in document.get_ref() {
        let at = section.span().start;
        let section: &str = section.get_ref();
        let known = SECTIONS.iter().map(|(name, _, _)| *name).chain(["tracer"]);
        let is_known = known.clone().any(|name| name == section);
        let DeValue::Table(table) = table.get_ref() else {
            let what = if is_known {
                format!("{section} is a table: write [{section}]")
            } else {
                unknown("table", section, known)
            };
            return Err(problem(at, what));
        };
        if section != "tracer" {
            if !is_known {
                return Err(problem(at, unknown("table", section, known)));
            }
            apply_table(config, section, table, &problem)?;
            continue;
        }
        for (tracer, table) in table {
            let at = tracer.span().start;
            let info = find_tracer(tracer.get_ref()).map_err(|what| problem(at, what))?;
            let DeValue::Table(table) = table.get_ref() else {
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
    table: &DeTable<'_>,
    problem: &dyn Fn(usize, String) -> Problem,
) -> Result<(), Problem> {
    for (key, value) in table {
        let at = key.span().start;
        let what = |what: String| problem(at, format!("[{section}]: {what}"));
        let value =
            convert(value.get_ref(), MAX_DEPTH).map_err(|e| what(format!("{}: {e}", key.get_ref())))?;
        config.assign(section, key.get_ref(), &Given::Value(&value)).map_err(what)?;
    }
    Ok(())
}

fn convert(value: &DeValue<'_>, depth: usize) -> Result<Value, String> {
    if depth == 0 {
        return Err("no key has values nested so deep".to_owned());
    }
    Ok(match value {
        DeValue::String(text) => Value::Text(text.clone().into_owned()),
        DeValue::Integer(n) => {
            let number = i64::from_str_radix(n.as_str(), n.radix());
            Value::Int(number.map_err(|_| format!("{} is out of range", n.as_str()))?)
        }
        DeValue::Float(n) => {
            Value::Float(n.as_str().parse().map_err(|_| format!("{} is no number", n.as_str()))?)
        }
        DeValue::Boolean(b) => Value::Bool(*b),
        DeValue::Datetime(_) => return Err("no key takes a date".to_owned()),
        DeValue::Array(entries) => Value::List(
            entries.iter().map(|entry| convert(entry.get_ref(), depth - 1)).collect::<Result<_, _>>()?,
        ),
        DeValue::Table(table) => {
            let text = |value: &DeValue<'_>| match value {
                DeValue::String(text) => Ok(text.clone().into_owned()),
                _ => Err("it takes texts in quotes".to_owned()),
            };
            let pairs =
                table.iter().map(|(key, value)| Ok((key.get_ref().to_string(), text(value.get_ref())?)));
            Value::Map(pairs.collect::<Result<_, String>>()?)
        }
    })
}
