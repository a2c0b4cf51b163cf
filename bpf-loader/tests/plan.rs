//! Plans of objects that clang makes, for a kernel that is made up.

#[path = "support/mod.rs"]
mod support;

use std::fmt::Write as _;
use std::path::Path;

use bpf_loader::Error;
use bpf_loader::bytes::Endian;
use bpf_loader::insn::Operand;
use bpf_loader::map_def::Contents;
use bpf_loader::object::ObjectSpec;
use bpf_sys::Insn;
use bpf_sys::uapi::insn;
use support::MadeUp;

/// Assembles a function of `callee` instructions and `programs` programs that call it.
fn shared_callee(callee: usize, programs: usize) -> Vec<u8> {
    let mut text = format!(
        ".text\n.globl big\n.type big,@function\nbig:\n.rept {}\nr0 = 0\n.endr\nexit\n.size big, .-big\n\
         .section socket,\"ax\",@progbits\n",
        callee - 1
    );
    for i in 0..programs {
        write!(text, ".globl p{i}\n.type p{i},@function\np{i}:\ncall big\nexit\n.size p{i}, .-p{i}\n")
            .unwrap();
    }
    support::clang(Path::new("."), &["-target", "bpfel", "-x", "assembler", "-c"], &text)
}

#[test]
fn the_programs_of_a_plan_have_a_limit_together() {
    if !support::has_clang() {
        return;
    }
    let object = shared_callee(499_998, 10);
    let spec = ObjectSpec::parse(&object).unwrap();
    let plan = spec.plan(&MadeUp::new()).unwrap();
    let sizes: Vec<_> = plan.programs.iter().map(|p| p.code.as_ref().map(|code| code.insns.len())).collect();
    let (within, past) = sizes.split_at(8);
    assert!(within.iter().all(|size| *size == Ok(500_000)), "{within:?}");
    let too_many = Error::TooComplex { what: "instructions of programs together", limit: 4_000_000 };
    assert!(past.iter().all(|size| size.is_err_and(|e| **e == too_many)), "{past:?}");
}

#[test]
fn functions_keep_their_lines_wherever_they_go() {
    if !support::has_clang() {
        return;
    }
    let text = r#"
#define SEC(name) __attribute__((section(name), used))
static __attribute__((noinline)) int first(int x) { return x * 3; }
static __attribute__((noinline)) int second(int x) {
    return first(x) + 1;
}
SEC("socket") int one(void *ctx) { return first(1); }
SEC("socket") int two(void *ctx) { return second(2); }
"#;
    let object = support::clang_bpf(Path::new("."), Endian::Little, &[], text);
    let spec = ObjectSpec::parse(&object).unwrap();
    let plan = spec.plan(&MadeUp::new()).unwrap();
    for (program, own_lines) in plan.programs.iter().zip([[7, 3].as_slice(), &[8, 5, 3]]) {
        let code = program.code.as_ref().unwrap();
        let words = |bytes: &[u8]| -> Vec<u32> {
            bytes.chunks_exact(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap())).collect()
        };
        let functions: Vec<u32> = words(&code.func_info).chunks(2).map(|record| record[0]).collect();
        let lines = words(&code.line_info);
        let lines: Vec<_> = lines.chunks(4).map(|record| (record[0], record[3])).collect();
        assert!(lines.iter().all(|&(at, _)| at < code.insns.len() as u32));
        assert!(lines.is_sorted_by(|a, b| a.0 < b.0), "{lines:?}");
        assert_eq!(functions.len(), own_lines.len());
        for (i, (start, line)) in functions.iter().zip(own_lines).enumerate() {
            let end = functions.get(i + 1).copied().unwrap_or(u32::MAX);
            let in_function = lines.iter().filter(|(at, _)| (*start..end).contains(at));
            assert!(in_function.clone().any(|(at, _)| at == start), "{}: {lines:?}", program.name);
            let found: Vec<_> = in_function.map(|&(_, line)| line >> 10).collect();
            assert!(found.contains(line), "{}: {found:?} of function {i}", program.name);
        }
    }
}

