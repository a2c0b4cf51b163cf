//! Relocations as clang writes them: of every kind against types made by hand, and against the running kernel's types,
//! whose offsets bpftool tells.

mod support;

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use bpf_loader::btf::encode::{Builder, Field, SIGNED};
use bpf_loader::btf::{Btf, Kind};
use bpf_loader::bytes::Endian;
use bpf_loader::core_relo::{describe, resolve};
use support::{BpfObject, Target, clang_bpf, has_clang};

/// Every kind of relocation, against `struct s` and `enum e`.
const ALL_KINDS: &str = r#"
struct s { int a; unsigned int flag : 3; int list[4]; } __attribute__((preserve_access_index));
struct gone { int a; } __attribute__((preserve_access_index));
enum e { A = 1, B = 2, C = 3 };
#define field(access, kind) __builtin_preserve_field_info(access, kind)
__attribute__((section("socket"))) unsigned long all(struct s *s, struct gone *g) {
    unsigned long sum = 0;
    sum += field(s->a, 0) + field(s->a, 1) + field(s->a, 2) + field(s->a, 3);
    sum += field(s->flag, 0) + field(s->flag, 4) + field(s->flag, 5);
    sum += field(s->list[2], 0) + field(g->a, 2);
    sum += __builtin_btf_type_id(*(struct s *)0, 0) + __builtin_btf_type_id(*(struct s *)0, 1);
    sum += __builtin_preserve_type_info(*(struct s *)0, 0) + __builtin_preserve_type_info(*(struct s *)0, 1);
    sum += __builtin_preserve_type_info(*(struct s *)0, 2) + __builtin_preserve_type_info(*(struct gone *)0, 0);
    sum += __builtin_preserve_enum_value(*(enum e *)B, 0) + __builtin_preserve_enum_value(*(enum e *)B, 1);
    sum += __builtin_preserve_enum_value(*(enum e *)C, 0);
    return sum + s->a;
}
"#;

#[test]
fn every_kind_resolves_in_either_byte_order() {
    if !has_clang() {
        return;
    }
    for endian in [Endian::Little, Endian::Big] {
        let object = BpfObject::parse(&clang_bpf(Path::new("."), endian, &[], ALL_KINDS));
        let local_id = object.btf.find_by_name("s", Kind::Struct).unwrap();
        let mut b = Builder::new(endian);
        let (int, uint) = (b.int("int", 4, SIGNED), b.int("unsigned int", 4, 0));
        let list = b.array(int, int, 4);
        let fields = [Field::at("list", list, 8), Field::bits("flag", uint, 37, 3), Field::at("a", int, 32)];
        let s = b.structure("s", 40, &fields);
        b.enumeration("e", false, &[("A", 10), ("B", 20)]);
        let target = Target(Btf::parse(b.build()).unwrap());

        let relos: Vec<_> = object.relos().into_iter().map(|(_, relo)| relo).collect();
        let resolutions = resolve(&object.btf, relos.iter().copied(), &target).unwrap();
        let mut found: Vec<_> = relos
            .iter()
            .zip(&resolutions)
            .map(|(relo, resolution)| {
                let value = resolution.as_ref().unwrap().value.map(|value| value as i64);
                (relo.kind().unwrap().to_string(), describe(&object.btf, relo), value)
            })
            .collect();
        found.sort();
        found.dedup();
        // Bits 37 to 39: of a little-endian load of 4 bytes from 4, the uppermost of the first byte.
        let left = if endian == Endian::Little { 64 - 8 } else { 32 + 5 };
        let mut expected = [
            ("byte_off", "struct s.a (0:0)", Some(32)),
            ("byte_sz", "struct s.a (0:0)", Some(4)),
            ("field_exists", "struct s.a (0:0)", Some(1)),
            ("signed", "struct s.a (0:0)", Some(1)),
            ("byte_off", "struct s.flag (0:1)", Some(4)),
            ("lshift_u64", "struct s.flag (0:1)", Some(left)),
            ("rshift_u64", "struct s.flag (0:1)", Some(61)),
            ("byte_off", "struct s.list[2] (0:2:2)", Some(16)),
            ("field_exists", "struct gone.a (0:0)", Some(0)),
            ("local_type_id", "struct s", Some(i64::from(local_id.0))),
            ("target_type_id", "struct s", Some(i64::from(s.0))),
            ("type_exists", "struct s", Some(1)),
            ("type_size", "struct s", Some(40)),
            ("type_matches", "struct s", Some(1)),
            ("type_exists", "struct gone", Some(0)),
            ("enumval_exists", "enum e::B (1)", Some(1)),
            ("enumval_value", "enum e::B (1)", Some(20)),
            ("enumval_exists", "enum e::C (2)", Some(0)),
        ]
        .map(|(kind, what, value)| (kind.to_owned(), what.to_owned(), value));
        expected.sort();
        assert_eq!(found, expected, "{endian:?}");
        let relocated = object.relocate(&target).unwrap();
        assert_eq!(relocated.poisoned, []);
    }
}

