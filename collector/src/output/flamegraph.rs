//! Flame graphs: one self-contained SVG, with search, zoom and details on hover in a browser, and readable
//! without scripts anywhere else.
//!
//! The base is the process' name. Colours tell what code is (kernel orange, the program's own red, libraries
//! yellow, just-in-time compiled green), with a shade that depends on the name alone, so that two pictures can be
//! compared.

use std::fmt;
use std::io::{self, Write};

use super::names::Names;
use super::summary;
use super::tree::{Class, Node, Tree};
use crate::model::Profile;

const STYLE: &str = include_str!("flamegraph.css");
const SCRIPT: &str = include_str!("flamegraph.js");

/// Width without scripts; with them, the window's.
const WIDTH: f64 = 1200.0;
/// The window is not filled below this.
const MIN_WIDTH: u32 = 640;
const PAD: f64 = 10.0;
/// Room for title, subtitle and legend.
const TOP: usize = 84;
/// Room for the details line.
const BOTTOM: usize = 30;
const ROW: usize = 17;
/// Space between neighbours, where they are wide enough for one.
const GAP: f64 = 0.5;
/// Frames narrower than this are left out; their time still shows in their callers.
const MIN_PIXELS: f64 = 0.1;
/// Width of a character of the 12 px monospace font, a little generous.
const CHAR_PIXELS: f64 = 7.25;

const LEGEND: [(Class, &str); 5] = [
    (Class::Process, "process"),
    (Class::Kernel, "kernel"),
    (Class::Program, "program"),
    (Class::Library, "library"),
    (Class::Jit, "JIT"),
];

/// Writes `profile`, taken on `host`, as a flame graph.
///
/// # Errors
///
/// What `out` says.
pub fn write(profile: &Profile, host: &str, out: &mut impl Write) -> io::Result<()> {
    let names = Names::new(profile);
    let tree = Tree::new(profile, &names);
    let height = TOP + (tree.depth + 1) * ROW + BOTTOM;
    writeln!(
        out,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" data-total=\"{}\" data-pad=\"{PAD}\" data-gap=\"{GAP}\" data-min-width=\"{MIN_WIDTH}\">\n\
         <style>\n{STYLE}</style>\n<script><![CDATA[\n{SCRIPT}]]></script>\n\
         <rect id=\"background\" width=\"100%\" height=\"100%\"/>",
        tree.total()
    )?;
    write_header(profile, host, out)?;
    writeln!(out, "<text id=\"details\" x=\"{PAD}\" y=\"{}\"></text>\n<g id=\"frames\">", height - 10)?;
    write_frames(profile, &tree, height, out)?;
    writeln!(out, "</g>\n</svg>")
}

fn write_header(profile: &Profile, host: &str, out: &mut impl Write) -> io::Result<()> {
    let subtitle = format!("{}; {}", summary::samples_line(profile), summary::losses_line(profile));
    writeln!(
        out,
        "<text id=\"title\" x=\"{PAD}\" y=\"26\">{}</text>\n<text id=\"subtitle\" x=\"{PAD}\" y=\"46\">{}</text>",
        Xml(&summary::title(profile, host)),
        Xml(&subtitle)
    )?;
    let mut x = PAD;
    for (class, name) in LEGEND {
        writeln!(
            out,
            "<rect x=\"{x}\" y=\"58\" width=\"12\" height=\"12\" fill=\"{}\"/>\
             <text class=\"legend\" x=\"{}\" y=\"68\">{name}</text>",
            Fill::new(class, ""),
            x + 17.0
        )?;
        x += 40.0 + name.len() as f64 * CHAR_PIXELS;
    }
    writeln!(out, "<text id=\"matched\" x=\"{}\" y=\"68\"></text>", x + 10.0)?;
    for (id, label, right, hidden) in [
        ("search", "Search (Ctrl-F)", 10.0, ""),
        ("clear", "Clear search", 140.0, " hidden"),
        ("unzoom", "Reset zoom", 250.0, " hidden"),
    ] {
        writeln!(
            out,
            "<text id=\"{id}\" class=\"button{hidden}\" data-right=\"{right}\" x=\"{}\" y=\"26\" \
             text-anchor=\"end\">{label}</text>",
            WIDTH - right
        )?;
    }
    Ok(())
}