#[test]
fn maps_that_are_not_created_may_be_named_where_nothing_runs() {
    if !support::has_clang() {
        return;
    }
    let text = r#"
#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name
struct { __uint(type, 2); __uint(max_entries, 1); __type(key, int); __type(value, long); } map SEC(".maps");
struct { __uint(type, 2); __uint(max_entries, 1); __type(key, int); __type(value, long); } other SEC(".maps");
SEC("socket") long program(void *ctx) { return (long)&map + (long)&other; }
"#;
    let object = support::clang_bpf(Path::new("."), Endian::Little, &[], text);
    let mut spec = ObjectSpec::parse(&object).unwrap();
    spec.map_mut("map").unwrap().autocreate = false;
    let plan = spec.plan(&MadeUp::new()).unwrap();
    let maps: Vec<_> = plan.maps.iter().map(|(_, map)| &*map.name).collect();
    assert_eq!(maps, ["other"]);
    let code = plan.programs[0].code.as_ref().unwrap();
    assert_eq!((code.operands.len(), code.poisoned.len()), (1, 1));
    let (at, what) = &code.poisoned[0];
    assert_eq!(what, "map map (it is not created)");
    let call = Insn::new(insn::CALL, 0, 0, 0, 2_001_000_000);
    assert_eq!(code.insns[at.0 as usize..][..2], [call, call]);
}

#[test]
fn code_whose_relocations_cannot_be_read_is_not_planned_without_them() {
    if !support::has_clang() {
        return;
    }
    let source = "int (*table)(void);\n\
        __attribute__((section(\"raw_tp/sys_enter\"), used)) long program(void *ctx) { return (long)table; }\n";
    let mut object = support::clang_bpf(Path::new("."), Endian::Little, &[], source);
    let plan = |object: &[u8]| {
        let spec = ObjectSpec::parse(object).unwrap();
        let plan = spec.plan(&MadeUp::new()).unwrap();
        plan.programs.into_iter().find(|p| p.name == "program").unwrap().code
    };
    assert!(plan(&object).is_ok());
    // The first section of type SHT_REL that applies to code gets a size that is no multiple of an entry's.
    let word = |object: &[u8], at: usize| u32::from_le_bytes(object[at..at + 4].try_into().unwrap()) as usize;
    let (headers, count) = (word(&object, 40), u16::from_le_bytes([object[60], object[61]]) as usize);
    let header = (0..count).map(|i| headers + i * 64).find(|&at| {
        let applies_to = headers + word(&object, at + 44) * 64;
        word(&object, at + 4) == 9 && word(&object, applies_to + 8) & 4 != 0
    });
    object[header.unwrap() + 32] += 1;
    assert!(matches!(plan(&object).map_err(|e| *e), Err(Error::Section { .. })), "{:?}", plan(&object));
}

/// Two maps of maps, the first broken or initialised wrongly, and what they hold at first.
const INITIALISED: &str = r#"
#define __uint(name, val) int (*name)[val]
#define __array(name, val) typeof(val) *name[]
struct inner { __uint(type, 2); __uint(max_entries, 1); __uint(key_size, 4); __uint(value_size, 4); };
struct inner first __attribute__((section(".maps"), used));
int number = 1;
struct { __uint(type, 12); __uint(max_entries, 1); __uint(key_size, 4); MEMBER __array(values, struct inner); }
    bad __attribute__((section(".maps"), used)) = { .values = { (void *)&INITIAL } };
struct { __uint(type, 12); __uint(max_entries, 1); __uint(key_size, 4); __array(values, struct inner); }
    good __attribute__((section(".maps"), used)) = { .values = { (void *)&first } };
__attribute__((section("socket"), used)) int program(void *context) { return (long)&good; }
"#;

#[test]
fn only_the_map_suffers_from_what_it_cannot_hold() {
    if !support::has_clang() {
        return;
    }
    for (member, initial) in [("__uint(unheard_of, 1);", "first"), ("", "number")] {
        let (member, initial) = (format!("-DMEMBER={member}"), format!("-DINITIAL={initial}"));
        let object = support::clang_bpf(Path::new("."), Endian::Little, &[&member, &initial], INITIALISED);
        let spec = ObjectSpec::parse(&object).unwrap();
        let plan = spec.plan(&MadeUp::new()).unwrap();
        assert!(plan.programs[0].code.is_ok(), "{:?}", plan.programs[0].code);
        let good = spec.map("good").unwrap();
        assert!(matches!(&good.contents, Contents::Slots(slots) if slots.len() == 1), "{:?}", good.contents);
        assert_eq!(spec.broken_maps.len(), usize::from(initial.ends_with("first")), "{initial}");
    }
}