/// Fields of the kernel, and how a program might declare their structures.
const KERNEL: &str = r#"
#define core __attribute__((preserve_access_index))
struct sched_entity { unsigned long long sum_exec_runtime; } core;
struct task_struct { int pid; int tgid; char comm[16]; struct task_struct *group_leader; struct sched_entity se; } core;
struct sock_common { unsigned int skc_daddr; unsigned short skc_dport; unsigned short skc_family; } core;
struct sock { struct sock_common __sk_common; } core;
struct vfsmount { int mnt_flags; } core;
struct file { unsigned int f_flags; void *private_data; } core;
struct no_such_struct { int x; } core;
struct task_struct___old { int no_such_field; } core;
__attribute__((section("socket"))) unsigned long probe(struct task_struct *t, struct sock *sk, struct file *f,
                                                       struct vfsmount *m, struct no_such_struct *n) {
    unsigned long sum = t->pid + t->tgid + t->comm[3] + (unsigned long)t->group_leader + t->se.sum_exec_runtime;
    sum += sk->__sk_common.skc_daddr + sk->__sk_common.skc_dport + sk->__sk_common.skc_family;
    sum += f->f_flags + (unsigned long)f->private_data + m->mnt_flags;
    if (__builtin_preserve_field_info(n->x, 2)) sum += n->x;
    struct task_struct___old *old = (void *)t;
    if (__builtin_preserve_field_info(old->no_such_field, 2)) sum += old->no_such_field;
    return sum;
}
"#;

/// The kernel's structures and unions by bpftool's text: id to (name, members), members by (name, type, bits).
type Dump = HashMap<u32, (String, Vec<(String, u32, u32)>)>;

fn parse_dump(text: &str) -> Dump {
    let mut dump = Dump::new();
    let number = |line: &str, key: &str| -> u32 {
        let rest = line.split(key).nth(1).unwrap();
        rest.split(' ').next().unwrap().parse().unwrap()
    };
    let name = |line: &str| line.split('\'').nth(1).unwrap().to_owned();
    let mut current = None;
    for line in text.lines() {
        if let Some((id, rest)) = line.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
            let composite = rest.starts_with("STRUCT ") || rest.starts_with("UNION ");
            current = composite.then(|| id.parse().unwrap());
            if let Some(id) = current {
                dump.insert(id, (name(rest), Vec::new()));
            }
        } else if let Some(id) = current {
            let member = (name(line), number(line, "type_id="), number(line, "bits_offset="));
            dump.get_mut(&id).unwrap().1.push(member);
        }
    }
    dump
}

/// Offset in bits and type of a member of the type `id`, through anonymous ones.
fn locate(dump: &Dump, id: u32, field: &str) -> Option<(u32, u32)> {
    dump.get(&id)?.1.iter().find_map(|(name, ty, bits)| match &name[..] {
        name if name == field => Some((*bits, *ty)),
        "(anon)" => locate(dump, *ty, field).map(|(more, ty)| (bits + more, ty)),
        _ => None,
    })
}

