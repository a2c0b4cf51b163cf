//! What `--help` prints, from the definitions.

use super::definition::{COMMANDS, Definition, Opt};
use bpf_loader::text::split_once;

/// Columns of a line.
const WIDTH: usize = 80;
/// Columns between two spaces and the text of an option, at most.
const MOST: usize = 22;

/// Of the program.
pub fn overview() -> String {
    let mut text = String::from(
        "ebpf-otlp: what a Linux machine does, seen through eBPF, as OpenTelemetry\n\nUsage: ebpf-otlp COMMAND [OPTIONS]\n\n",
    );
    let width = COMMANDS.iter().map(|command| command.name.len()).max().unwrap_or(0) + 2;
    for command in &COMMANDS {
        item(&mut text, command.name, command.about, width);
    }
    text.push_str("\n  --help, --version; `ebpf-otlp COMMAND --help` lists a command's options\n");
    text
}

/// Of a command.
pub fn of(command: &Definition) -> String {
    let mut text = format!("Usage: {}\n\n", synopsis(command));
    let mut paragraphs = Some(command.text);
    while let Some(rest) = paragraphs {
        let (paragraph, after) =
            split_once(rest, "\n\n").map_or((rest, None), |(one, after)| (one, Some(after)));
        wrap(&mut text, paragraph, 0, 0);
        text.push('\n');
        paragraphs = after;
    }
    let width = command.options.iter().map(|option| left(option).len() + 2).max().unwrap_or(0).min(MOST);
    for option in command.options {
        item(&mut text, &left(option), &about(option), width);
    }
    if command.options.is_empty() {
        // The line between paragraphs.
        text.pop();
    }
    text
}

/// `ebpf-otlp load OBJECT... [OPTIONS]`
pub fn synopsis(command: &Definition) -> String {
    let operands =
        command.operands.as_ref().map(|operands| format!(" {}", operands.name)).unwrap_or_default();
    let options = if command.options.is_empty() { "" } else { " [OPTIONS]" };
    format!("ebpf-otlp {}{operands}{options}", command.name)
}

/// `--option VALUE`
pub fn left(option: &Opt) -> String {
    if option.value.is_empty() { option.name.to_owned() } else { format!("{} {}", option.name, option.value) }
}

/// What an option does, and whether it may be repeated.
pub fn about(option: &Opt) -> String {
    format!("{}{}", option.help, if option.repeatable { "; repeatable" } else { "" })
}

fn item(text: &mut String, left: &str, right: &str, width: usize) {
    text.push_str("  ");
    text.push_str(left);
    let mut at = 2 + left.chars().count();
    if at + 2 > 2 + width {
        text.push('\n');
        at = 0;
    }
    text.push_str(&" ".repeat(2 + width - at));
    wrap(text, right, 2 + width, 2 + width);
}

/// Adds lines of words, the first from column `at`, others behind `indent` spaces.
fn wrap(text: &mut String, words: &str, mut at: usize, indent: usize) {
    let start = at;
    for word in words.split_whitespace() {
        if at > start.min(indent) && at + 1 + word.len() > WIDTH {
            text.push('\n');
            text.push_str(&" ".repeat(indent));
            at = indent;
        } else if at > start.min(indent) {
            text.push(' ');
            at += 1;
        }
        text.push_str(word);
        at += word.len();
    }
    text.push('\n');
}
