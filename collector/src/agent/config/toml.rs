//! TOML 1.1 (<https://toml.io/en/v1.1.0>), as far as configurations are written in it: dates and arrays of tables, which no key
//! takes, are refused. A few pages instead of the 60 KB that a reader for everything takes. Pure.

use crate::key::Quoted;
use crate::units::decimal;

/// How deep tables and lists may be in others, which keeps hostile files from the stack's end.
const MAX_DEPTH: usize = 8;
/// Keys that a table may have: each is looked for among the others.
const MAX_KEYS: usize = 1000;

/// What is wrong, and at which byte.
#[derive(Debug, PartialEq)]
pub(super) struct Wrong {
    pub(super) at: usize,
    pub(super) what: String,
}

type Result<T> = std::result::Result<T, Box<Wrong>>;

fn wrong<T>(at: usize, what: impl Into<String>) -> Result<T> {
    Err(Box::new(Wrong { at, what: what.into() }))
}

/// A value.
#[derive(Debug, PartialEq)]
pub(super) enum Node {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Table(Table),
}

/// In the order of the file.
pub(super) type Table = Vec<Entry>;

/// A key with its value.
#[derive(Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) node: Node,
    origin: Origin,
}

/// A key, and where it is written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) at: usize,
}

/// What made a table, on which it depends what may be added to it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Origin {
    /// A value, inline tables too: nothing is added.
    Value,
    /// The header of a table in it: it may get a header of its own.
    Implied,
    /// Its header.
    Header,
    /// A dotted key: others may follow.
    Dotted,
}

/// Reads a file.
pub(super) fn parse(text: &str) -> Result<Table> {
    let mut reader = Reader { text, at: 0 };
    reader.skip("\u{feff}");
    let (mut root, mut header) = (Table::new(), Vec::new());
    loop {
        reader.blanks();
        match reader.peek() {
            None => return Ok(root),
            Some(b'\n' | b'\r' | b'#') => {}
            Some(b'[') => {
                header = reader.header()?;
                let Some((last, path)) = header.split_last() else { continue };
                let table = descend(&mut root, path, Origin::Implied)?;
                match table.iter_mut().find(|entry| entry.key.name == last.name) {
                    Some(entry) if entry.origin == Origin::Implied => entry.origin = Origin::Header,
                    Some(_) => return twice(last),
                    None => add(table, last.clone(), Node::Table(Table::new()), Origin::Header)?,
                }
            }
            Some(_) => {
                let table = descend(&mut root, &header, Origin::Header)?;
                reader.pair(table, 0)?;
            }
        }
        reader.blanks();
        reader.comment();
        if reader.peek().is_some() && !reader.line_end() {
            return wrong(reader.at, "nothing but a comment can follow here");
        }
    }
}

fn twice<T>(key: &Key) -> Result<T> {
    wrong(key.at, format!("{} is there already", Quoted(&key.name)))
}

fn add(table: &mut Table, key: Key, node: Node, origin: Origin) -> Result<()> {
    if table.iter().any(|entry| entry.key.name == key.name) {
        return twice(&key);
    }
    if table.len() == MAX_KEYS {
        return wrong(key.at, "no table has so many keys");
    }
    table.push(Entry { key, node, origin });
    Ok(())
}