/// Offset in bytes of `a.b.c` in a structure.
fn offset(dump: &Dump, structure: &str, path: &str) -> u64 {
    let mut id = *dump.iter().find(|(_, (name, _))| name == structure).unwrap().0;
    let mut bits = 0;
    for field in path.split('.') {
        let (more, ty) = locate(dump, id, field).unwrap();
        (bits, id) = (bits + more, ty);
    }
    u64::from(bits / 8)
}

#[test]
fn offsets_in_the_running_kernel_are_those_that_bpftool_tells() {
    const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
    let Ok(data) = std::fs::read(VMLINUX) else {
        println!("skipped: the kernel has no {VMLINUX}");
        return;
    };
    let dump = Command::new("bpftool").args(["btf", "dump", "file", VMLINUX, "format", "raw"]).output();
    let Ok(dump) = dump else {
        println!("skipped: no bpftool");
        return;
    };
    if !has_clang() {
        return;
    }
    let dump = parse_dump(&String::from_utf8(dump.stdout).unwrap());
    let elf = clang_bpf(Path::new("."), Endian::HOST, &[], KERNEL);
    let object = BpfObject::parse(&elf);
    let target = Target(Btf::parse(data).unwrap());
    let values = |target: &Target| {
        let relos: Vec<_> = object.relos().into_iter().map(|(_, relo)| relo).collect();
        let resolutions = resolve(&object.btf, relos.iter().copied(), target).unwrap();
        let all = relos.iter().zip(resolutions).map(|(relo, resolution)| {
            let what = describe(&object.btf, relo);
            (
                format!("{} {}", relo.kind().unwrap(), what.split(" (").next().unwrap()),
                resolution.unwrap().value,
            )
        });
        all.collect::<HashMap<_, _>>()
    };
    let found = values(&target);
    let mut expected = HashMap::new();
    for (structure, path) in [
        ("task_struct", "pid"),
        ("task_struct", "tgid"),
        ("task_struct", "group_leader"),
        ("task_struct", "se.sum_exec_runtime"),
        ("sock", "__sk_common.skc_daddr"),
        ("sock", "__sk_common.skc_dport"),
        ("sock", "__sk_common.skc_family"),
        ("file", "f_flags"),
        ("file", "private_data"),
        ("vfsmount", "mnt_flags"),
    ] {
        let offset = offset(&dump, structure, path);
        expected.insert(format!("byte_off struct {structure}.{path}"), Some(offset));
    }
    let comm = offset(&dump, "task_struct", "comm") + 3;
    expected.insert("byte_off struct task_struct.comm[3]".to_owned(), Some(comm));
    for (kind, value) in [("byte_off", None), ("field_exists", Some(0))] {
        expected.insert(format!("{kind} struct no_such_struct.x"), value);
        expected.insert(format!("{kind} struct task_struct___old.no_such_field"), value);
    }
    assert_eq!(found, expected);
    // The two reads that are guarded by a check of existence.
    assert_eq!(object.relocate(&target).unwrap().poisoned.len(), 2);

    // What bpftool takes for this object's needs is enough for it.
    let dir = std::env::temp_dir();
    let [input, minimal] =
        ["o", "btf"].map(|ending| dir.join(format!("core-relo-{}.{ending}", std::process::id())));
    std::fs::write(&input, &elf).unwrap();
    let made =
        Command::new("bpftool").args(["gen", "min_core_btf", VMLINUX]).arg(&minimal).arg(&input).status();
    assert!(made.unwrap().success());
    let target = Target(Btf::parse(std::fs::read(&minimal).unwrap()).unwrap());
    assert!(target.0.count() < 1000);
    assert_eq!(values(&target), expected);
    for file in [input, minimal] {
        std::fs::remove_file(file).unwrap();
    }
}
