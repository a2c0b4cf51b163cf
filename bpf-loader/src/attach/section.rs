//! What a section's name says to attach to, in libbpf's syntax.

use crate::error::{Error, Result};
use crate::kind::SectionName;
use crate::program::Program;

/// What follows the kind in the name of the program's section.
pub(super) fn target(program: &Program) -> Result<&str> {
    SectionName::parse(&program.section)
        .target
        .filter(|target| !target.is_empty())
        .ok_or_else(|| Box::new(Error::NoAutoAttach { section: program.section.clone() }))
}

fn bad(target: &str, reason: &'static str) -> Box<Error> {
    Box::new(Error::AttachTarget { target: crate::error::excerpt(target), reason })
}

/// A number as C has it: decimal, `0x` hexadecimal, `0` octal.
fn number(text: &str) -> Option<u64> {
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u64::from_str_radix(hex, 16).ok().filter(|_| !hex.starts_with('+'));
    }
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    match text.strip_prefix('0') {
        Some(octal) if !octal.is_empty() => u64::from_str_radix(octal, 8).ok(),
        _ => text.parse().ok(),
    }
}

/// `function` or `function+offset`.
pub(super) fn kprobe(target: &str) -> Result<(&str, u64)> {
    let (name, offset) = match target.split_once('+') {
        None => (target, 0),
        Some((name, offset)) => (name, number(offset).ok_or_else(|| bad(target, "the offset is no number"))?),
    };
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.') {
        return Err(bad(target, "no name of a function"));
    }
    Ok((name, offset))
}

/// A pattern of names of functions.
pub(super) fn pattern(target: &str) -> Result<&str> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_.*?".contains(&b);
    if target.bytes().all(fits) { Ok(target) } else { Err(bad(target, "no pattern of names of functions")) }
}

/// `path:function` or `path:function+offset`; a `+` that no number follows is part of the name.
pub(super) fn uprobe(target: &str) -> Result<(&str, &str, u64)> {
    let (path, function) = path(target)?;
    let offset = function.rsplit_once('+').and_then(|(name, offset)| Some((name, number(offset)?)));
    let (name, offset) = offset.unwrap_or((function, 0));
    if name.is_empty() {
        return Err(bad(target, "must be path:function"));
    }
    Ok((path, name, offset))
}

/// `path:pattern`
pub(super) fn path(target: &str) -> Result<(&str, &str)> {
    match target.split_once(':') {
        Some((path, rest)) if !path.is_empty() && !rest.is_empty() => Ok((path, rest)),
        _ => Err(bad(target, "must be path:function")),
    }
}

/// `path:provider:name`
pub(super) fn usdt(target: &str) -> Result<(&str, &str, &str)> {
    let mut parts = target.split(':').filter(|part| !part.is_empty());
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(path), Some(provider), Some(name), None) => Ok((path, provider, name)),
        _ => Err(bad(target, "must be path:provider:name")),
    }
}

/// `category/name`
pub(super) fn tracepoint(target: &str) -> Result<(&str, &str)> {
    target.split_once('/').ok_or_else(|| bad(target, "must be category/name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kprobes() {
        assert_eq!(kprobe("do_unlinkat").unwrap(), ("do_unlinkat", 0));
        assert_eq!(kprobe("f.isra.0+0x10").unwrap(), ("f.isra.0", 16));
        assert_eq!(kprobe("f+010").unwrap(), ("f", 8));
        assert_eq!(kprobe("f+12").unwrap(), ("f", 12));
        for wrong in ["", "+1", "f+", "f+-1", "f+x", "f+0x", "f+0x+1", "f g", "f*", "f+18446744073709551616"]
        {
            assert!(kprobe(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn patterns() {
        assert_eq!(pattern("bpf_*_test?").unwrap(), "bpf_*_test?");
        assert!(pattern("a b").is_err());
    }

    #[test]
    fn uprobes() {
        assert_eq!(uprobe("/bin/sh:main").unwrap(), ("/bin/sh", "main", 0));
        assert_eq!(uprobe("libc.so.6:memcpy@GLIBC_2.14+0x4").unwrap(), ("libc.so.6", "memcpy@GLIBC_2.14", 4));
        assert_eq!(uprobe("a:operator+").unwrap(), ("a", "operator+", 0));
        assert_eq!(uprobe("a:ns::f").unwrap(), ("a", "ns::f", 0));
        for wrong in ["", "/bin/sh", "/bin/sh:", ":f", "a:+4"] {
            assert!(uprobe(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn usdt_probes() {
        assert_eq!(usdt("/lib/l.so:p:n").unwrap(), ("/lib/l.so", "p", "n"));
        for wrong in ["", "a:b", "a::b", "a:b:c:d"] {
            assert!(usdt(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tracepoints() {
        assert_eq!(tracepoint("sched/sched_switch").unwrap(), ("sched", "sched_switch"));
        assert!(tracepoint("sched_switch").is_err());
    }
}