/// The table at the end of a path, of which what is missing is made: by a header (`Implied`), for one (`Header`), or by a
/// dotted key (`Dotted`).
fn descend<'t>(mut table: &'t mut Table, path: &[Key], by: Origin) -> Result<&'t mut Table> {
    for key in path {
        if !table.iter().any(|entry| entry.key.name == key.name) {
            add(table, key.clone(), Node::Table(Table::new()), by)?;
        }
        let found = table.iter_mut().find(|entry| entry.key.name == key.name);
        table = match found {
            Some(Entry { node: Node::Table(table), origin, .. })
                if *origin != Origin::Value && (by != Origin::Dotted || *origin != Origin::Header) =>
            {
                table
            }
            _ => return twice(key),
        };
    }
    Ok(table)
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip(&mut self, text: &str) -> bool {
        let is = self.rest().starts_with(text);
        self.at += if is { text.len() } else { 0 };
        is
    }

    fn while_in(&mut self, is: fn(char) -> bool) -> &'t str {
        let rest = self.rest();
        let len = rest.find(|c| !is(c)).unwrap_or(rest.len());
        self.at += len;
        rest.get(..len).unwrap_or_default()
    }

    fn blanks(&mut self) {
        self.while_in(|c| matches!(c, ' ' | '\t'));
    }

    fn line_end(&mut self) -> bool {
        self.skip("\n") || self.skip("\r\n")
    }

    fn comment(&mut self) {
        if self.skip("#") {
            self.while_in(|c| !c.is_ascii_control() || c == '\t');
        }
    }

    /// Blanks, lines and comments within brackets.
    fn lines(&mut self) {
        loop {
            self.blanks();
            self.comment();
            if !self.line_end() {
                return;
            }
        }
    }

    fn expect(&mut self, text: &str) -> Result<()> {
        if self.skip(text) { Ok(()) } else { wrong(self.at, format!("`{text}` is expected here")) }
    }

    fn header(&mut self) -> Result<Vec<Key>> {
        self.expect("[")?;
        if self.peek() == Some(b'[') {
            return wrong(self.at, "no key takes an array of tables");
        }
        let path = self.path()?;
        self.expect("]")?;
        Ok(path)
    }

    /// A key with its dots, and the blanks around it.
    fn path(&mut self) -> Result<Vec<Key>> {
        let mut path = Vec::new();
        loop {
            self.blanks();
            let at = self.at;
            let name = match self.peek() {
                Some(b'"') => self.basic()?,
                Some(b'\'') => self.literal()?,
                _ => self.while_in(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')).to_owned(),
            };
            if self.at == at {
                return wrong(at, "a key is expected here");
            }
            if path.len() == MAX_DEPTH {
                return wrong(at, "no key has values nested so deep");
            }
            path.push(Key { name, at });
            self.blanks();
            if !self.skip(".") {
                return Ok(path);
            }
        }
    }

    /// `a.b = 1`
    fn pair(&mut self, table: &mut Table, depth: usize) -> Result<()> {
        let path = self.path()?;
        self.expect("=")?;
        self.blanks();
        let node = self.value(depth + path.len())?;
        let Some((last, path)) = path.split_last() else { return Ok(()) };
        add(descend(table, path, Origin::Dotted)?, last.clone(), node, Origin::Value)
    }

    fn value(&mut self, depth: usize) -> Result<Node> {
        if depth > MAX_DEPTH {
            return wrong(self.at, "no key has values nested so deep");
        }
        match self.peek() {
            Some(b'"') if self.skip("\"\"\"") => {
                self.line_end();
                self.basic_lines().map(Node::Text)
            }
            Some(b'"') => self.basic().map(Node::Text),
            Some(b'\'') if self.skip("'''") => {
                self.line_end();
                self.literal_lines().map(Node::Text)
            }
            Some(b'\'') => self.literal().map(Node::Text),
            Some(b'[') => {
                let mut list = Vec::new();
                self.list(']', |reader| {
                    list.push(reader.value(depth + 1)?);
                    Ok(())
                })?;
                Ok(Node::List(list))
            }
            Some(b'{') => {
                let mut table = Table::new();
                self.list('}', |reader| reader.pair(&mut table, depth))?;
                Ok(Node::Table(table))
            }
            _ => self.scalar(),
        }
    }

    /// What is in brackets, with commas between and perhaps after.
    fn list(&mut self, close: char, mut entry: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        self.at += 1;
        loop {
            self.lines();
            if self.skip(close.encode_utf8(&mut [0; 4])) {
                return Ok(());
            }
            entry(self)?;
            self.lines();
            if !self.skip(",") {
                return self.expect(close.encode_utf8(&mut [0; 4]));
            }
        }
    }

    /// Truth values and numbers.
    fn scalar(&mut self) -> Result<Node> {
        let at = self.at;
        let token = self.while_in(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_' | ':'));
        let unsigned = token.strip_prefix(['+', '-']).unwrap_or(token);
        match (token, unsigned) {
            ("true", _) => return Ok(Node::Bool(true)),
            ("false", _) => return Ok(Node::Bool(false)),
            (_, "inf") => {
                return Ok(Node::Float(if token.starts_with('-') { -f64::INFINITY } else { f64::INFINITY }));
            }
            (_, "nan") => return Ok(Node::Float(f64::NAN)),
            (_, "") => return wrong(at, "a value is expected here"),
            _ => {}
        }
        if token.as_bytes().contains(&b':')
            || matches!(token.as_bytes(), [b'0'..=b'9', b'0'..=b'9', b'0'..=b'9', b'0'..=b'9', b'-', ..])
        {
            return wrong(at, "no key takes a date");
        }
        match number(token, unsigned) {
            Some(node) => Ok(node),
            None if unsigned.bytes().all(|b| b.is_ascii_digit()) && !unsigned.starts_with('0') => {
                wrong(at, format!("{token} is out of range"))
            }
            None => wrong(at, format!("{token} is neither a number nor true or false; texts are in quotes")),
        }
    }

    /// A text between `"`, on one line.
    fn basic(&mut self) -> Result<String> {
        self.expect("\"")?;
        let mut text = String::new();
        while !self.skip("\"") {
            self.piece(&mut text)?;
        }
        Ok(text)
    }

    /// A text between `"""`; the beginning has been read.
    fn basic_lines(&mut self) -> Result<String> {
        let mut text = String::new();
        loop {
            if self.skip("\"\"\"") {
                self.closing_quotes('"', &mut text);
                return Ok(text);
            }
            let start = self.at;
            if self.line_end() {
                text.push_str(self.text.get(start..self.at).unwrap_or_default());
            } else if self.skip("\"") {
                text.push('"');
            } else if self
                .rest()
                .strip_prefix('\\')
                .is_some_and(|rest| rest.trim_start_matches([' ', '\t']).starts_with(['\n', '\r']))
            {
                // The line goes on where the next text is.
                self.at += 1;
                self.while_in(|c| matches!(c, ' ' | '\t' | '\n' | '\r'));
            } else {
                self.piece(&mut text)?;
            }
        }
    }

    /// Before the three quotes that end a text, one or two may belong to it.
    fn closing_quotes(&mut self, quote: char, text: &mut String) {
        for _ in 0..2 {
            if self.skip(quote.encode_utf8(&mut [0; 4])) {
                text.push(quote);
            }
        }
    }

    /// A character, or what stands for one.
    fn piece(&mut self, text: &mut String) -> Result<()> {
        let at = self.at;
        let mut rest = self.rest().chars();
        let Some(c) = rest.next() else { return wrong(at, "the text does not end") };
        if c.is_ascii_control() && c != '\t' {
            return wrong(at, "a text in quotes cannot hold this; is its end missing?");
        }
        self.at += c.len_utf8();
        if c != '\\' {
            text.push(c);
            return Ok(());
        }
        let escape = rest.next();
        self.at += escape.map_or(0, char::len_utf8);
        text.push(match escape {
            Some('b') => '\u{8}',
            Some('t') => '\t',
            Some('n') => '\n',
            Some('f') => '\u{c}',
            Some('r') => '\r',
            Some('e') => '\u{1b}',
            Some(c @ ('"' | '\\')) => c,
            Some(c @ ('x' | 'u' | 'U')) => {
                let digits = if c == 'x' {
                    2
                } else if c == 'u' {
                    4
                } else {
                    8
                };
                let hex = self.rest().get(..digits).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
                self.at += digits;
                let code = hex.and_then(|hex| u32::from_str_radix(hex, 16).ok());
                let Some(c) = code.and_then(char::from_u32) else { return wrong(at, "this is no character") };
                c
            }
            _ => return wrong(at, "this stands for nothing: a backslash itself is \\\\"),
        });
        Ok(())
    }

    /// A text between `'`.
    fn literal(&mut self) -> Result<String> {
        self.expect("'")?;
        let text = self.while_in(|c| c != '\'' && (!c.is_ascii_control() || c == '\t'));
        self.expect("'")?;
        Ok(text.to_owned())
    }

    /// A text between `'''`; the beginning has been read.
    fn literal_lines(&mut self) -> Result<String> {
        let mut text = String::new();
        loop {
            text.push_str(self.while_in(|c| c != '\'' && (!c.is_ascii_control() || c == '\t')));
            let start = self.at;
            if self.skip("'''") {
                self.closing_quotes('\'', &mut text);
                return Ok(text);
            } else if self.line_end() || self.skip("'") {
                text.push_str(self.text.get(start..self.at).unwrap_or_default());
            } else {
                return wrong(start, "the text does not end");
            }
        }
    }
}

/// A number as TOML writes them; `unsigned` is what is behind its sign.
fn number(token: &str, unsigned: &str) -> Option<Node> {
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(digits) = token.strip_prefix(prefix) {
            let digits = without_underscores(digits, |b| b.is_ascii_hexdigit())?;
            let is = digits.bytes().all(|b| char::from(b).is_digit(radix));
            return i64::from_str_radix(digits.get(..).filter(|_| is)?, radix).ok().map(Node::Int);
        }
    }
    let digits = without_underscores(token, |b| b.is_ascii_digit())?;
    let whole = unsigned.bytes().take_while(|b| b.is_ascii_digit() || *b == b'_').count();
    if whole == 0 || whole > 1 && unsigned.starts_with('0') {
        return None;
    }
    if whole == unsigned.len() {
        digits.parse().ok().map(Node::Int)
    } else {
        decimal(&digits).map(Node::Float)
    }
}

/// Each stands between two digits.
fn without_underscores(text: &str, is_digit: fn(&u8) -> bool) -> Option<String> {
    let bytes = text.as_bytes();
    let stands = |at: usize| {
        let before = at.checked_sub(1).and_then(|before| bytes.get(before));
        before.is_some_and(is_digit) && bytes.get(at + 1).is_some_and(is_digit)
    };
    let well = (0..bytes.len()).all(|at| bytes.get(at) != Some(&b'_') || stands(at));
    well.then(|| text.replace('_', ""))
}

#[cfg(test)]
mod tests;
