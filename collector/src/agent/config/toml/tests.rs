use super::*;

/// What the `toml` crate reads, in our types.
fn reference(text: &str) -> Option<Node> {
    fn convert(value: &::toml::de::DeValue<'_>) -> Option<Node> {
        use ::toml::de::DeValue;
        Some(match value {
            DeValue::String(text) => Node::Text(text.to_string()),
            DeValue::Integer(n) => Node::Int(i64::from_str_radix(n.as_str(), n.radix()).ok()?),
            DeValue::Float(n) => Node::Float(n.as_str().parse().ok()?),
            DeValue::Boolean(b) => Node::Bool(*b),
            DeValue::Datetime(_) => return None,
            DeValue::Array(entries) => {
                Node::List(entries.iter().map(|entry| convert(entry.get_ref())).collect::<Option<_>>()?)
            }
            DeValue::Table(table) => {
                let entry = |(key, value): (&::toml::Spanned<_>, &::toml::Spanned<_>)| {
                    let name = <std::borrow::Cow<'_, str>>::to_string(key.get_ref());
                    let key = Key { name, at: key.span().start };
                    Some(Entry { key, node: convert(value.get_ref())?, origin: Origin::Value })
                };
                Node::Table(table.iter().map(entry).collect::<Option<_>>()?)
            }
        })
    }
    let table = ::toml::de::DeTable::parse(text).ok()?;
    convert(&::toml::de::DeValue::Table(table.into_inner()))
}

/// In the order of the reference, and without what it does not know.
fn plain(node: Node) -> Node {
    let table = match node {
        Node::Table(table) => table,
        Node::List(entries) => return Node::List(entries.into_iter().map(plain).collect()),
        node => return node,
    };
    let mut table: Table = table
        .into_iter()
        .map(|entry| Entry { node: plain(entry.node), origin: Origin::Value, ..entry })
        .collect();
    table.sort_by(|a, b| a.key.name.cmp(&b.key.name));
    Node::Table(table)
}

fn same(ours: Option<&Node>, theirs: Option<&Node>) -> bool {
    // Positions of keys in tables that nobody wrote a header for are anybody's; NaN is nothing's equal.
    let show = |node: Option<&Node>| {
        let text = format!("{node:?}");
        let mut parts = text.split("at: ");
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |all, part| all + part.trim_start_matches(|c: char| c.is_ascii_digit()))
    };
    show(ours) == show(theirs)
}

#[track_caller]
fn agree(text: &str) {
    let (ours, theirs) = (parse(text).ok().map(|table| plain(Node::Table(table))), reference(text));
    assert!(same(ours.as_ref(), theirs.as_ref()), "{text:?}:\n{ours:?}\n{theirs:?}\n{:?}", parse(text).err());
}

const VALUES: &[&str] = &[
    "1",
    "+1",
    "-1",
    "0",
    "-0",
    "01",
    "1_000",
    "1__0",
    "_1",
    "1_",
    "0x1F",
    "0xg",
    "0x_1",
    "0x1_f",
    "-0x1",
    "0o17",
    "0o8",
    "0b101",
    "0b2",
    "9223372036854775807",
    "1.5",
    "-1.5",
    "+0.25",
    "1.",
    ".5",
    "1.e1",
    "1e3",
    "1E-3",
    "1e+2",
    "1.5e3",
    "1_0.2_5",
    "1._5",
    "1e",
    "1e_1",
    "inf",
    "-inf",
    "+inf",
    "infinity",
    "nan",
    "-nan",
    "true",
    "false",
    "True",
    "tru",
    "truex",
    "\"\"",
    "\"a\"",
    "\"a\\tb\\\\\\\"\"",
    "\"\\u00e9\\U0001F600\\x41\\e\"",
    "\"\\ud800\"",
    "\"\\q\"",
    "\"\\u12\"",
    "\"é\"",
    "\"a",
    "\"a\nb\"",
    "\"a\tb\"",
    "\"a\u{1}b\"",
    "\"a\u{7f}b\"",
    "'a\\b'",
    "'a",
    "'a\nb'",
    "''",
    "\"\"\"a\"\"\"",
    "\"\"\"\na\nb\"\"\"",
    "\"\"\"a\\\n   b\"\"\"",
    "\"\"\"a\\  \n\n   b\"\"\"",
    "\"\"\"a\"\"b\"\"\"",
    "\"\"\"a\"\"\"\"\"",
    "\"\"\"a\"\"\"\"\"\"",
    "\"\"\"\"\"\"",
    "\"\"\"a",
    "'''\na\\\nb'''",
    "'''a''b'''''",
    "'''a",
    "''''''",
    "[]",
    "[1]",
    "[1,]",
    "[,]",
    "[1 2]",
    "[1,\n # comment\n 2\n]",
    "[[1], [\"a\"]]",
    "[1",
    "{}",
    "{a = 1}",
    "{a = 1, b.c = 2, b.d = 3}",
    "{a = 1, a = 2}",
    "{a = 1,}",
    "{\n a = 1,\n}",
    "{a = {b = [1, {c = 2}]}}",
    "{a = 1",
    "{a}",
    "",
    "=",
    "a",
    "1 2",
    "1 # x",
    "[ ]",
    "1979",
    "\"\\\n\"",
    "1:2",
    "--1",
    "+-1",
    "1-2",
    "0.0",
    "00.1",
    "0e0",
    "\u{e9}",
    "[\"é\"]",
];