#[cfg(feature = "all-objects")]
#[test]
fn maps_of_before_btf() {
    if !support::has_clang() {
        return;
    }
    let text = r#"
struct bpf_map_def { unsigned type, key_size, value_size, max_entries, map_flags, more; };
#define MAP(name) struct bpf_map_def name __attribute__((section("maps"), used))
MAP(counts) = { 1, 4, 8, 16, 1 };
MAP(strange) = { 2, 4, 8, 16, 0, 7 };
__attribute__((section("socket"), used)) int program(void *context) { return (long)&counts; }
"#;
    for endian in [Endian::Little, Endian::Big] {
        let object = support::clang_bpf(Path::new("."), endian, &[], text);
        let spec = ObjectSpec::parse(&object).unwrap();
        let map = spec.map("counts").unwrap();
        let sizes = [map.map_type.0, map.key_size, map.value_size, map.max_entries, map.flags];
        assert_eq!(sizes, [1, 4, 8, 16, 1]);
        assert_eq!(spec.broken_maps.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["strange"]);
        let plan = spec.plan(&MadeUp::new()).unwrap();
        let code = plan.programs[0].code.as_ref().unwrap();
        assert_eq!(code.operands.len(), 1);
        assert!(plan.maps.iter().any(|(_, map)| map.name == "counts"));
    }
}

#[test]
fn variables_in_the_arena_are_places_in_its_map() {
    if !support::has_clang() {
        return;
    }
    let text = r#"
#define __uint(name, val) int (*name)[val]
#define ARENA __attribute__((address_space(1)))
struct { __uint(type, 33); __uint(map_flags, 1 << 10); __uint(max_entries, 2); }
    arena __attribute__((section(".maps"), used));
int ARENA first = 7;
int ARENA second = 9;
__attribute__((section("syscall"), used)) int program(void *context) { return second + (long)&arena; }
"#;
    let object = support::clang_bpf(Path::new("."), Endian::Little, &[], text);
    let mut spec = ObjectSpec::parse(&object).unwrap();
    spec.set_global("first", &5u32.to_ne_bytes()).unwrap();
    let plan = spec.plan(&MadeUp::new()).unwrap();
    let (arena, map) = plan.maps.iter().find(|(_, map)| map.name == "arena").unwrap();
    assert_eq!(map.contents, Contents::Data([5, 0, 0, 0, 9, 0, 0, 0].to_vec().into()));
    let code = plan.programs[0].code.as_ref().unwrap();
    let operands: Vec<Operand> = code.operands.iter().map(|(_, operand)| *operand).collect();
    assert!(operands.contains(&Operand::MapValue { map: *arena, offset: 4 }), "{operands:?}");
    assert!(operands.contains(&Operand::Map(*arena)), "{operands:?}");
}

#[cfg(feature = "all-objects")]
#[test]
fn an_exception_callback_follows_the_program() {
    if !support::has_clang() {
        return;
    }
    let text = r#"
__attribute__((noinline)) int handler(unsigned long cookie) { return cookie + 41; }
__attribute__((section("tc"), used, TAG_IT)) int program(void *context) { return 1; }
"#;
    let tag = "-DTAG_IT=btf_decl_tag(\"exception_callback:handler\")";
    let object = support::clang_bpf(Path::new("."), Endian::Little, &[tag], text);
    let spec = ObjectSpec::parse(&object).unwrap();
    let plan = spec.plan(&MadeUp::new()).unwrap();
    let code = plan.programs[0].code.as_ref().unwrap();
    // Two of the program and three of the callback, and the record of each.
    assert_eq!((code.insns.len(), code.func_info.len()), (5, 16), "{:?}", code.insns);
}
