//! Rules against those that LLVM's tools read in the same files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::analyze_arm64;
use super::entry::PAGE;
use super::file::File;
use super::frames::Frames;
use super::rule::{Cfa, Return, Row, Rule, Saved};
use super::unwinder::rule_at;
use crate::sorted::SortedSet;
use crate::symbolize::Place;
use crate::symbolize::elf::Elf;
use crate::symbolize::elf::symbols::SymbolTable;
use crate::symbolize::read_at::{FileReader, ReadAt, read_vec};

/// A row as `llvm-dwarfdump` prints it, behind its address: `CFA=RSP+24: RBX=[CFA-16], RBP=[CFA-24], RIP=[CFA-8]`.
fn expected_rule(text: &str, is_signal: bool) -> Rule {
    let (cfa, saved) = text.strip_prefix("CFA=").unwrap().split_once(": ").unwrap_or((&text[4..], ""));
    let offset = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<i64>().ok() };
    let unsupported = Rule::of(Cfa::Unsupported);
    let plt = "DW_OP_breg7 RSP+8, DW_OP_breg16 RIP+0, DW_OP_lit15, DW_OP_and, DW_OP_lit";
    let base = if let Some(offset) = cfa.strip_prefix("RSP").and_then(offset) {
        Rule::at(Cfa::Sp, offset)
    } else if let Some(offset) = cfa.strip_prefix("RBP").and_then(offset) {
        Rule::at(Cfa::Fp, offset)
    } else if let Some(rest) = cfa.strip_prefix("DW_OP_breg6 RBP") {
        let offset = rest.strip_suffix(", DW_OP_deref").and_then(offset);
        offset.map_or(unsupported, |offset| Rule::at(Cfa::AtFp, offset))
    } else if let Some(rest) = cfa.strip_prefix(plt) {
        let from = rest.strip_suffix(", DW_OP_ge, DW_OP_lit3, DW_OP_shl, DW_OP_plus");
        from.map_or(unsupported, |from| Rule::plt(from.parse().unwrap()))
    } else if cfa == "DW_OP_breg7 RSP+160, DW_OP_deref" && is_signal {
        return Rule::of(Cfa::Signal);
    } else {
        return unsupported;
    };
    let of = |register: &str| {
        let (_, rest) = saved.split_once(&format!("{register}="))?;
        Some(rest.split_once(", R").map_or(rest, |(first, _)| first))
    };
    let from_cfa = |place: &str| place.strip_prefix("[CFA")?.strip_suffix(']').and_then(offset);
    if base.cfa == Cfa::Unsupported {
        return unsupported;
    }
    let base = match of("RIP") {
        None | Some("undefined") => return Rule::of(Cfa::End),
        Some(place) => match from_cfa(place) {
            Some(offset) => base.with_return(offset),
            None => return unsupported,
        },
    };
    match of("RBP") {
        None | Some("undefined" | "same") => base,
        Some("[DW_OP_breg6 RBP+0]") => base.with_fp_at_fp(),
        Some(place) => from_cfa(place).map_or(unsupported, |offset| base.with_fp(offset)),
    }
}

/// All rules of a file's `.eh_frame` or `.debug_frame` by their addresses, what is between functions too.
fn expected(path: &Path, section: &str) -> Option<BTreeMap<u64, Rule>> {
    let mut output = None;
    for tool in ["llvm-dwarfdump-19", "llvm-dwarfdump"] {
        // Either option has it print both sections.
        output = output.or_else(|| Command::new(tool).arg("--eh-frame").arg(path).output().ok());
    }
    let text = String::from_utf8(output?.stdout).unwrap();
    let mut rules = BTreeMap::new();
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (mut signals, mut is_signal) = (Vec::new(), false);
    let mut common = "";
    let lines = text.lines().skip_while(|line| line.strip_suffix(" contents:") != Some(section));
    for line in lines.skip(1).take_while(|line| !line.ends_with(" contents:")) {
        if line.ends_with(" CIE") {
            common = line.split(' ').next().unwrap();
        } else if line.trim_start().starts_with("Augmentation:") && line.contains('S') {
            signals.push(common);
        } else if let Some((head, range)) = line.split_once(" pc=") {
            let (_, cie) = head.split_once("cie=").unwrap();
            is_signal = signals.contains(&cie);
            let (_, end) = range.split_once("...").unwrap();
            // Unless another function begins there.
            rules.entry(hex(end).unwrap()).or_insert_with(Rule::default);
        } else if let Some((address, row)) =
            line.trim_start().strip_prefix("0x").and_then(|l| l.split_once(": "))
        {
            rules.insert(hex(address).unwrap(), expected_rule(row.trim_start(), is_signal));
        }
    }
    Some(rules)
}

/// The rows of a page that these rules are.
fn of_page(rules: &BTreeMap<u64, Rule>, page: u64) -> Vec<Row> {
    let before = rules.range(..=page).next_back().map(|(_, rule)| *rule).unwrap_or_default();
    let mut rows = vec![Row { start: 0, rule: before }];
    for (address, rule) in rules.range(page + 1..page + PAGE) {
        if rows.last().unwrap().rule != *rule {
            rows.push(Row { start: (address - page) as u16, rule: *rule });
        }
    }
    rows
}