/// Frames parents first, siblings in order: the script counts on it.
fn write_frames(profile: &Profile, tree: &Tree, height: usize, out: &mut impl Write) -> io::Result<()> {
    let total = tree.total();
    let scale = if total == 0 { 0.0 } else { (WIDTH - 2.0 * PAD) / total as f64 };
    let mut waiting = vec![(0, 0, 0_u64)];
    while let Some((index, level, start)) = waiting.pop() {
        let Some(node) = tree.get(index) else { continue };
        let width = if level == 0 { WIDTH - 2.0 * PAD } else { node.total as f64 * scale };
        if width < MIN_PIXELS {
            continue;
        }
        let x = PAD + start as f64 * scale;
        let y = height - BOTTOM - (level + 1) * ROW;
        write!(
            out,
            "<g data-s=\"{start}\" data-n=\"{}\" data-l=\"{level}\"><title>{}&#10;",
            node.total,
            Xml(&node.name)
        )?;
        if !node.module.is_empty() && !node.name.starts_with('[') {
            write!(out, "{}, ", Xml(&node.module))?;
        }
        let drawn = if width > GAP * 4.0 { width - GAP } else { width };
        writeln!(
            out,
            "{} samples, {:.2}%, {:.2} s</title>\
             <rect x=\"{x:.1}\" y=\"{y}\" width=\"{drawn:.1}\" height=\"{}\" fill=\"{}\"/>\
             <text x=\"{:.1}\" y=\"{}\">{}</text></g>",
            node.total,
            summary::percent(node.total, total),
            summary::cpu_seconds(profile, node.total),
            ROW - 1,
            Fill::new(node.class, &node.name),
            x + 3.0,
            y + 12,
            Xml(&label(node, width))
        )?;
        // Pushed last to first, so that they are taken in order.
        let mut end = start + node.total.saturating_sub(node.own);
        for child in node.children.iter().rev() {
            end = end.saturating_sub(tree.get(*child).map_or(0, |child| child.total));
            waiting.push((*child, level + 1, end));
        }
    }
    Ok(())
}

/// As much of the name as fits into `width` pixels; nothing where it would say nothing.
fn label(node: &Node, width: f64) -> String {
    let room = ((width - 6.0) / CHAR_PIXELS).max(0.0) as usize;
    if room < 3 {
        return String::new();
    }
    if node.name.chars().count() <= room {
        return node.name.to_string();
    }
    node.name.chars().take(room - 1).chain(['\u{2026}']).collect()
}

/// A colour: its class gives the hue, the name the shade.
struct Fill {
    red: u8,
    green: u8,
    blue: u8,
}

impl Fill {
    fn new(class: Class, name: &str) -> Self {
        // FNV-1a: small, and the same everywhere and always.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let shade = (hash >> 32) as u8;
        // Base colour, and how far each part may rise.
        let ([red, green, blue], rise) = match class {
            Class::Root => ([196, 200, 206], [0, 0, 0]),
            Class::Process => ([160, 182, 208], [14, 14, 14]),
            Class::Kernel => ([240, 138, 36], [12, 26, 26]),
            Class::Program => ([232, 98, 84], [16, 36, 36]),
            Class::Library => ([238, 204, 84], [12, 22, 50]),
            Class::Jit => ([96, 188, 96], [40, 30, 40]),
        };
        let raise = |base: u8, rise: u16| base.saturating_add((u16::from(shade) * rise / 255) as u8);
        Self { red: raise(red, rise[0]), green: raise(green, rise[1]), blue: raise(blue, rise[2]) }
    }
}

impl fmt::Display for Fill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:02x}{:02x}{:02x}", self.red, self.green, self.blue)
    }
}

/// Text as XML text or attribute value; characters that XML cannot hold become `?`.
struct Xml<'a>(&'a str);

