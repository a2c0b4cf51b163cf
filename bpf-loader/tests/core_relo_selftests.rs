//! The kernel's own CO-RE tests, run without a kernel: each program is relocated for each BTF that the kernel's test
//! relocates it for, then executed here, and its output compared with the kernel's table.
//!
//! Needs clang-19, libbpf's headers, and `BPF_SELFTESTS` set to `tools/testing/selftests/bpf` of a kernel source.

mod support;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use bpf_loader::btf::{Btf, BtfId, Kind};
use bpf_loader::bytes::Endian;
use bpf_loader::core_relo::POISON;
use support::machine::{Machine, Stop};
use support::{BpfObject, Target, clang, clang_bpf, has_clang};

/// A row of the kernel's table.
struct Case {
    name: String,
    object: String,
    target: String,
    fails: bool,
    /// Its output is computed by the test at run time.
    computed: bool,
    input: Vec<u8>,
    output: Vec<u8>,
}

/// Compiles the kernel's table of cases into a program that prints it, and runs that.
fn cases(selftests: &Path) -> Vec<Case> {
    let test = std::fs::read_to_string(selftests.join("prog_tests/core_reloc.c")).unwrap();
    let between = |from: &str, to: &str| {
        let start = test.find(from).unwrap();
        &test[start..start + test[start..].find(to).unwrap()]
    };
    let definitions = between("#define STRUCT_TO_CHAR_PTR", "static int find_btf_type");
    let table = between("static const struct core_reloc_test_case test_cases[]", "struct data {");
    let text = format!(
        r#"
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include <stdio.h>
#include "progs/core_reloc_types.h"
struct bpf_testmod_test_read_ctx {{ char *buf; long long off; unsigned long len; }};
{definitions}
static int setup_type_id_case_success(struct core_reloc_test_case *test) {{ return 0; }}
static int setup_type_id_case_failure(struct core_reloc_test_case *test) {{ return 0; }}
static int __trigger_module_test_read(const struct core_reloc_test_case *test) {{ return 0; }}
{table}
static void hex(const char *bytes, int len) {{
    putchar(' ');
    putchar('x');
    for (int i = 0; i < len; i++) printf("%02x", (unsigned char)bytes[i]);
}}
int main(void) {{
    for (unsigned i = 0; i < sizeof(test_cases) / sizeof(*test_cases); i++) {{
        const struct core_reloc_test_case *c = &test_cases[i];
        if (!c->btf_src_file) continue; /* of the running kernel or a module */
        printf("%s %s %s %d %d", c->case_name, c->bpf_obj_file, c->btf_src_file, c->fails, c->setup != 0);
        hex(c->input, c->input_len);
        hex(c->output, c->output_len);
        putchar('\n');
    }}
}}
"#
    );
    let program = std::env::temp_dir().join(format!("core-relo-cases-{}", std::process::id()));
    std::fs::write(&program, clang(selftests, &["-I.", "-Wno-everything"], &text)).unwrap();
    Command::new("chmod").arg("+x").arg(&program).status().unwrap();
    let out = Command::new(&program).output().unwrap().stdout;
    std::fs::remove_file(&program).unwrap();
    String::from_utf8(out).unwrap().lines().map(parse_case).collect()
}

fn parse_case(line: &str) -> Case {
    let fields: Vec<_> = line.split(' ').collect();
    let [name, object, target, fails, computed, input, output] = fields[..] else { panic!("{line}") };
    let bytes = |hex: &str| -> Vec<u8> {
        let digits = &hex.as_bytes()[1..];
        let byte = |pair: &[u8]| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    };
    Case {
        name: name.to_owned(),
        object: object.replace(".bpf.o", ".c"),
        target: target.replace(".bpf.o", ".c"),
        fails: fails == "1",
        computed: computed == "1",
        input: bytes(input),
        output: bytes(output),
    }
}