/// Libraries of this process, and programs that are likely to be there.
fn files() -> Vec<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mapped = maps.lines().filter_map(|line| line.split_once('/').map(|(_, path)| format!("/{path}")));
    let others =
        ["/usr/bin/python3", "/usr/bin/git", "/usr/bin/perl", "/usr/lib/x86_64-linux-gnu/libstdc++.so.6"];
    let mut files: Vec<PathBuf> = mapped.chain(others.map(str::to_owned)).map(PathBuf::from).collect();
    files.retain(|path| path.is_file());
    files.sort();
    files.dedup();
    files
}

/// Compares all rules of a file; how many there are, and how many of them are not understood.
fn compare(
    path: &Path,
    source: &dyn ReadAt,
    frames: &Frames,
    expected: &BTreeMap<u64, Rule>,
) -> (usize, usize) {
    let elf = Elf::read(source).unwrap();
    let (mut rows, mut unsupported) = (0, 0);
    let pages: std::collections::BTreeSet<u64> =
        expected.keys().map(|address| address & !(PAGE - 1)).collect();
    for page in pages {
        let found = frames.rows(source, &elf, page).unwrap();
        let differs = found.iter().zip(of_page(expected, page)).find(|(found, expected)| *found != expected);
        assert_eq!(differs, None, "{} at {page:#x}", path.display());
        assert_eq!(found.len(), of_page(expected, page).len(), "{} at {page:#x}", path.display());
        rows += found.len();
        unsupported += found.iter().filter(|row| row.rule.cfa == Cfa::Unsupported).count();
    }
    (rows, unsupported)
}

#[test]
fn rules_are_those_that_llvm_reads() {
    let mut compared = 0;
    for path in files() {
        let Some(expected) = expected(&path, ".eh_frame") else {
            eprintln!("SKIP rules of {}: there is no llvm-dwarfdump", path.display());
            return;
        };
        let (file, _) = FileReader::open(&Place::trusted(path.clone())).unwrap();
        let source: &dyn ReadAt = &file;
        let Some(frames) = Frames::read(source, &Elf::read(source).unwrap()).unwrap() else {
            assert!(expected.is_empty(), "{}", path.display());
            continue;
        };
        let (rows, unsupported) = compare(&path, source, &frames, &expected);
        eprintln!("{}: {rows} rows, {unsupported} of them not understood", path.display());
        assert!(unsupported * 100 <= rows, "{}", path.display());
        compared += rows;
    }
    assert!(compared > 1000, "{compared}");
}

