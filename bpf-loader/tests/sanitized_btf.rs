//! The kernel takes what sanitising makes of clang's BTF, whatever the kernel is said to lack.

mod support;

use std::path::Path;

use bpf_loader::btf::datasec::{Symbol, fill};
use bpf_loader::btf::sanitize::{BtfFeatures, sanitize};
use bpf_loader::btf::{Btf, Kind};
use bpf_loader::bytes::Endian;
use object::read::elf::ElfFile64;
use object::{Endianness, Object as _, ObjectSection as _, ObjectSymbol as _};
use support::{clang_bpf, has_clang};

/// Something of every kind.
const EVERY_KIND: &str = r#"
#define SEC(name) __attribute__((section(name), used))
#define user __attribute__((btf_type_tag("user")))
#define tagged __attribute__((btf_decl_tag("tag")))
enum wide { BIG = 0x100000000000ULL, SMALL = 2 };
enum negative { NEGATIVE = -1, POSITIVE = 1 };
typedef int (*callback_t)(long, ...);
struct value {
    float f; double d; enum wide w; enum negative n; int user *p; int x tagged; unsigned bits : 3; callback_t call;
} tagged;
struct { int (*type)[1]; int (*max_entries)[10]; int *key; struct value *value; } map SEC(".maps");
extern int some_kfunc(int, void *) SEC(".ksyms");
extern const void some_symbol SEC(".ksyms") __attribute__((weak));
extern unsigned long CONFIG_HZ SEC(".kconfig");
extern int LINUX_KERNEL_VERSION SEC(".kconfig");
int data = 5, hidden __attribute__((visibility("hidden"))) = 9;
static volatile int own_data = 6;
static volatile char own_bss;
long bss;
const volatile short rodata = 3;
struct value custom SEC(".data.custom");
int optional SEC("?.data.opt") = 1;
__attribute__((noinline)) int global(int a, struct value *p) { return a + own_data + p->x + p->bits; }
static __attribute__((noinline)) int local(int a) { return a * 3 + own_bss; }
SEC("socket") int prog(void *ctx) {
    struct value v = {.x = 3, .n = NEGATIVE, .w = BIG};
    return global(data, &v) + local(rodata) + bss + (int)CONFIG_HZ + LINUX_KERNEL_VERSION + some_kfunc(1, ctx)
        + (&some_symbol != 0) + custom.x + optional + hidden;
}
"#;

/// The object's BTF as it is, and with its data sections filled in.
fn every_kind() -> (Vec<u8>, Vec<u8>) {
    let elf = clang_bpf(Path::new("."), Endian::HOST, &[], EVERY_KIND);
    let file = ElfFile64::<Endianness>::parse(&elf[..]).unwrap();
    let data = file.section_by_name(".BTF").unwrap().data().unwrap().to_vec();
    let size_of = |name: &str| match name {
        ".kconfig" => Some(16),
        name => file.section_by_name(name).map(|section| section.size() as u32),
    };
    let symbol_of = |section: &str, name: &str| match (section, name) {
        (".kconfig", "CONFIG_HZ") => Some(Symbol { offset: 0, hidden: false }),
        (".kconfig", _) => Some(Symbol { offset: 8, hidden: false }),
        _ => {
            let mut symbols = file.symbols();
            let symbol = symbols.find(|s| s.name() == Ok(name) && s.section_index().is_some())?;
            Some(Symbol { offset: symbol.address() as u32, hidden: name == "hidden" })
        }
    };
    let filled = fill(&Btf::parse(&data[..]).unwrap(), size_of, symbol_of, |_| false).unwrap();
    (data, filled)
}

fn load(data: &[u8]) -> Result<(), String> {
    let mut text = vec![0; 1 << 16];
    let mut log = bpf_sys::prog::Log::new(1, &mut text);
    let loaded = bpf_sys::btf::load(data, 0, None, Some(&mut log));
    loaded.map(drop).map_err(|error| format!("{error}: {}", String::from_utf8_lossy(log.text())))
}

#[test]
fn the_kernel_takes_every_variant() {
    if !has_clang() {
        return;
    }
    let (original, filled) = every_kind();
    let filled = Btf::parse(filled).unwrap();
    let kinds = |btf: &Btf<'_>| btf.types().map(|ty| ty.kind()).collect::<std::collections::BTreeSet<_>>();
    let present = kinds(&filled);
    for kind in
        [Kind::Float, Kind::Enum64, Kind::DeclTag, Kind::TypeTag, Kind::Datasec, Kind::Var, Kind::Func]
    {
        assert!(present.contains(&kind), "no {kind} in the object");
    }
    let all = sanitize(&filled, &BtfFeatures::ALL).unwrap();
    let oldest = BtfFeatures {
        func: false,
        func_global: false,
        datasec: false,
        question_mark_datasec: false,
        float: false,
        decl_tag: false,
        type_tag: false,
        enum64: false,
        layout: false,
    };
    if load(&sanitize(&filled, &oldest).unwrap()).is_err_and(|error| error.contains("EPERM")) {
        println!("skipped: loading BTF needs CAP_BPF");
        return;
    }
    assert!(load(&original).is_err(), "the kernel takes what clang wrote: this test shows nothing");
    // A kernel older than the object's newest kind takes only the variant without any.
    let first = if load(&all).is_ok() { 0 } else { (1 << 9) - 1 };
    for lacking in first..1 << 9 {
        let has = |bit: u32| lacking >> bit & 1 == 0;
        let features = BtfFeatures {
            func: has(0),
            func_global: has(1),
            datasec: has(2),
            question_mark_datasec: has(3),
            float: has(4),
            decl_tag: has(5),
            type_tag: has(6),
            enum64: has(7),
            layout: has(8),
        };
        let variant = sanitize(&filled, &features).unwrap();
        let left = kinds(&Btf::parse(&variant[..]).unwrap());
        for (kept, kind) in [
            (features.func, Kind::Func),
            (features.func, Kind::FuncProto),
            (features.datasec, Kind::Datasec),
            (features.datasec, Kind::Var),
            (features.float, Kind::Float),
            (features.decl_tag, Kind::DeclTag),
            (features.type_tag, Kind::TypeTag),
            (features.enum64, Kind::Enum64),
        ] {
            assert_eq!(left.contains(&kind), kept, "{kind} for {features:?}");
        }
        load(&variant).unwrap_or_else(|error| panic!("{features:?}: {error}"));
    }
}
