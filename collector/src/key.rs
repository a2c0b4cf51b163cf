//! Keys of the configuration: each is declared once, beside what it sets. Pure.
//!
//! From one [`Key`] come the file's key, the environment variable and the line of `config --example`, so that none of them
//! can say something else than the code does.

use bpf_loader::text::join;
use std::fmt::{self, Display};
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::sorted::SortedMap;
use crate::units;

/// A key that sets something in a `T`.
pub struct Key<T: 'static> {
    /// Its name.
    pub name: &'static str,
    /// What it does, with its range; lines for a comment. [`table`](Self::table) leaves it empty where nothing shows it.
    pub doc: &'static str,
    /// What it is set to; of the defaults, the default.
    pub get: fn(&T) -> Value,
    /// Sets it.
    pub set: fn(&mut T, &Value) -> Result<(), String>,
}

impl<T> Key<T> {
    /// Keys as a build needs them: without `config`, texts that explain them are not in it.
    pub const fn table<const N: usize>(mut keys: [Self; N]) -> [Self; N] {
        let mut i = 0;
        while i < N && cfg!(not(any(test, feature = "terminal"))) {
            keys[i].doc = "";
            i += 1;
        }
        keys
    }
}

impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a key is set to. Durations and sizes are texts.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `true`, `false`
    Bool(bool),
    /// `19`
    Int(i64),
    /// `1.0`
    Float(f64),
    /// `"10s"`
    Text(String),
    /// `["a", "b"]`
    List(Vec<Value>),
    /// `{ a = "b" }`
    Map(SortedMap<String, String>),
}

type Result<T, E = String> = std::result::Result<T, E>;

impl Value {
    /// A duration.
    pub fn of_duration(duration: Duration) -> Self {
        Self::Text(units::show_duration(duration))
    }

    /// A size in bytes.
    pub fn of_size(bytes: u64) -> Self {
        Self::Text(units::show_size(bytes))
    }

    /// A list of texts.
    pub fn of_texts<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> Self {
        Self::List(texts.into_iter().map(|text| Self::Text(text.as_ref().to_owned())).collect())
    }

    /// What may be unset, which an empty text stands for.
    pub fn of_optional<T>(value: Option<T>, show: impl FnOnce(T) -> Self) -> Self {
        value.map_or_else(|| Self::Text(String::new()), show)
    }

    fn wanted(&self, what: &str) -> String {
        format!("{self} is not {what}")
    }

    /// `None` of an empty text.
    ///
    /// # Errors
    ///
    /// What `parse` says.
    pub fn optional<T>(&self, parse: impl FnOnce(&Self) -> Result<T>) -> Result<Option<T>> {
        if *self == Self::Text(String::new()) { Ok(None) } else { parse(self).map(Some) }
    }

    /// A truth value.
    ///
    /// # Errors
    ///
    /// It is something else.
    pub fn boolean(&self) -> Result<bool> {
        if let Self::Bool(b) = self { Ok(*b) } else { Err(self.wanted("true or false")) }
    }

    /// A whole number.
    ///
    /// # Errors
    ///
    /// It is something else, or outside the range.
    pub fn whole<N: TryFrom<i64> + Into<i64> + Copy>(&self, range: RangeInclusive<N>) -> Result<N> {
        let (least, most) = ((*range.start()).into(), (*range.end()).into());
        let number = if let Self::Int(n) = self { Some(*n) } else { None };
        let number = number.ok_or_else(|| self.wanted(&format!("a whole number from {least} to {most}")))?;
        let within = (least..=most).contains(&number).then(|| N::try_from(number).ok()).flatten();
        within.ok_or_else(|| format!("{number} is out of range: it must be {least} to {most}"))
    }

    /// A number.
    ///
    /// # Errors
    ///
    /// As [`whole`](Self::whole).
    pub fn number(&self, range: RangeInclusive<f64>) -> Result<f64> {
        let number = match self {
            Self::Int(n) => *n as f64,
            Self::Float(n) => *n,
            _ => return Err(self.wanted("a number")),
        };
        let (least, most) = (range.start(), range.end());
        let within = Some(number).filter(|n| range.contains(n));
        within.ok_or_else(|| {
            let [number, least, most] = [number, *least, *most].map(units::show_decimal);
            format!("{number} is out of range: it must be {least} to {most}")
        })
    }

    /// A text.
    ///
    /// # Errors
    ///
    /// It is something else.
    pub fn text(&self) -> Result<&str> {
        if let Self::Text(text) = self { Ok(text) } else { Err(self.wanted("a text in quotes")) }
    }