impl fmt::Display for Xml<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\u{fffe}' | '\u{ffff}' => f.write_char('?')?,
                c if c.is_control() => f.write_char('?')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::fixture::{self, Fixture};

    fn svg(profile: &Profile) -> String {
        let mut out = Vec::new();
        write(profile, "web-1 <&>", &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// The value of an attribute of the frame whose title starts with `title`.
    fn attribute(svg: &str, title: &str, name: &str) -> f64 {
        let group = svg.lines().find(|line| line.contains(&format!("<title>{title}"))).unwrap();
        let value = group.split(&format!(" {name}=\"")).nth(1).unwrap();
        value.split('"').next().unwrap().parse().unwrap()
    }

    #[test]
    fn widths_are_shares_and_children_lie_over_their_caller() {
        let mut fixture = Fixture::default();
        let process = fixture.process(1, "app", "/bin/app");
        fixture.sample(process, "main;a", 70);
        fixture.sample(process, "main;b", 20);
        fixture.sample(process, "main", 10);
        let svg = svg(&fixture.finish());
        assert_eq!(attribute(&svg, "all", "width"), 1180.0 - GAP);
        assert_eq!(attribute(&svg, "a&", "width"), 826.0 - GAP);
        assert_eq!(attribute(&svg, "b&", "width"), 236.0 - GAP);
        assert_eq!(attribute(&svg, "b&", "x"), 10.0 + 826.0);
        assert_eq!(attribute(&svg, "b&", "data-s"), 70.0);
        assert_eq!(attribute(&svg, "main&", "y") - attribute(&svg, "b&", "y"), ROW as f64);
        assert!(svg.contains("<title>a&#10;app, 70 samples, 70.00%, 0.71 s</title>"));
        assert!(svg.contains("100 samples, 1.01 s of CPU time; lost: 0 of 100 busy periods"));
    }

    #[test]
    fn markup_in_names_stays_text() {
        let svg = svg(&fixture::server());
        assert!(svg.contains("CPU profile of web-1 &lt;&amp;&gt;, 10.0 s at 99 Hz"));
        assert!(svg.contains("ba?sh &lt;&amp;&gt;"));
        assert!(!svg.contains('\u{1b}'));
        assert_eq!(Xml("a\u{0}\u{ffff}\"'").to_string(), "a??&quot;'");
        assert_eq!(SCRIPT.find("]]>"), None);
        assert_eq!(STYLE.find('<'), None);
    }

    #[test]
    fn every_element_is_closed() {
        let svg = svg(&fixture::server());
        let markup =
            [svg.split("<style>").next().unwrap(), svg.split("]]></script>").nth(1).unwrap()].concat();
        let closed = markup.matches("</").count();
        let empty = markup.matches("/>").count();
        let opened = markup.matches('<').count() - closed - markup.matches("<?").count();
        assert_eq!(opened, closed + empty);
    }

    #[test]
    fn equal_profiles_give_equal_pictures() {
        let profile = fixture::server();
        let mut reordered = profile.clone();
        reordered.samples.reverse();
        assert_eq!(svg(&profile), svg(&reordered));
        assert_eq!(
            Fill::new(Class::Kernel, "schedule").to_string(),
            Fill::new(Class::Kernel, "schedule").to_string()
        );
        assert_ne!(
            Fill::new(Class::Kernel, "schedule").to_string(),
            Fill::new(Class::Jit, "schedule").to_string()
        );
    }

    #[test]
    fn nothing_sampled_is_a_picture_too() {
        let svg = svg(&Profile::default());
        assert!(svg.contains("<title>all&#10;0 samples, 0.00%, 0.00 s</title>"));
        assert!(!svg.contains("NaN"));
    }

    #[test]
    fn frames_too_narrow_to_see_are_left_out() {
        let mut fixture = Fixture::default();
        let process = fixture.process(1, "app", "/bin/app");
        fixture.sample(process, "main;big", 1_000_000);
        fixture.sample(process, "main;small", 1);
        let svg = svg(&fixture.finish());
        assert!(svg.contains("<title>big"));
        assert!(!svg.contains("<title>small"));
    }
}
