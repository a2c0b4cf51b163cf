//! Flame graphs: one self-contained SVG, which in a browser fills the page, turns over, zooms and searches, by mouse, touch and
//! keyboard, and is readable without scripts anywhere else; and the same as an HTML page, which telephones show at their width.
//!
//! The base is the process' name. Colours tell what code is (kernel orange, the program's own red, libraries
//! yellow, just-in-time compiled green), with a shade that depends on the name alone, so that two pictures can be
//! compared.

#[cfg(feature = "compare")]
mod difference;
mod fill;

use std::fmt;
use std::io::{self, Write};

#[cfg(feature = "compare")]
pub use difference::{write as write_difference, write_html as write_html_difference};

use super::names::Names;
use super::summary;
use super::timeline::Timeline;
use super::tree::{Class, Node, Tree};
use crate::model::Profile;
use fill::Fill;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Width without scripts; with them, the window's.
const WIDTH: f64 = 1200.0;
const PAD: f64 = 10.0;
/// Room for title, subtitle and legend.
const TOP: usize = 84;
const BOTTOM: usize = 10;
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

/// What a flame graph is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Container {
    /// A picture, with a script in it.
    Svg,
    /// A page with that picture.
    Html,
}

/// Writes `profile`, taken on `host`, as a flame graph: an SVG.
///
/// # Errors
///
/// What `out` says.
pub fn write(profile: &Profile, host: &str, out: &mut impl Write) -> io::Result<()> {
    write_as(Container::Svg, profile, host, out)
}

/// The same as an HTML page.
///
/// # Errors
///
/// What `out` says.
pub fn write_html(profile: &Profile, host: &str, out: &mut impl Write) -> io::Result<()> {
    write_as(Container::Html, profile, host, out)
}

/// The same as an HTML page in which a part of the time can be chosen.
///
/// # Errors
///
/// What `out` says.
pub fn write_over_time(
    profile: &Profile,
    host: &str,
    timeline: &Timeline,
    out: &mut impl Write,
) -> io::Result<()> {
    let slots = Slots { seconds: timeline.slot_seconds(), count: timeline.slots() };
    write_tree(Container::Html, profile, host, &timeline.tree(), Some(slots), out)
}

fn write_as(container: Container, profile: &Profile, host: &str, out: &mut impl Write) -> io::Result<()> {
    let tree = Tree::new(profile, &Names::new(profile));
    write_tree(container, profile, host, &tree, None, out)
}

fn write_tree(
    container: Container,
    profile: &Profile,
    host: &str,
    tree: &Tree,
    slots: Option<Slots>,
    out: &mut impl Write,
) -> io::Result<()> {
    let total = tree.total();
    let picture = Picture {
        title: summary::title(profile, host),
        subtitle: format!("{}; {}", summary::samples_line(profile), summary::losses_line(profile)),
        legend: LEGEND.map(|(class, name)| (Fill::of(class, ""), name)).to_vec(),
        tree,
        before: None,
        slots,
        fill: &|node| Fill::of(node.class, &node.name),
        numbers: &|node| {
            let (share, time) =
                (summary::percent(node.total, total), summary::cpu_seconds(profile, node.total));
            if summary::is_off_cpu(profile) {
                return format!("{share:.2}%, {time:.3} s");
            }
            format!("{} samples, {share:.2}%, {time:.2} s", node.total)
        },
    };
    picture.write(container, out)
}

/// How a tree counts time.
struct Slots {
    seconds: u64,
    count: u64,
}

/// What is drawn.
struct Picture<'a> {
    title: String,
    subtitle: String,
    legend: Vec<(Fill, &'static str)>,
    tree: &'a Tree,
    /// All samples of the profile that this one is compared with.
    before: Option<u64>,
    slots: Option<Slots>,
    fill: &'a dyn Fn(&Node) -> Fill,
    /// What is told of a node beside its name.
    numbers: &'a dyn Fn(&Node) -> String,
}

