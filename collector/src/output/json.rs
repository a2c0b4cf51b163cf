//! JSON for `--json`: `serde` structs (or `serde_json::json!`), a line each.

use std::io::{self, Write};

use serde::Serialize;

/// Writes `value` as one line of JSON.
///
/// # Errors
///
/// What `out` says; [`io::ErrorKind::InvalidData`] for maps whose keys are no strings.
pub fn write_line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Program<'a> {
        name: &'a str,
        errno: Option<i32>,
        share: f64,
    }

    #[test]
    fn one_line_whatever_the_text() {
        let mut out = Vec::new();
        let program = Program { name: "a\n\"\u{1}\u{2028}é", errno: None, share: f64::NAN };
        write_line(&mut out, &program).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "{\"name\":\"a\\n\\\"\\u0001\u{2028}é\",\"errno\":null,\"share\":null}\n");
    }
}
