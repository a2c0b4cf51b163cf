//! The pages of documentation: blocks of code, links, headings.

use std::fs;
use std::path::{Path, PathBuf};

/// Before a block: its commands are looked at, and not run.
const MARKER: &str = "<!-- not run: ";

/// A file of Markdown.
#[derive(Debug)]
pub struct Page {
    /// From the project's folder.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// A block of code between fences.
#[derive(Debug)]
pub struct Block<'p> {
    /// Where it is.
    pub page: &'p Page,
    /// The line of its first line.
    pub line: usize,
    /// What follows the fence: `sh`, `rust,no_run`.
    pub language: &'p str,
    /// Why its commands are not run, where a comment before it says so.
    pub not_run: Option<&'p str>,
    /// What is in it.
    pub lines: Vec<&'p str>,
}

/// A link to another place of the project.
#[derive(Debug)]
pub struct Link {
    /// The line.
    pub line: usize,
    /// The file, from the project's folder.
    pub file: PathBuf,
    /// What follows `#`.
    pub anchor: Option<String>,
}

/// The project's folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the project is there")
}

/// The README of the project and of each crate, and everything in `docs`.
pub fn all() -> Vec<Page> {
    let root = root();
    let mut paths = Vec::new();
    for folder in
        ["", "docs", "bpf-sys", "bpf-loader", "bpf-programs", "otlp-encode", "collector", "fuzz", "deploy"]
    {
        for entry in fs::read_dir(root.join(folder)).into_iter().flatten().flatten() {
            let path = entry.path();
            // The changelog tells what was: its links are to what may have gone.
            if path.extension().is_some_and(|ending| ending == "md") && !path.ends_with("CHANGELOG.md") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a page of text");
        Page { path: path.strip_prefix(&root).expect("below the root").to_owned(), text }
    };
    paths.into_iter().map(read).collect()
}

impl Page {
    /// Every block.
    ///
    /// # Panics
    ///
    /// One does not end.
    pub fn blocks(&self) -> Vec<Block<'_>> {
        let mut blocks = Vec::new();
        let mut lines = self.text.lines().enumerate();
        let mut not_run = None;
        while let Some((at, line)) = lines.next() {
            let Some(language) = line.trim_start().strip_prefix("```") else {
                let reason = line.strip_prefix(MARKER).and_then(|rest| rest.strip_suffix(" -->"));
                not_run = reason.or(not_run.filter(|_| line.trim().is_empty()));
                continue;
            };
            let mut block =
                Block { page: self, line: at + 2, language, not_run: not_run.take(), lines: Vec::new() };
            loop {
                let (_, line) = lines.next().unwrap_or_else(|| panic!("{} does not end", block.place(0)));
                if line.trim_start() == "```" {
                    break;
                }
                block.lines.push(line);
            }
            blocks.push(block);
        }
        blocks
    }

    /// Lines that are no code, with what is quoted as code left out.
    fn prose(&self) -> impl Iterator<Item = (usize, String)> {
        let mut inside = false;
        self.text.lines().enumerate().filter_map(move |(at, line)| {
            let fence = line.trim_start().starts_with("```");
            inside ^= fence;
            let parts = line.split('`').enumerate().filter(|(part, _)| part % 2 == 0);
            (!inside && !fence).then(|| (at + 1, parts.map(|(_, text)| text).collect()))
        })
    }

    /// Links that lead to files.
    pub fn links(&self) -> Vec<Link> {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let mut links = Vec::new();
        for (line, text) in self.prose() {
            for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                if target.contains("://") {
                    continue;
                }
                let (file, anchor) = match target.split_once('#') {
                    Some((file, anchor)) => (file, Some(anchor.to_owned())),
                    None => (target, None),
                };
                let file = if file.is_empty() { self.path.clone() } else { folder.join(file) };
                links.push(Link { line, file, anchor });
            }
        }
        links
    }

    /// What links may call its headings.
    pub fn anchors(&self) -> Vec<String> {
        let mut inside = false;
        let headings = self.text.lines().filter(|line| {
            inside ^= line.starts_with("```");
            !inside && line.starts_with('#')
        });
        let slug = |heading: &str| -> String {
            let words = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        };
        headings.map(slug).collect()
    }
}

impl Block<'_> {
    /// `docs/agent.md:12`
    pub fn place(&self, line: usize) -> String {
        format!("{}:{}", self.page.path.display(), self.line + line)
    }

    /// The commands of a shell, with their lines: continued ones as one, comments and empty lines left out.
    pub fn commands(&self) -> Vec<(usize, String)> {
        let mut commands: Vec<(usize, String)> = Vec::new();
        let mut continued = false;
        for (at, line) in self.lines.iter().enumerate() {
            // What is behind `  #` is a comment; a `#` in a word is none.
            let line =
                if line.starts_with('#') { "" } else { line.split(" #").next().unwrap_or(line) }.trim();
            let (line, more) = line.strip_suffix('\\').map_or((line, false), |line| (line.trim_end(), true));
            match commands.last_mut().filter(|_| continued) {
                Some((_, command)) => *command = format!("{command} {line}"),
                None if line.is_empty() => {}
                None => commands.push((at, line.to_owned())),
            }
            continued = more;
        }
        commands
    }
}
