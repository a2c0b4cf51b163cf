use super::*;

const TEXT: &str = "ffffffff81000000 T _text\n\
ffffffff81000000 T startup\n\
ffffffff81000000 t _alias\n\
ffffffff81001000 t __pfx_do_work\n\
ffffffff81001010 t do_work\n\
ffffffff81002000 W weak_one\n\
ffffffff81003000 D some_data\n\
ffffffff81300000 T far\n\
ffffffffc0000000 t mod_b\t[beta]\n\
ffffffffa0000000 t mod_a\t[alpha]\n\
ffffffffa0000100 t mod_a2\t[alpha]\n\
0000000000001000 A per_cpu\n\
ffff800000000000 t bpf_prog_1234_x\t[bpf]\n\
not a line\n";

fn name_and_module(symbols: &KernelSymbols, address: u64) -> Option<(String, Option<String>)> {
    symbols.find(address).map(|found| (found.name.to_owned(), found.module.map(|module| module.to_string())))
}

#[test]
fn functions_modules_and_programs() {
    let symbols = KernelSymbols::parse(TEXT.as_bytes()).unwrap();
    assert_eq!(symbols.len(), 8);
    let at = |address| name_and_module(&symbols, address);
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
    let found = symbols.find(0xffff_ffff_a000_0000).unwrap();
    assert_eq!(
        (found.range_start, found.range_end),
        (0xffff_ffff_a000_0000, 0xffff_ffff_a000_0100 + MAX_LAST)
    );
}

#[test]
fn hidden_addresses_are_told() {
    let text = "0000000000000000 T _text\n0000000000000000 t foo\n";
    assert!(matches!(KernelSymbols::parse(text.as_bytes()), Err(SymbolizeError::KernelAddressesHidden)));
}

#[test]
fn long_lines_and_garbage_are_survived() {
    let text = format!("ffffffff81000000 T {}\nffffffff81000100 T ok\n", "x".repeat(10_000));
    let symbols = KernelSymbols::parse(text.as_bytes()).unwrap();
    assert_eq!(symbols.find(0xffff_ffff_8100_0100).unwrap().name, "ok");
    assert!(KernelSymbols::parse(&b"\xff\xfe\n\0\0"[..]).unwrap().is_empty());
}

/// The running kernel: every address of a text symbol has a name that kallsyms gives for it.
#[test]
fn the_running_kernel() {
    let text = std::fs::read_to_string("/proc/kallsyms").unwrap();
    // Programs and modules come and go, so both look at the same text.
    let symbols = match KernelSymbols::parse(text.as_bytes()) {
        Err(SymbolizeError::KernelAddressesHidden) => {
            println!("skipped: kernel addresses are hidden from this user");
            return;
        }
        other => other.unwrap(),
    };
    let mut expected: std::collections::HashMap<u64, Vec<&str>> = std::collections::HashMap::new();
    for (address, _, name, _) in text.lines().filter_map(|line| parse_line(line.as_bytes())) {
        expected.entry(address).or_default().push(name);
    }
    assert_eq!(symbols.len(), expected.len());
    for (address, names) in &expected {
        let found = symbols.find(*address).unwrap();
        assert!(names.contains(&found.name), "{address:x} {} {names:?}", found.name);
        assert_eq!(found.start, *address);
    }
    assert!(!KernelSymbols::read(&Host::default()).unwrap().is_empty());
    println!("{} functions, {} bytes", symbols.len(), symbols.memory());
}