impl Picture<'_> {
    fn write(&self, container: Container, out: &mut impl Write) -> io::Result<()> {
        match container {
            Container::Svg => {
                writeln!(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>")?;
                self.write_svg(
                    |out| writeln!(out, "<style>\n{STYLE}</style>\n<script><![CDATA[\n{SCRIPT}]]></script>"),
                    out,
                )
            }
            Container::Html => {
                writeln!(
                    out,
                    "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
                     <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
                     <title>{}</title>\n<style>\n{STYLE}</style>\n<script>\n{SCRIPT}</script>\n</head>\n<body>",
                    Xml(&self.title)
                )?;
                self.write_svg(|_| Ok(()), out)?;
                writeln!(out, "</body>\n</html>")
            }
        }
    }

    fn write_svg<W: Write>(
        &self,
        begin: impl FnOnce(&mut W) -> io::Result<()>,
        out: &mut W,
    ) -> io::Result<()> {
        let height = TOP + (self.tree.depth + 1) * ROW + BOTTOM;
        write!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
             viewBox=\"0 0 {WIDTH} {height}\" data-pad=\"{PAD}\" data-gap=\"{GAP}\""
        )?;
        if let Some(before) = self.before {
            write!(out, " data-before=\"{before}\"")?;
        }
        if let Some(slots) = &self.slots {
            write!(out, " data-slots=\"{}\" data-slot-seconds=\"{}\"", slots.count, slots.seconds)?;
        }
        writeln!(out, ">")?;
        begin(out)?;
        self.write_header(out)?;
        writeln!(out, "<g id=\"frames\">")?;
        self.write_frames(height, out)?;
        writeln!(out, "</g>\n</svg>")
    }

    fn write_header(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "<rect id=\"background\" width=\"100%\" height=\"100%\"/>\n<g id=\"head\">\n\
             <text id=\"title\" x=\"{PAD}\" y=\"26\">{}</text>\n<text id=\"subtitle\" x=\"{PAD}\" y=\"46\">{}</text>",
            Xml(&self.title),
            Xml(&self.subtitle)
        )?;
        let mut x = PAD;
        for (fill, name) in &self.legend {
            writeln!(
                out,
                "<rect class=\"legend\" x=\"{x}\" y=\"58\" width=\"12\" height=\"12\" fill=\"{fill}\"/>\
                 <text class=\"legend\" x=\"{}\" y=\"68\">{name}</text>",
                x + 17.0
            )?;
            x += 40.0 + name.len() as f64 * CHAR_PIXELS;
        }
        writeln!(out, "</g>")
    }

    /// Frames parents first, siblings in order: the script counts on it.
    fn write_frames(&self, height: usize, out: &mut impl Write) -> io::Result<()> {
        let tree = self.tree;
        let scale = |total: u64| if total == 0 { 0.0 } else { (WIDTH - 2.0 * PAD) / total as f64 };
        let (now, before) = (scale(tree.total()), scale(self.before.unwrap_or(0)));
        let mut waiting = vec![(0, 0, 0_u64)];
        while let Some((index, level, start)) = waiting.pop() {
            let Some(node) = tree.get(index) else { continue };
            let width = if level == 0 { WIDTH - 2.0 * PAD } else { node.total as f64 * now };
            if width.max(node.before as f64 * before) < MIN_PIXELS {
                continue;
            }
            let x = PAD + start as f64 * now;
            let y = height - BOTTOM - (level + 1) * ROW;
            let times = tree.times.get(index).map(Vec::as_slice).unwrap_or_default();
            self.write_frame(node, times, level, (x, y, width), out)?;
            // Pushed last to first, so that they are taken in order.
            let mut end = start + node.total.saturating_sub(node.own);
            for child in node.children.iter().rev() {
                end = end.saturating_sub(tree.get(*child).map_or(0, |child| child.total));
                waiting.push((*child, level + 1, end));
            }
        }
        Ok(())
    }

    fn write_frame(
        &self,
        node: &Node,
        times: &[(u32, u32)],
        level: usize,
        (x, y, width): (f64, usize, f64),
        out: &mut impl Write,
    ) -> io::Result<()> {
        write!(out, "<g data-n=\"{}\" data-l=\"{level}\"", node.total)?;
        if self.before.is_some() {
            write!(out, " data-b=\"{}\"", node.before)?;
        }
        for (position, (slot, count)) in times.iter().enumerate() {
            write!(out, "{}{slot}:{count}", if position == 0 { " data-t=\"" } else { " " })?;
        }
        out.write_all(if times.is_empty() { b"" } else { b"\"" })?;
        // Without scripts too: of what vanished, others tell.
        let hidden = if width < MIN_PIXELS { " class=\"hidden\"" } else { "" };
        write!(out, "{hidden}><title>{}&#10;", Xml(&node.name))?;
        if !node.module.is_empty() && !node.name.starts_with('[') {
            write!(out, "{}, ", Xml(&node.module))?;
        }
        let drawn = if width > GAP * 4.0 { width - GAP } else { width };
        writeln!(
            out,
            "{}</title><rect x=\"{x:.1}\" y=\"{y}\" width=\"{drawn:.1}\" height=\"{}\" fill=\"{}\"/>\
             <text x=\"{:.1}\" y=\"{}\">{}</text></g>",
            (self.numbers)(node),
            ROW - 1,
            (self.fill)(node),
            x + 3.0,
            y + 12,
            Xml(&label(node, width))
        )
    }
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
        assert_eq!((SCRIPT.find("]]>"), SCRIPT.find("</")), (None, None));
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

    #[test]
    fn a_page_holds_the_same_picture() {
        let profile = fixture::server();
        let mut page = Vec::new();
        write_html(&profile, "web-1 <&>", &mut page).unwrap();
        let page = String::from_utf8(page).unwrap();
        assert!(page.starts_with("<!DOCTYPE html>") && page.contains("name=\"viewport\""));
        assert!(page.contains("<title>CPU profile of web-1 &lt;&amp;&gt;, 10.0 s at 99 Hz</title>"));
        let frames =
            |text: &str| text.split("<g id=\"frames\">").nth(1).unwrap().replace("</body>\n</html>\n", "");
        assert_eq!(frames(&page), frames(&svg(&profile)));
        for external in ["src=", "href=", "url(", "@import"] {
            assert!(!page.contains(external), "{external}");
        }
    }
}
