//! Which functions allocate and free, and where they are in a file.

use bpf_loader::machine::Machine as Architecture;
use bpf_programs::events::heap::Sort;

use super::site::{self, Machine};
use crate::symbolize::SymbolizeError;
use crate::symbolize::elf::Elf;
use crate::symbolize::elf::named::NamedFunction;
use crate::symbolize::read_at::{ReadAt, read_vec};

/// A function to probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// How it takes what it takes.
    pub sort: Sort,
    /// Where the probe goes, in the file.
    pub offset: u64,
}

/// Names of C, and of C++'s as they are mangled.
const STANDARD: &[(&str, Sort)] = &[
    ("malloc", Sort::Malloc),
    ("calloc", Sort::Array),
    ("realloc", Sort::Realloc),
    ("reallocarray", Sort::Rearray),
    ("aligned_alloc", Sort::Aligned),
    ("memalign", Sort::Aligned),
    ("posix_memalign", Sort::Memalign),
    ("valloc", Sort::Sized),
    ("pvalloc", Sort::Sized),
    ("free", Sort::Free),
    ("cfree", Sort::Free),
    ("free_sized", Sort::Free),
    ("free_aligned_sized", Sort::Free),
];

/// Prefixes under which libraries have the standard names, and more.
const PREFIXES: &[&str] = &["je_", "_rjem_", "mi_", "tc_"];

/// Names of jemalloc beyond the standard, with and without its prefixes. Not `xallocx`, which changes the size of what stays
/// where it is: that keeps the size that it had.
const JEMALLOC: &[(&str, Sort)] = &[
    ("mallocx", Sort::Sized),
    ("rallocx", Sort::Realloc),
    ("dallocx", Sort::Free),
    ("sdallocx", Sort::Free),
];

/// Names of mimalloc and tcmalloc beyond the standard, behind their prefixes.
const OTHERS: &[(&str, Sort)] = &[
    ("mi_zalloc", Sort::Sized),
    ("mi_mallocn", Sort::Array),
    ("mi_reallocn", Sort::Rearray),
    ("mi_malloc_small", Sort::Sized),
    ("mi_zalloc_small", Sort::Sized),
    ("mi_malloc_aligned", Sort::Sized),
    ("mi_zalloc_aligned", Sort::Sized),
    ("mi_calloc_aligned", Sort::Array),
    ("mi_realloc_aligned", Sort::Realloc),
    ("mi_heap_malloc", Sort::Aligned),
    ("mi_heap_zalloc", Sort::Aligned),
    ("mi_new", Sort::Sized),
    ("mi_new_aligned", Sort::Sized),
    ("mi_new_nothrow", Sort::Sized),
    ("mi_new_aligned_nothrow", Sort::Sized),
    ("mi_new_n", Sort::Array),
    ("mi_new_realloc", Sort::Realloc),
    ("mi_new_reallocn", Sort::Rearray),
    ("mi_free_size", Sort::Free),
    ("mi_free_aligned", Sort::Free),
    ("mi_free_size_aligned", Sort::Free),
    ("tc_new", Sort::Sized),
    ("tc_new_nothrow", Sort::Sized),
    ("tc_new_aligned", Sort::Sized),
    ("tc_newarray", Sort::Sized),
    ("tc_newarray_nothrow", Sort::Sized),
    ("tc_newarray_aligned", Sort::Sized),
    ("tc_delete", Sort::Free),
    ("tc_delete_sized", Sort::Free),
    ("tc_delete_nothrow", Sort::Free),
    ("tc_delete_aligned", Sort::Free),
    ("tc_deletearray", Sort::Free),
    ("tc_deletearray_sized", Sort::Free),
    ("tc_deletearray_nothrow", Sort::Free),
    ("tc_deletearray_aligned", Sort::Free),
];

/// How C++'s operators are mangled: all of them begin so.
const OPERATORS: &[(&str, Sort)] =
    &[("_Znwm", Sort::Sized), ("_Znam", Sort::Sized), ("_ZdlPv", Sort::Free), ("_ZdaPv", Sort::Free)];
/// What the mangled names of operators go on with: nothing, a size, an alignment, `std::nothrow`.
const OPERATOR_TAILS: &[&str] = &[
    "",
    "m",
    "St11align_val_t",
    "mSt11align_val_t",
    "RKSt9nothrow_t",
    "St11align_val_tRKSt9nothrow_t",
    "mRKSt9nothrow_t",
];

fn find(table: &[(&str, Sort)], name: &str) -> Option<Sort> {
    table.iter().find(|(known, _)| *known == name).map(|(_, sort)| *sort)
}

/// What a function of that name does; whether its file has an allocator of its own.
fn sort_of(name: &str) -> Option<(Sort, bool)> {
    if let Some(sort) = find(STANDARD, name) {
        return Some((sort, false));
    }
    let bare = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix));
    let prefixed = bare.and_then(|bare| find(STANDARD, bare).or_else(|| find(JEMALLOC, bare)));
    prefixed.or_else(|| find(JEMALLOC, name)).or_else(|| find(OTHERS, name)).map(|sort| (sort, true))
}

fn operator(name: &str) -> Option<Sort> {
    OPERATORS.iter().find_map(|(start, sort)| {
        let tail = name.strip_prefix(start)?;
        OPERATOR_TAILS.contains(&tail).then_some(*sort)
    })
}

