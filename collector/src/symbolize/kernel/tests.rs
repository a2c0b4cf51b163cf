use std::collections::BTreeMap;

use super::*;

const TEXT: &str = "ffffffff81000000 T _text\n\
ffffffff81000000 T startup\n\
ffffffff81000000 t _alias\n\
ffffffff81001000 t __pfx_do_work\n\
ffffffff81001010 t do_work\n\
ffffffff81002000 W weak_one\n\
ffffffff81003000 D some_data\n\
ffffffff81300000 T far\n\
ffffffff81400000 T _etext\n\
ffffffffc0000000 t mod_b\t[beta]\n\
ffffffffa0000000 t mod_a\t[alpha]\n\
ffffffffa0000100 t mod_a2\t[alpha]\n\
0000000000001000 A per_cpu\n\
ffff800000000000 t bpf_prog_1234_x\t[bpf]\n\
not a line\n";

fn search(wanted: &[u64]) -> KernelSymbols {
    let mut wanted = wanted.to_vec();
    wanted.sort_unstable();
    KernelSymbols::parse(TEXT.as_bytes(), &wanted).unwrap()
}

/// Name and module of an address that is looked for among others.
fn at(address: u64) -> Option<(String, Option<String>)> {
    let symbols = search(&[address, 0xffff_ffff_8100_1010, 0xffff_ffff_8100_0001, 0xffff_ffff_c000_0000]);
    symbols.find(address).map(|found| (found.name.to_owned(), found.module.map(|module| module.to_string())))
}

#[test]
fn functions_modules_and_programs() {
    assert_eq!(at(0xffff_ffff_8100_0005), Some(("startup".into(), None)));
    assert_eq!(at(0xffff_ffff_8100_1010), Some(("do_work".into(), None)));
    assert_eq!(at(0xffff_ffff_8100_1fff), Some(("do_work".into(), None)));
    assert_eq!(at(0xffff_ffff_a000_0180), Some(("mod_a2".into(), Some("alpha".into()))));
    assert_eq!(at(0xffff_ffff_c000_0000), Some(("mod_b".into(), Some("beta".into()))));
    assert_eq!(at(0xffff_8000_0000_0010), Some(("bpf_prog_1234_x".into(), Some("bpf".into()))));
    // Below everything, past the last of a module, and in the hole behind `weak_one`.
    assert_eq!(at(0x1000), None);
    assert_eq!(at(0xffff_ffff_a000_0100 + MAX_LAST), None);
    assert_eq!(at(0xffff_ffff_8100_2000 + MAX_LENGTH), None);
    assert_eq!(at(u64::MAX), None);
}

#[test]
fn only_what_was_asked_for_is_kept_with_its_extent() {
    let symbols = search(&[0xffff_ffff_8100_1020, 0xffff_ffff_8100_1021, 0xffff_ffff_a000_0000]);
    assert_eq!(symbols.len(), 2);
    assert_eq!(symbols.find(0xffff_ffff_8100_1010).unwrap().name, "do_work");
    assert_eq!(symbols.find(0xffff_ffff_8100_2000), None, "not asked for, so not known");
    let found = symbols.find(0xffff_ffff_a000_0000).unwrap();
    assert_eq!(
        (found.range_start, found.range_end),
        (0xffff_ffff_a000_0000, 0xffff_ffff_a000_0100 + MAX_LAST)
    );
    let kernel = symbols.find(0xffff_ffff_8100_1020).unwrap();
    assert_eq!((kernel.range_start, kernel.range_end), (0xffff_ffff_8100_0000, 0xffff_ffff_8140_0000));
}

#[test]
fn reading_stops_at_the_end_of_text_where_nothing_else_is_wanted() {
    let mut reader = TEXT.as_bytes();
    KernelSymbols::parse(&mut reader, &[0xffff_ffff_8100_1020]).unwrap();
    assert!(reader.starts_with(b"ffffffffc0000000"), "the module's lines are not read");
    let mut reader = TEXT.as_bytes();
    KernelSymbols::parse(&mut reader, &[0xffff_ffff_8100_1020, 0xffff_ffff_c000_0000]).unwrap();
    assert!(reader.is_empty());
}

#[test]
fn later_readings_replace_what_they_overlap() {
    let parse = |text: &str, wanted| KernelSymbols::parse(text.as_bytes(), &[wanted]).unwrap();
    let mut symbols = parse("1000 t old\n2000 t after\n", 0x1500);
    symbols.absorb(parse("1400 t bpf_prog_new\t[bpf]\n2000 t after\n", 0x1500));
    assert_eq!(symbols.find(0x1500).unwrap().name, "bpf_prog_new");
    assert_eq!(symbols.len(), 1);
    symbols.forget_programs();
    assert!(symbols.is_empty());
}

#[test]
fn hidden_addresses_are_told() {
    let text = "0000000000000000 T _text\n0000000000000000 t foo\n";
    let parsed = KernelSymbols::parse(text.as_bytes(), &[1]);
    assert!(matches!(parsed.as_ref().map_err(Box::as_ref), Err(SymbolizeError::KernelAddressesHidden)));
}

#[test]
fn long_lines_and_garbage_are_survived() {
    let text = format!("ffffffff81000000 T {}\nffffffff81000100 T ok\n", "x".repeat(10_000));
    let symbols = KernelSymbols::parse(text.as_bytes(), &[0xffff_ffff_8100_0100]).unwrap();
    assert_eq!(symbols.find(0xffff_ffff_8100_0100).unwrap().name, "ok");
    assert!(KernelSymbols::parse(&b"\xff\xfe\n\0\0"[..], &[1]).unwrap().is_empty());
    assert!(KernelSymbols::parse(TEXT.as_bytes(), &[]).unwrap().is_empty());
}

/// The running kernel: every address of a text symbol has a name that kallsyms gives for it.
#[test]
fn the_running_kernel() {
    let text = std::fs::read_to_string("/proc/kallsyms").unwrap();
    let mut expected: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for line in text.lines().filter_map(|line| parse_line(line.as_bytes())) {
        expected.entry(line.address).or_default().push(line.name);
    }
    // Programs and modules come and go, so both look at the same text.
    let wanted: Vec<u64> = expected.keys().copied().collect();
    let symbols = match KernelSymbols::parse(text.as_bytes(), &wanted).map_err(|e| *e) {
        Err(SymbolizeError::KernelAddressesHidden) => {
            println!("skipped: kernel addresses are hidden from this user");
            return;
        }
        other => other.unwrap(),
    };
    assert_eq!(symbols.len(), expected.len());
    for (address, names) in &expected {
        let found = symbols.find(*address).unwrap();
        assert!(names.contains(&found.name), "{address:x} {} {names:?}", found.name);
        assert_eq!(found.start, *address);
    }
    // A few of them alone give the same.
    let few: Vec<u64> = wanted.iter().copied().step_by(997).map(|address| address + 1).collect();
    let sparse = KernelSymbols::parse(text.as_bytes(), &few).unwrap();
    for address in few {
        let name =
            |symbols: &KernelSymbols| symbols.find(address).map(|found| (found.name.to_owned(), found.start));
        assert_eq!(name(&sparse), name(&symbols), "{address:x}");
    }
    println!("{} functions, {} bytes", symbols.len(), symbols.memory());
}
