//! Checks Prometheus' text format (0.0.4) as strictly as its documentation reads, and more strictly than servers do.

use std::collections::{BTreeMap, HashMap, HashSet};

/// A page, by whole name of a sample (`x_sum`), then by labels.
pub type Samples = HashMap<String, Vec<(BTreeMap<String, String>, f64)>>;

fn is_name(name: &str, colons: bool) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colons && c == ':');
    name.chars().all(legal) && name.starts_with(|c: char| !c.is_ascii_digit() && legal(c))
}

/// `"text"` with its escapes, and what is behind it.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut rest = text.strip_prefix('"').ok_or("a value is not quoted")?.chars();
    let mut value = String::new();
    loop {
        match rest.next().ok_or("a value does not end")? {
            '"' => return Ok((value, rest.as_str())),
            '\\' => value.push(match rest.next() {
                Some('n') => '\n',
                Some(c @ ('"' | '\\')) => c,
                other => return Err(format!("\\{other:?} is no escape")),
            }),
            c => value.push(c),
        }
    }
}

fn labels(text: &str) -> Result<(BTreeMap<String, String>, &str), String> {
    let Some(mut rest) = text.strip_prefix('{') else { return Ok((BTreeMap::new(), text)) };
    let mut all = BTreeMap::new();
    loop {
        let (key, after) = rest.split_once('=').ok_or("a label has no value")?;
        let (value, after) = quoted(after)?;
        if !is_name(key, false) || key.starts_with("__") {
            return Err(format!("{key:?} is no name of a label"));
        }
        if all.insert(key.to_owned(), value).is_some() {
            return Err(format!("{key} is there twice"));
        }
        match after.split_at_checked(1) {
            Some((",", after)) => rest = after,
            Some(("}", after)) => return Ok((all, after)),
            _ => return Err("labels do not end".to_owned()),
        }
    }
}

/// All samples of a page.
///
/// # Errors
///
/// The first line that is wrong, and why.
pub fn parse(page: &str) -> Result<Samples, String> {
    let mut samples = Samples::new();
    let (mut seen, mut family, mut kind) = (HashSet::new(), String::new(), String::new());
    if !page.ends_with('\n') {
        return Err("the last line does not end".to_owned());
    }
    for line in page.lines() {
        let wrong = |why: &str| format!("{why}: {line}");
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').ok_or_else(|| wrong("no text"))?;
            if !is_name(name, true) || !seen.insert(name.to_owned()) || text.is_empty() {
                return Err(wrong("no name, no text, or a family that is in two places"));
            }
            (family, kind) = (name.to_owned(), String::new());
        } else if let Some(line_kind) = line.strip_prefix("# TYPE ") {
            let (name, of) = line_kind.split_once(' ').ok_or_else(|| wrong("no type"))?;
            if name != family || !kind.is_empty() || !["counter", "gauge", "summary"].contains(&of) {
                return Err(wrong("another family's type, or none"));
            }
            kind = of.to_owned();
        } else {
            let end = line.find(['{', ' ']).ok_or_else(|| wrong("no value"))?;
            let (name, rest) = line.split_at(end);
            let suffix =
                name.strip_prefix(family.as_str()).ok_or_else(|| wrong("no sample of its family"))?;
            let suits = match kind.as_str() {
                "counter" => suffix.is_empty() && name.ends_with("_total"),
                "gauge" => suffix.is_empty() && !name.ends_with("_total"),
                _ => ["_sum", "_count"].contains(&suffix),
            };
            if !suits {
                return Err(wrong("not a name of this type"));
            }
            let (labels, rest) = labels(rest).map_err(|why| wrong(&why))?;
            let value = rest.strip_prefix(' ').ok_or_else(|| wrong("no value"))?;
            let number = match value {
                "+Inf" => f64::INFINITY,
                "-Inf" => f64::NEG_INFINITY,
                "NaN" => f64::NAN,
                _ if value.chars().all(|c| c.is_ascii_digit() || "+-.eE".contains(c)) => {
                    value.parse().map_err(|_| wrong("not a number"))?
                }
                _ => return Err(wrong("not a number")),
            };
            if kind != "gauge" && (number < 0.0 || number.is_nan()) {
                return Err(wrong("counts are not negative"));
            }
            let own = samples.entry(name.to_owned()).or_default();
            if own.iter().any(|(there, _)| *there == labels) {
                return Err(wrong("a series is there twice"));
            }
            own.push((labels, number));
        }
    }
    Ok(samples)
}

/// The sum of a sample over all series that have these labels.
pub fn sum(samples: &Samples, name: &str, labels: &[(&str, &str)]) -> f64 {
    let has =
        |own: &BTreeMap<String, String>| labels.iter().all(|(k, v)| own.get(*k).is_some_and(|own| own == v));
    samples.get(name).into_iter().flatten().filter(|(own, _)| has(own)).map(|(_, value)| value).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_right_is_read() {
        let page = "# HELP a_total A \\\\ b.\n# TYPE a_total counter\na_total{x=\"1\\n\\\"\",y=\"{}\"} 7\na_total 1e3\n\
                    # HELP s S.\n# TYPE s summary\ns_sum 0.5\ns_count 2\n";
        let samples = parse(page).unwrap();
        assert_eq!(samples["a_total"][0].0["x"], "1\n\"");
        assert_eq!((sum(&samples, "a_total", &[]), sum(&samples, "a_total", &[("y", "{}")])), (1007.0, 7.0));
        assert_eq!(sum(&samples, "s_count", &[]), 2.0);
    }

    #[test]
    fn what_is_wrong_is_not() {
        let head = "# HELP a_total A.\n# TYPE a_total counter\n";
        for bad in [
            "a_total 1",
            "a_total -1\n",
            "a_total{x=1} 1\n",
            "a_total{x=\"1} 1\n",
            "a_total{x=\"\\q\"} 1\n",
            "a_total{x=\"1\",x=\"1\"} 1\n",
            "a_total{x=\"1\"}1\n",
            "a_total{1=\"1\"} 1\n",
            "a_total one\n",
            "a_total inf\n",
            "a_total 1\na_total 2\n",
            "b_total 1\n",
            "# TYPE a_total counter\n",
            "# HELP a_total A.\n",
        ] {
            assert!(parse(&format!("{head}{bad}")).is_err(), "{bad}");
        }
    }
}