/// How functions of a program take their arguments, on this kernel.
///
/// # Errors
///
/// Why that is not known: the end of the sentence `the heap tracer cannot ...`.
pub fn machine_of(
    program: Option<Architecture>,
    kernel: Option<Architecture>,
) -> Result<Machine, &'static str> {
    match (program, kernel) {
        (Some(Architecture::X86_64), Some(Architecture::X86_64)) => Ok(Machine::X86),
        (Some(Architecture::Aarch64), Some(Architecture::Aarch64)) => Ok(Machine::Arm64),
        (Some(Architecture::X86), Some(Architecture::X86_64)) => Err(
            "trace 32-bit programs of x86: their functions take arguments from the stack, and it reads registers",
        ),
        (Some(Architecture::Arm), Some(Architecture::Aarch64)) => Err(
            "trace 32-bit programs of arm: it does not know their instructions and registers, only those of arm64",
        ),
        (_, Some(Architecture::X86)) => Err(
            "trace programs on 32-bit kernels of x86: their functions take arguments from the stack, and it reads registers",
        ),
        (_, Some(Architecture::Arm)) => Err(
            "trace programs on 32-bit kernels of arm: it does not know their instructions and registers, only those of arm64",
        ),
        (_, Some(Architecture::Riscv64)) => Err(
            "trace programs of riscv64: it does not know their instructions and registers, only those of x86-64 and arm64",
        ),
        _ => Err(
            "trace programs of this architecture: it knows how functions of x86-64 and arm64 take arguments",
        ),
    }
}

/// The probes for a file; none where it has no such functions, or is for another machine.
///
/// C++'s operators are probed only in files with an allocator of their own, which they call past `malloc`; the usual ones
/// call `malloc`, and are seen there.
///
/// # Errors
/// What reading the file met.
pub fn find_probes(source: &dyn ReadAt) -> Result<Vec<Probe>, Box<SymbolizeError>> {
    let elf = Elf::read(source)?;
    let program = Architecture::of_elf(elf.machine().0, elf.is_64());
    let Ok(machine) = machine_of(program, Architecture::running()) else { return Ok(Vec::new()) };
    let functions =
        elf.functions_named(source, |name| sort_of(name).is_some() || operator(name).is_some())?;
    let has_own = functions.iter().any(|function| sort_of(&function.name).is_some_and(|(_, own)| own));
    let mut probes: Vec<Probe> = Vec::new();
    for function in &functions {
        let operator = || operator(&function.name).filter(|_| has_own);
        let Some(sort) = sort_of(&function.name).map(|(sort, _)| sort).or_else(operator) else { continue };
        let offset = function.offset.saturating_add(site::choose(&code_of(source, function), machine));
        // Aliases lie in one place. What counts as malloc does so under its other names too.
        match probes.last_mut().filter(|last| last.offset == offset) {
            Some(last) => last.sort = last.sort.min(sort),
            None => probes.push(Probe { sort, offset }),
        }
    }
    Ok(probes)
}

/// The function's bytes; none where it is not known how many, or they are too many to look through.
fn code_of(source: &dyn ReadAt, function: &NamedFunction) -> Vec<u8> {
    read_vec(source, function.offset, function.size, site::MAX_CODE, "code").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_library() {
        let plain = |name: &str| sort_of(name).map(|(sort, _)| sort);
        assert_eq!(sort_of("malloc"), Some((Sort::Malloc, false)));
        assert_eq!(sort_of("je_malloc"), Some((Sort::Malloc, true)));
        assert_eq!(plain("_rjem_sdallocx"), Some(Sort::Free));
        assert_eq!(plain("mallocx"), Some(Sort::Sized));
        assert_eq!(plain("mi_realloc_aligned"), Some(Sort::Realloc));
        assert_eq!(plain("tc_posix_memalign"), Some(Sort::Memalign));
        assert_eq!(plain("malloc_usable_size"), None);
        assert_eq!(plain("je_"), None);
        assert_eq!(operator("_Znwm"), Some(Sort::Sized));
        assert_eq!(operator("_ZnamRKSt9nothrow_t"), Some(Sort::Sized));
        assert_eq!(operator("_ZdlPvm"), Some(Sort::Free));
        assert_eq!(operator("_ZnwmPv"), None, "placement new allocates nothing");
    }

    #[test]
    fn programs_that_cannot_be_traced_are_told_why() {
        use Architecture::{Aarch64, Arm, Riscv64, X86, X86_64};
        let of = |program, kernel| machine_of(Some(program), Some(kernel));
        assert_eq!((of(X86_64, X86_64), of(Aarch64, Aarch64)), (Ok(Machine::X86), Ok(Machine::Arm64)));
        for (program, kernel, words) in [
            (X86, X86_64, "32-bit programs of x86"),
            (X86, X86, "32-bit kernels of x86"),
            (Arm, Aarch64, "32-bit programs of arm"),
            (Arm, Arm, "32-bit kernels of arm"),
            (Riscv64, Riscv64, "riscv64"),
        ] {
            let reason = of(program, kernel).unwrap_err();
            assert!(reason.contains(words), "{program:?} on {kernel:?}: {reason}");
        }
        assert!(machine_of(None, Some(X86_64)).is_err());
    }

    #[test]
    fn the_system_library_is_understood() {
        let maps = std::fs::read("/proc/self/maps").unwrap();
        let lines: Vec<_> = crate::symbolize::maps::parse(&maps).collect();
        let libc =
            lines.iter().map(|l| String::from_utf8_lossy(l.path)).find(|path| path.contains("/libc.so"));
        let Some(libc) = libc else {
            eprintln!("SKIP this test is linked without a C library of its own file");
            return;
        };
        if let Err(reason) = machine_of(Architecture::own(), Architecture::running()) {
            eprintln!("SKIP the heap tracer cannot {reason}");
            return;
        }
        let probes = find_probes(&std::fs::read(&*libc).unwrap()).unwrap();
        for sort in [Sort::Malloc, Sort::Array, Sort::Realloc, Sort::Aligned, Sort::Memalign, Sort::Free] {
            assert!(probes.iter().any(|probe| probe.sort == sort), "{sort:?} in {libc}");
        }
    }
}
