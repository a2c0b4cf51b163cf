//! `docs/man/ebpf-otlp.1`, from the definitions. `UPDATE=1 cargo test -p collector --bin ebpf-otlp man` writes it.

use std::fmt::Write;

use super::definition::COMMANDS;
use super::help;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/man/ebpf-otlp.1");

const HEAD: &str = r#".\" Made from the definitions of the commands: see collector/src/cli/args/man.rs.
.TH EBPF-OTLP 1 2026-11-29 "ebpf-otlp VERSION" "User Commands"
.SH NAME
ebpf\-otlp \- what a Linux machine does, seen through eBPF, as OpenTelemetry
.SH SYNOPSIS
"#;

const DESCRIPTION: &str = r#".SH DESCRIPTION
.B ebpf\-otlp
loads BPF programs into the kernel, counts there, and shows what it finds or sends it to a receiver of OTLP. The agent,
.BR "ebpf\-otlp run" ,
has all of its tracers in one process; other commands show what some of them find.
.PP
It needs root, or the capabilities that
.B ebpf\-otlp check
names. Linux 5.8 is the oldest kernel that is served.
.PP
Durations are numbers with
.BR us ", " ms ", " s ", " m " or " h ,
sizes with
.BR K ", " M ", " G " or " T
(powers of 1024).
.SH COMMANDS
"#;

const TAIL: &str = r#".SH ENVIRONMENT
.TP
.B EBPF_OTLP_CONFIG
The file of settings, where no
.B \-\-config
is given to
.BR run .
.TP
.BI EBPF_OTLP_ KEY
A key of that file, as
.BR EBPF_OTLP_INTERVAL ;
the comments of
.B ebpf\-otlp config \-\-example
name each. Stronger than the file, weaker than options.
.TP
.BR OTEL_EXPORTER_OTLP_ENDPOINT " and other OTEL_* variables"
Where and how data is exported, as specified by OpenTelemetry.
.SH EXIT STATUS
.TP
.B 0
All that was asked for happened.
.TP
.B 1
Something failed, one of many programs, tracers or receivers too.
.TP
.B 2
Wrong usage: an unknown option, a value out of range, a wrong key in the configuration.
.SH EXAMPLES
.TP
What can this machine do?
.B ebpf\-otlp check
.TP
Where does the CPU time go? As a flame graph:
.B ebpf\-otlp profile \-\-duration 10s \-\-output profile.svg
.TP
The agent, sending everything to a Collector:
.B ebpf\-otlp run \-\-endpoint http://localhost:4318
.SH SEE ALSO
.BR bpf (2),
.BR perf_event_open (2),
.BR capabilities (7)
"#;

/// Text with what roff would take for its own made harmless.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', r"\e").replace('-', r"\-").replace('`', "");
    text.lines()
        .map(|line| if line.starts_with(['.', '\'']) { format!(r"\&{line}") } else { line.to_owned() })
        .collect::<Vec<_>>()
        .join("\n")
}

/// What stands for a value, in italics; the list of OBJECT... too.
fn placeholder(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(r" \fI{}\fR", escaped(name)) }
}

fn page() -> String {
    let mut text = HEAD.replace("VERSION", env!("CARGO_PKG_VERSION"));
    write(&mut text).unwrap();
    text
}

fn write(to: &mut String) -> std::fmt::Result {
    for (i, command) in COMMANDS.iter().enumerate() {
        let operands = placeholder(command.operands.as_ref().map_or("", |operands| operands.name));
        let options = if command.options.is_empty() { "" } else { r" [\fIOPTIONS\fR]" };
        if i > 0 {
            writeln!(to, ".br")?;
        }
        writeln!(to, r"\fBebpf\-otlp {}\fR{operands}{options}", escaped(command.name))?;
    }
    to.push_str(DESCRIPTION);
    for command in &COMMANDS {
        let operands = placeholder(command.operands.as_ref().map_or("", |operands| operands.name));
        writeln!(to, ".SS {}{operands}", escaped(command.name))?;
        writeln!(to, "{}", escaped(command.text))?;
        for option in command.options {
            writeln!(to, ".TP\n\\fB{}\\fR{}", escaped(option.name), placeholder(option.value))?;
            let mut about = help::about(option);
            about.get_mut(..1).into_iter().for_each(str::make_ascii_uppercase);
            writeln!(to, "{}.", escaped(&about))?;
        }
    }
    to.push_str(TAIL);
    Ok(())
}

#[test]
fn the_page_is_as_committed() {
    let page = page();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(PAGE, &page).unwrap();
    }
    let committed = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert!(committed == page, "{PAGE} is not what the definitions say: run the test with UPDATE=1");
}

#[test]
fn mandoc_finds_nothing_wrong() {
    let lint = std::process::Command::new("mandoc").args(["-Tlint", "-Wwarning", PAGE]).output();
    let Ok(lint) = lint else {
        println!("SKIP mandoc: it is not installed");
        return;
    };
    let said = String::from_utf8_lossy(&lint.stdout);
    assert!(lint.status.success() && said.is_empty(), "{said}");
}