    /// A duration, as `"10s"`; a bare number is seconds.
    ///
    /// # Errors
    ///
    /// As [`whole`](Self::whole).
    pub fn duration(&self, range: RangeInclusive<Duration>) -> Result<Duration> {
        let text = self.scalar_text()?;
        // Elsewhere, nobody means no time at all.
        let is_none = matches!(text.as_str(), "0" | "0s") && range.contains(&Duration::ZERO);
        let duration = if is_none { Duration::ZERO } else { units::duration(&text)? };
        let (least, most) = (units::show_duration(*range.start()), units::show_duration(*range.end()));
        let within = Some(duration).filter(|d| range.contains(d));
        within.ok_or_else(|| format!("{self} is out of range: it must be {least} to {most}"))
    }

    /// A size, as `"32M"`; a bare number is bytes.
    ///
    /// # Errors
    ///
    /// As [`whole`](Self::whole).
    pub fn size(&self, range: RangeInclusive<u64>) -> Result<u64> {
        let size = units::size(&self.scalar_text()?)?;
        let (least, most) = (units::show_size(*range.start()), units::show_size(*range.end()));
        let within = Some(size).filter(|size| range.contains(size));
        within.ok_or_else(|| format!("{self} is out of range: it must be {least} to {most}"))
    }

    fn scalar_text(&self) -> Result<String> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::Int(n) => Ok(n.to_string()),
            _ => Err(self.wanted("a text in quotes")),
        }
    }

    /// The entries of a list; one thing alone is a list of it.
    pub fn entries(&self) -> &[Self] {
        if let Self::List(entries) = self { entries } else { std::slice::from_ref(self) }
    }

    /// Texts.
    ///
    /// # Errors
    ///
    /// There is something else among them.
    pub fn texts(&self) -> Result<Vec<String>> {
        self.entries().iter().map(|entry| entry.text().map(str::to_owned)).collect()
    }

    /// Names with texts.
    ///
    /// # Errors
    ///
    /// It is something else.
    pub fn map(&self) -> Result<&SortedMap<String, String>> {
        if let Self::Map(map) = self { Ok(map) } else { Err(self.wanted("a table of texts")) }
    }

    /// Reads what an environment variable or a flag says, as something of the same sort as `self`.
    pub fn like(&self, text: &str) -> Self {
        let text = text.trim();
        let list = || text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let number = |text: &str| text.parse().map_or_else(|_| Self::Text(text.to_owned()), Self::Int);
        match self {
            Self::Bool(_) => match text.to_ascii_lowercase().as_str() {
                "true" | "1" => Self::Bool(true),
                "false" | "0" => Self::Bool(false),
                _ => Self::Text(text.to_owned()),
            },
            Self::Int(_) => number(text),
            Self::Float(_) => units::decimal(text).map_or_else(|| Self::Text(text.to_owned()), Self::Float),
            Self::Text(_) => Self::Text(text.to_owned()),
            // A list of numbers and one of texts look the same when they are empty.
            Self::List(_) => Self::List(list().map(number).collect()),
            Self::Map(_) => {
                let pair = |entry: &str| {
                    let (key, value) = entry.split_once('=').unwrap_or((entry, ""));
                    (key.trim().to_owned(), value.trim().to_owned())
                };
                Self::Map(list().map(pair).collect())
            }
        }
    }
}

/// As TOML has it.
impl Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(b) => b.fmt(f),
            Self::Int(n) => n.fmt(f),
            // Without a point it would be an integer.
            Self::Float(n) => {
                let whole = n.is_finite() && n.fract() == 0.0;
                write!(f, "{}{}", units::show_decimal(*n), if whole { ".0" } else { "" })
            }
            Self::Text(text) => Quoted(text).fmt(f),
            Self::List(entries) => {
                f.write_str("[")?;
                for (at, entry) in entries.iter().enumerate() {
                    write!(f, "{}{entry}", if at > 0 { ", " } else { "" })?;
                }
                f.write_str("]")
            }
            Self::Map(map) if map.is_empty() => f.write_str("{}"),
            Self::Map(map) => {
                for (at, (key, value)) in map.iter().enumerate() {
                    f.write_str(if at > 0 { ", " } else { "{ " })?;
                    write!(f, "{} = {}", Quoted(key), Quoted(value))?;
                }
                f.write_str(" }")
            }
        }
    }
}

/// A basic string of TOML, which is a text in quotes without control characters: so messages show what users wrote, too.
/// (`{:?}` would do, but says nothing in builds that have no code for it.)
#[derive(Debug, Clone, Copy)]
pub struct Quoted<'t>(pub &'t str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", Escaped(self.0))
    }
}

/// What is between the quotes of [`Quoted`]. (`escape_debug` has tables of 4 KB.)
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'t>(pub &'t str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                c if c.is_control() => write!(f, "\\u{:04X}", c as u32)?,
                c => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