/// Of a program whose functions are described for debuggers alone.
#[test]
fn rules_for_debuggers_are_those_that_llvm_reads() {
    let folder = std::env::temp_dir().join(format!("debug-frames-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let source = folder.join("a.c");
    let code = "int sum; int leaf(int n) { return sum += n; }
        int down(int n) { volatile char room[200]; room[n & 127] = n; return n ? down(n - 1) + room[3] : leaf(n); }
        int main(int n, char **words) { return down(n + 3) + down(n); }";
    std::fs::write(&source, code).unwrap();
    // Of the first, the third and the fourth version of such descriptions.
    for dwarf in ["-gdwarf-2", "-gdwarf-3", "-gdwarf-5"] {
        let path = folder.join(&dwarf[1..]);
        let flags = [
            "-O2",
            "-fno-asynchronous-unwind-tables",
            "-fno-exceptions",
            "-fomit-frame-pointer",
            dwarf,
            "-o",
        ];
        let compiled = Command::new("gcc").args(flags).arg(&path).arg(&source).status().unwrap();
        assert!(compiled.success());
        let Some(expected) = expected(&path, ".debug_frame") else {
            eprintln!("SKIP rules for debuggers: there is no llvm-dwarfdump");
            break;
        };
        let (file, _) = FileReader::open(&Place::trusted(path.clone())).unwrap();
        let elf = Elf::read(&file).unwrap();
        let frames = Frames::read_debug(&file, &elf).unwrap().unwrap();
        let (rows, unsupported) = compare(&path, &file, &frames, &expected);
        assert!(rows > 8 && unsupported == 0, "{dwarf}: {rows}, {unsupported}");
        // They stand where the others say nothing.
        let mut both = File::read(&file).unwrap();
        let main = *expected.keys().next().unwrap();
        let page = main & !(PAGE - 1);
        let rows = both.rows(&file, page).unwrap();
        let at = rows.iter().rev().find(|row| u64::from(row.start) <= main - page).unwrap();
        assert_eq!(Some(&at.rule), expected.get(&main), "{dwarf}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

/// What the instructions of arm64 tell against what the compiler says of the same code.
#[test]
fn instructions_of_arm64_tell_what_the_compiler_does() {
    let folder = std::env::temp_dir().join(format!("arm64-frames-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let source = folder.join("a.c");
    let code = "
        typedef __builtin_va_list list; long sink; long outer(long); int many(int, long *); void *room(long);
        __attribute__((noinline)) int leaf(int n) { return sink += n; }
        __attribute__((noinline)) int down(int n) { volatile char on[200]; on[n & 127] = n; return n ? down(n - 1) + on[3] : leaf(n); }
        __attribute__((noinline)) int large(int n) { volatile char on[6000]; on[n & 4095] = n; return outer(n) + on[7]; }
        __attribute__((noinline)) double floats(double a, double b, int n) {
            double x = a, y = b; for (int i = 0; i < n; i++) { x += outer(i) * y; y -= outer(-i) * a; } return x / y + b; }
        __attribute__((noinline)) int switched(int n) { switch (n) { case 0: return outer(1); case 1: return outer(7) * 2; case 2: return leaf(4);
            case 3: return down(3); case 4: return 17; case 5: sink = 3; return outer(9) - outer(4); } return n; }
        __attribute__((noinline)) int listed(int n, ...) { list all; __builtin_va_start(all, n); int sum = 0;
            while (n--) sum += outer(__builtin_va_arg(all, int)); __builtin_va_end(all); return sum; }
        __attribute__((noinline)) int sized(int n) { long on[n]; for (int i = 0; i < n; i++) on[i] = outer(i); return many(n, on); }
        __attribute__((noinline)) int early(int n) { if (n < 3) return n; long a = outer(n), b = outer(a), c = outer(b), d = outer(c);
            if (a > b) return many(c, &d); return a + b * c - d; }
        __attribute__((noreturn)) void never(int); __attribute__((noinline)) int checked(int n) { if (n > 5) never(n); return outer(n) + 1; }
        int _start(int n) { return down(n) + large(n) + floats(n, 2, n) + switched(n) + listed(3, n, 5, n) + sized(n) + early(n) + checked(n); }";
    std::fs::write(&source, code).unwrap();
    let (mut compared, mut either, mut skipped) = (0, 0, false);
    for flags in [
        &["-O2", "-fomit-frame-pointer"][..],
        &["-O2"],
        &["-O1"],
        &["-Os", "-fno-omit-frame-pointer"],
        &["-O3", "-mbranch-protection=standard"],
    ] {
        let path = folder.join("a.so");
        let mut command = Command::new("clang-19");
        command.args([
            "--target=aarch64-linux-gnu",
            "-shared",
            "-fPIC",
            "-nostdlib",
            "-fuse-ld=lld-19",
            "-fno-stack-protector",
            "-fasynchronous-unwind-tables",
        ]);
        if !command
            .args(flags)
            .arg("-o")
            .arg(&path)
            .arg(&source)
            .status()
            .is_ok_and(|status| status.success())
        {
            eprintln!("SKIP instructions of arm64: there is no clang-19 with lld-19");
            skipped = true;
            break;
        }
        let (file, _) = FileReader::open(&Place::trusted(path.clone())).unwrap();
        let elf = Elf::read(&file).unwrap();
        let frames = Frames::read(&file, &elf).unwrap().unwrap();
        let table = SymbolTable::read(&elf, &file).unwrap();
        let starts: SortedSet<u64> = table.starts(0..u64::MAX).collect();
        let (start, end) = (*starts.iter().next().unwrap(), *starts.iter().next_back().unwrap());
        let (offset, left) = elf.offset_of(start).unwrap();
        let code = read_vec(&file, offset, left.min(1 << 20), 1 << 20, "code").unwrap();
        let found = analyze_arm64::rules(&code, start, &starts, 0);
        let mut wrong = Vec::new();
        for at in (start..end).step_by(4) {
            let page = at & !(PAGE - 1);
            let expected = rule_at(&frames.rows(&file, &elf, page).unwrap(), (at - page) as u16);
            let rule = found.iter().rev().find(|(from, _)| *from <= at).unwrap().1;
            if expected.cfa == Cfa::Unknown {
                continue;
            }
            compared += 1;
            // By either register, it is the same place.
            let is_other_place = rule.cfa == expected.cfa && rule.cfa_offset() != expected.cfa_offset();
            let (fp, ra) = ((rule.fp(), expected.fp()), (rule.ra(), expected.ra()));
            let on_stack = fp == (Saved::OnStack, Saved::OnStack) && rule.fp_offset != expected.fp_offset
                || ra == (Return::OnStack, Return::OnStack) && rule.ra_offset != expected.ra_offset;
            if rule.cfa == Cfa::Unknown || is_other_place || on_stack {
                wrong.push((at, rule, expected));
            }
            // Where a register was stored or loaded, both have it: compilers say so once for several instructions.
            either += usize::from(fp.0 != fp.1 || ra.0 != ra.1);
        }
        assert!(wrong.is_empty() && either * 10 < compared, "{flags:?}: {either} {wrong:#x?}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(skipped || compared > 1000, "{compared}");
}