const FILES: &[&str] = &[
    "",
    "\n\n",
    "# comment",
    "#\u{1}",
    "a = 1\nb = 2",
    "a = 1\r\nb = 2\r\n",
    "a = 1\rb = 2",
    "a = 1 b = 2",
    "\u{feff}a = 1",
    "a = 1\na = 2",
    "a.b = 1\na.c = 2",
    "a.b = 1\na = 2",
    "a = 1\na.b = 2",
    "a = {b = 1}\na.c = 2",
    "\"a b\" = 1",
    "'a' = 1",
    "\"\" = 1",
    "\"\"\"a\"\"\" = 1",
    "a . b = 1",
    "a..b = 1",
    ".a = 1",
    "a. = 1",
    "é = 1",
    "1 = 2",
    "-_ = 1",
    "3.14 = 1",
    "[a]\nb = 1\n[c]\nd = 1",
    "[a]\n[a]",
    "[a.b]\n[a]\nc = 1",
    "[a]\nb = 1\n[a.b]",
    "[a]\nb.c = 1\n[a.b]",
    "[a]\nb.c = 1\n[a.b.d]\ne = 1",
    "[a.b.c]\nz = 9\n[a]\nb.c.t = 9",
    "[a.b.c]\nz = 9\n[a]\nb.t = 9",
    "[a]\nb = {c = 1}\n[a.b.d]",
    "[ a . \"b c\" ]\nd = 1",
    "[a] # x",
    "[a] b = 1",
    "[a",
    "[]",
    "[a.]",
    "[a]]",
    "a = 1\n[a]",
    "a = 1\n[a.b]",
    "[a.b]\n[a.c]\n[a]\n[a.b]",
    "a = [\n1, # one\n2\n]\nb = 1",
    "a = \"\"\"x\r\ny\"\"\"",
    "a = [{b = 1}, {b = 2}]",
    "   a   =   1   ",
    "\ta = 1",
    "a =\n1",
    "a\n= 1",
    "a = 1 # \t é",
    "a = '''\r\nx'''",
];

#[test]
fn it_reads_what_the_reference_does() {
    for value in VALUES {
        agree(&format!("a = {value}"));
        agree(&format!("a = [{value}]\nb = {{ c = {value} }}"));
    }
    FILES.iter().for_each(|file| agree(file));
    let example = crate::agent::config::example();
    agree(&example);
    let uncommented: Vec<_> = example.lines().map(|line| line.strip_prefix('#').unwrap_or(line)).collect();
    uncommented.iter().for_each(|line| agree(line));
}

#[test]
fn cut_and_changed_files_are_no_trouble() {
    let whole = FILES.join("\n") + &VALUES.iter().map(|value| format!("k = {value}\n")).collect::<String>();
    for file in
        FILES.iter().map(|file| (*file).to_owned()).chain(VALUES.iter().map(|value| format!("k = {value}")))
    {
        for cut in (0..=file.len()).filter(|cut| file.is_char_boundary(*cut)) {
            agree(&file[..cut]);
        }
    }
    for start in (0..whole.len()).step_by(7).filter(|start| whole.is_char_boundary(*start)) {
        let _ = parse(&whole[start..]);
    }
}

#[test]
fn what_is_refused_beyond_the_format() {
    let said = |text: &str| parse(text).unwrap_err().what;
    assert!(said("a = 1979-05-27").contains("date"));
    assert!(said("a = 07:32:00").contains("date"));
    assert!(said("[[a]]").contains("array of tables"));
    assert!(said("a = 9223372036854775808").contains("out of range"));
    assert!(said("a = yes").contains("in quotes"));
    assert!(said(&format!("a = {}", "[".repeat(100_000))).contains("so deep"));
    assert!(said(&format!("a = {}", "{a=".repeat(100_000))).contains("so deep"));
    assert!(said(&format!("[{}a]", "a.".repeat(100_000))).contains("so deep"));
    let many: String = (0..=MAX_KEYS).map(|n| format!("a{n} = 1\n")).collect();
    assert!(said(&many).contains("so many keys"));
}
