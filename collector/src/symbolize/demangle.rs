//! Readable names for Rust and C++ symbols.

use std::fmt::{self, Write};

/// Mangled names longer than this stay as they are.
const MAX_MANGLED: usize = 4096;
/// Demangled names longer than this are given up: substitutions can grow without bound.
const MAX_DEMANGLED: usize = 4096;

/// The readable form of a Rust (legacy or v0) or C++ symbol; `None` for every other name, and for names that
/// are too long either way. Rust hashes, C++ parameters and return types are left out.
///
/// Names ending in `.llvm.123`, `.cold`, `.isra.0` and the like keep what they can keep; `@plt` stays.
pub fn demangle(name: &str) -> Option<String> {
    if let Some(name) = name.strip_suffix("@plt") {
        return demangle(name).map(|name| name + "@plt");
    }
    if name.len() > MAX_MANGLED {
        return None;
    }
    demangle_rust(name).or_else(|| demangle_cpp(name))
}

fn demangle_rust(name: &str) -> Option<String> {
    // `try_demangle` takes names without the leading underscore too: `ZN`... and `R`... of a C program.
    if !name.starts_with("_ZN") && !name.starts_with("_R") {
        return None;
    }
    let demangled = rustc_demangle::try_demangle(name).ok()?;
    let mut bounded = Bounded(String::new());
    write!(bounded, "{demangled:#}").ok()?;
    Some(bounded.0)
}

#[cfg(feature = "demangle-cpp")]
fn demangle_cpp(name: &str) -> Option<String> {
    use cpp_demangle::{BorrowedSymbol, DemangleOptions, Symbol};

    if !name.starts_with("_Z") {
        return None;
    }
    let options = DemangleOptions::new().no_params().no_return_type();
    let mut bounded = Bounded(String::new());
    match Symbol::new(name) {
        Ok(symbol) => symbol.structured_demangle(&mut bounded, &options).ok()?,
        // A suffix that it does not know.
        Err(_) => {
            let (symbol, rest) = BorrowedSymbol::with_tail(name.as_bytes()).ok()?;
            if rest.first() != Some(&b'.') {
                return None;
            }
            symbol.structured_demangle(&mut bounded, &options).ok()?;
        }
    }
    Some(bounded.0)
}

#[cfg(not(feature = "demangle-cpp"))]
fn demangle_cpp(_: &str) -> Option<String> {
    None
}

/// A string that takes a bounded amount.
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        if self.0.len() + part.len() > MAX_DEMANGLED {
            return Err(fmt::Error);
        }
        self.0.push_str(part);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_names() {
        assert_eq!(
            demangle("_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE").unwrap(),
            "core::fmt::Write::write_fmt"
        );
        assert_eq!(demangle("_RNvC6_123foo3bar").unwrap(), "123foo::bar");
    }

    #[test]
    fn other_names_stay() {
        for name in ["main", "ZN3foo3barE", "R1234", "", "_", "_Zyx", "_R"] {
            assert_eq!(demangle(name), None, "{name}");
        }
    }

    #[cfg(feature = "demangle-cpp")]
    #[test]
    fn cpp_names() {
        assert_eq!(demangle("_ZN5space3fooEibc").unwrap(), "space::foo");
        assert_eq!(
            demangle("_ZNSt6vectorIiSaIiEE9push_backERKi").unwrap(),
            "std::vector<int, std::allocator<int> >::push_back"
        );
        assert_eq!(demangle("_ZN5space3fooEi@plt").unwrap(), "space::foo@plt");
        assert!(demangle("_ZN5space3fooEi.cold").unwrap().starts_with("space::foo"));
    }

    #[test]
    fn growth_is_bounded() {
        // Each template argument repeats the ones before it: 2^n.
        let mut name = String::from("_Z1fI1aE");
        for _ in 0..60 {
            name = name.replacen("1a", "1bIS_S_1aE", 1);
        }
        for name in [
            name,
            format!("_Z{}", "N".repeat(4000)),
            format!("_R{}", "I".repeat(4000)),
            "_Z".to_owned() + &"P".repeat(4094),
        ] {
            if let Some(demangled) = demangle(&name) {
                assert!(demangled.len() <= MAX_DEMANGLED);
            }
        }
    }
}
