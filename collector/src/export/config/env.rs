//! Reading variables as the specification of their types has it: empty is unset, names do not mind case, and a
//! value that makes no sense is warned of and ignored.

use std::str::FromStr;
use std::time::Duration;

use crate::key::Escaped;

/// Characters of an ignored value that a warning shows.
const MAX_SHOWN: usize = 60;

/// A variable of this process; what is not UTF-8 in it becomes U+FFFD, and is complained of where it is read.
pub fn process_env(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// Looks variables up, and collects what was ignored.
pub(super) struct Env<'a> {
    pub lookup: &'a dyn Fn(&str) -> Option<String>,
    /// A line each, every one once.
    pub warnings: Vec<String>,
}

impl<'a> Env<'a> {
    pub fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { lookup, warnings: Vec::new() }
    }

    /// The variable's value without white space around it, if that leaves anything.
    pub fn get(&self, name: &str) -> Option<String> {
        let value = (self.lookup)(name)?.trim().to_owned();
        Some(value).filter(|value| !value.is_empty())
    }

    /// The first of the variables that is set, with its name.
    pub fn first<const N: usize>(&self, names: [String; N]) -> Option<(String, String)> {
        names.into_iter().find_map(|name| self.get(&name).map(|value| (name, value)))
    }

    /// The first of the variables that `parse` makes sense of, with its name; the others are warned of with
    /// `remedy`.
    pub fn pick<T, const N: usize>(
        &mut self,
        names: [String; N],
        remedy: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<(String, T)> {
        for name in names {
            let Some(value) = self.get(&name) else { continue };
            match parse(&value.to_ascii_lowercase()) {
                Some(parsed) => return Some((name, parsed)),
                None => self.ignore(&name, &value, remedy),
            }
        }
        None
    }

    /// The first of the variables that holds a number which `valid` accepts.
    pub fn number<T: FromStr, const N: usize>(
        &mut self,
        names: [String; N],
        remedy: &str,
        valid: impl Fn(&T) -> bool,
    ) -> Option<T> {
        // `FromStr` takes a sign, which no specification mentions.
        let parse = |value: &str| {
            let digits = value.bytes().all(|byte| byte.is_ascii_digit());
            value.parse().ok().filter(|number| digits && valid(number))
        };
        self.pick(names, remedy, parse).map(|(_, number)| number)
    }

    /// A time in milliseconds.
    pub fn duration<const N: usize>(&mut self, names: [String; N]) -> Option<Duration> {
        self.number(names, "use milliseconds", |_: &u64| true).map(Duration::from_millis)
    }

    /// A time in milliseconds where 0 is as long as it takes: `None`. `default` where none is set.
    pub fn timeout<const N: usize>(&mut self, names: [String; N], default: Duration) -> Option<Duration> {
        Some(self.duration(names).unwrap_or(default)).filter(|timeout| !timeout.is_zero())
    }

    /// Whether the first of the variables that is set is `true`. Everything else is false.
    pub fn boolean<const N: usize>(&mut self, names: [String; N]) -> bool {
        let Some((name, value)) = self.first(names) else { return false };
        let is_true = value.eq_ignore_ascii_case("true");
        if !is_true && !value.eq_ignore_ascii_case("false") {
            self.warn(format!("{name}={} counts as false; use true or false", shown(&value)));
        }
        is_true
    }

    pub fn ignore(&mut self, name: &str, value: &str, remedy: &str) {
        self.warn(format!("ignoring {name}={}; {remedy}", shown(value)));
    }

    pub fn warn(&mut self, text: String) {
        if !self.warnings.contains(&text) {
            self.warnings.push(text);
        }
    }
}

fn shown(value: &str) -> String {
    let mut shown = Escaped(&value.chars().take(MAX_SHOWN).collect::<String>()).to_string();
    if value.chars().count() > MAX_SHOWN {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_show_values_in_one_line_that_is_not_too_long() {
        assert_eq!(shown("a\n\"\u{1b}é"), r#"a\u000A\"\u001Bé"#);
        assert_eq!(shown(&"é".repeat(MAX_SHOWN)), "é".repeat(MAX_SHOWN));
        assert_eq!(shown(&"é".repeat(MAX_SHOWN + 1)), "é".repeat(MAX_SHOWN) + "...");
    }
}