/// What the test of type ids computes: ids by name in both BTFs. The anonymous types before them are looked for by their
/// first member.
fn type_ids(local: &Btf<'_>, target: &Btf<'_>, missing: bool) -> Vec<u8> {
    let anonymous = |kind: Kind, first: &str| {
        let mut types = local.types().filter(|ty| ty.kind() == kind && ty.name() == Ok(""));
        types.find_map(|ty| {
            let member = ty.members().next().and_then(|member| member.name().ok());
            let enumerator = ty.enumerators().next().and_then(|enumerator| enumerator.name().ok());
            (member.or(enumerator) == Some(first)).then_some(ty.id())
        })
    };
    let named = |btf: &Btf<'_>, id: BtfId| btf.type_by_id(id).and_then(|ty| ty.name()).map(str::to_owned);
    // The last one: the kernel's test overwrites earlier ones.
    let pointer_to = |to: &dyn Fn(BtfId) -> bool| {
        let pointers = local.types().filter(|ty| ty.kind() == Kind::Ptr && to(ty.type_id().unwrap()));
        pointers.last().map(|ty| ty.id())
    };
    let is_bool = |id: BtfId| named(local, id) == Ok("_Bool".to_owned());
    let prototype = pointer_to(&|id| {
        let ty = local.type_by_id(id).unwrap();
        ty.kind() == Kind::FuncProto && is_bool(ty.type_id().unwrap())
    });
    let void = pointer_to(&|id| id == BtfId::VOID);
    let array = local.types().find(|ty| ty.array().is_some_and(|array| is_bool(array.element)));
    let mut ids = vec![
        anonymous(Kind::Struct, "marker_field"),
        anonymous(Kind::Union, "marker_field"),
        anonymous(Kind::Enum, "MARKER_ENUM_VAL"),
        prototype,
        void,
        array.map(|ty| ty.id()),
    ];
    const NAMED: [(&str, Kind); 7] = [
        ("a_struct", Kind::Struct),
        ("a_union", Kind::Union),
        ("an_enum", Kind::Enum),
        ("int", Kind::Int),
        ("named_struct_typedef", Kind::Typedef),
        ("func_proto_typedef", Kind::Typedef),
        ("arr_typedef", Kind::Typedef),
    ];
    ids.extend(NAMED.map(|(name, kind)| local.find_by_name(name, kind)));
    let of_target = |(name, kind)| if missing { None } else { target.find_by_name(name, kind) };
    ids.extend(NAMED.map(of_target));
    ids.iter().flat_map(|id| id.map_or(0, |id| id.0).to_le_bytes()).collect()
}

/// Relocates and runs a program; what it wrote, or `None` if relocation failed or the program reached an instruction that
/// relocation had poisoned.
fn run(object: &BpfObject, target: &Target, input: &[u8], output: usize) -> Option<Vec<u8>> {
    let relocated = object.relocate(target).ok()?;
    let mut code = relocated.code.iter().filter(|(_, insns)| !insns.is_empty());
    let (Some((_, insns)), None) = (code.next(), code.next()) else { panic!("not one program") };
    let mut machine = Machine::new(object.data());
    let data = object.symbol("data");
    machine.memory(data, input.len()).unwrap().copy_from_slice(input);
    match machine.run(insns) {
        Err(Stop::Call(_, POISON)) => None,
        ended => {
            ended.unwrap();
            Some(machine.memory(data + 256, output).unwrap().to_vec())
        }
    }
}

#[test]
fn programs_see_what_the_kernel_s_table_says() {
    let Some(selftests) = std::env::var_os("BPF_SELFTESTS").map(PathBuf::from) else {
        println!("skipped: BPF_SELFTESTS is not set to a kernel's tools/testing/selftests/bpf");
        return;
    };
    if !has_clang() {
        return;
    }
    let mut compiled = HashMap::new();
    let (mut passed, mut wrong) = (0, Vec::new());
    for case in cases(&selftests) {
        for file in [&case.object, &case.target] {
            compiled.entry(file.clone()).or_insert_with(|| {
                let text = std::fs::read_to_string(selftests.join("progs").join(file)).unwrap();
                let multiarch = format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH);
                clang_bpf(&selftests, Endian::Little, &["-Iprogs", &multiarch], &text)
            });
        }
        let object = BpfObject::parse(&compiled[&case.object]);
        let target = Target(BpfObject::parse(&compiled[&case.target]).btf);
        let mut expected = case.output;
        if case.computed {
            expected = type_ids(&object.btf, &target.0, case.name.contains("missing"));
        }
        let expected = (!case.fails).then_some(expected);
        let output = run(&object, &target, &case.input, expected.as_ref().map_or(0, Vec::len));
        if output == expected {
            passed += 1;
        } else {
            wrong.push(format!("{}: got {output:x?}, expected {expected:x?}", case.name));
        }
    }
    println!("{passed} cases as the kernel expects");
    assert!(wrong.is_empty(), "{passed} right, {} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(passed >= 70, "only {passed} cases");
}