/// The name that `wrong` was most likely meant to be, if any is near.
pub fn nearest<'n>(wrong: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    nearest_of(wrong, &names.into_iter().collect::<Vec<_>>())
}

// Not generic: each instance would be a kilobyte.
fn nearest_of<'n>(wrong: &str, names: &[&'n str]) -> Option<&'n str> {
    let near = names.iter().map(|name| (distance(wrong, name), *name)).min()?;
    // A third of the letters wrong is no slip any more.
    (near.0 <= (wrong.chars().count().max(near.1.len()) / 3).max(1)).then_some(near.1)
}

/// `there is no WHAT "WRONG"; did you mean NAME?`, or which there are.
pub fn unknown<'n>(what: &str, wrong: &str, names: impl IntoIterator<Item = &'n str>) -> String {
    unknown_of(what, wrong, &names.into_iter().collect::<Vec<_>>())
}

fn unknown_of(what: &str, wrong: &str, names: &[&str]) -> String {
    let quoted = Quoted(wrong);
    match nearest_of(wrong, names) {
        Some(name) => format!("there is no {what} {quoted}: did you mean \"{name}\"?"),
        None => format!("there is no {what} {quoted}: there are {}", join(names, ", ")),
    }
}

/// Letters to insert, remove, replace or swap with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let of = |row: &[usize], at: usize| row.get(at).copied().unwrap_or(usize::MAX / 2);
            let mut best = of(&last, j) + usize::from(x != y);
            best = best.min(of(&last, j + 1) + 1).min(of(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped {
                best = best.min(of(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_named() {
        assert_eq!(Value::Int(7).whole(1..=1000u32), Ok(7));
        assert_eq!(Value::Int(0).whole(1..=1000u32).unwrap_err(), "0 is out of range: it must be 1 to 1000");
        assert!(Value::Text("x".into()).whole(1..=9u8).unwrap_err().contains("whole number from 1 to 9"));
        assert_eq!(Value::Int(2).number(0.1..=100.0), Ok(2.0));
        assert!(Value::Float(f64::NAN).number(0.1..=100.0).is_err());
        let seconds = Duration::from_secs(1)..=Duration::from_secs(3600);
        assert_eq!(Value::Text("2m".into()).duration(seconds.clone()), Ok(Duration::from_secs(120)));
        assert_eq!(Value::Int(5).duration(seconds.clone()), Ok(Duration::from_secs(5)));
        assert!(Value::Text("500ms".into()).duration(seconds).unwrap_err().contains("1s to 1h"));
        let none = Duration::ZERO..=Duration::from_secs(1);
        assert_eq!(Value::of_duration(Duration::ZERO).duration(none), Ok(Duration::ZERO));
        assert!(Value::Text("1M".into()).size(4 << 20..=1 << 30).unwrap_err().contains("4M to 1G"));
    }

    #[test]
    fn texts_are_read_as_what_they_replace() {
        assert_eq!(Value::Bool(false).like(" TRUE "), Value::Bool(true));
        assert_eq!(Value::Int(0).like("12"), Value::Int(12));
        assert_eq!(Value::Int(0).like("x"), Value::Text("x".into()));
        assert_eq!(Value::Float(0.0).like("0.5"), Value::Float(0.5));
        assert_eq!(
            Value::List(vec![]).like("1, b,"),
            Value::List(vec![Value::Int(1), Value::Text("b".into())])
        );
        let map = SortedMap::from([("a b".to_owned(), "c".to_owned())]);
        assert_eq!(Value::Map(SortedMap::new()).like("a b = c"), Value::Map(map));
    }

    #[test]
    fn slips_find_their_name() {
        let names = ["interval", "memory_budget", "cpu_limit", "listen"];
        for (wrong, name) in [
            ("intervall", "interval"),
            ("memory-budget", "memory_budget"),
            ("cpu_limti", "cpu_limit"),
            ("lsiten", "listen"),
        ] {
            assert_eq!(nearest(wrong, names), Some(name));
        }
        assert_eq!(nearest("zzzzzz", names), None);
        assert_eq!(nearest("", names), None);
        assert_eq!(unknown("key", "zzz", ["a", "b"]), "there is no key \"zzz\": there are a, b");
        assert_eq!((distance("ab", "ba"), distance("", "abc"), distance("kitten", "sitting")), (1, 3, 3));
    }

    #[test]
    fn values_are_shown_as_toml() {
        let map = SortedMap::from([("a".to_owned(), "b\"\n".to_owned())]);
        let values = [Value::Float(1.0), Value::of_texts(["x", "y"]), Value::Map(map)];
        let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["1.0", "[\"x\", \"y\"]", "{ \"a\" = \"b\\\"\\u000A\" }"]);
    }
}
