//! Time and memory that the kernel's BTF and relocations against it cost: `cargo bench -p bpf-loader --bench btf`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bpf_loader::Error;
use bpf_loader::btf::encode::{Builder, Field, SIGNED};
use bpf_loader::btf::ext::CoreRelo;
use bpf_loader::btf::{Btf, Kind};
use bpf_loader::core_relo::resolve;
use bpf_loader::target::{ModuleBtf, TargetBtf};

struct Kernel<'a>(Btf<'a>);

impl TargetBtf for Kernel<'_> {
    fn vmlinux(&self) -> Result<Option<&Btf<'_>>, Box<Error>> {
        Ok(Some(&self.0))
    }

    fn modules(&self) -> Result<&[ModuleBtf<'_>], Box<Error>> {
        Ok(&[])
    }
}

const STRUCTS: [&str; 20] = [
    "task_struct",
    "mm_struct",
    "file",
    "inode",
    "dentry",
    "sock",
    "sk_buff",
    "request",
    "bio",
    "page",
    "cred",
    "pid",
    "nsproxy",
    "super_block",
    "net_device",
    "rq",
    "cgroup",
    "tcp_sock",
    "vm_area_struct",
    "signal_struct",
];

const FUNCTIONS: [&str; 5] = ["bpf_iter_task", "do_unlinkat", "tcp_connect", "vfs_read", "bpf_lsm_file_open"];

/// An object that reads up to ten fields of each of [`STRUCTS`], as they are named in this kernel.
fn object(kernel: &Btf<'_>) -> (Vec<u8>, Vec<CoreRelo>) {
    let mut b = Builder::new(kernel.endian());
    let (int, pointer) = (b.int("int", 4, SIGNED), b.ptr(bpf_loader::btf::BtfId::VOID));
    let mut relos = Vec::new();
    for name in STRUCTS {
        let Some(id) = kernel.find_by_name(name, Kind::Struct) else { continue };
        let ty = kernel.type_by_id(id).unwrap();
        let plain = ty.members().filter(|member| member.bitfield_size == 0).filter_map(|member| {
            let own = match kernel.skip_mods_and_typedefs(member.type_id).unwrap().kind() {
                Kind::Int => int,
                Kind::Ptr => pointer,
                _ => return None,
            };
            Some((member.name().unwrap(), own))
        });
        let fields: Vec<_> =
            plain.take(10).zip(0..).map(|((name, own), at)| Field::at(name, own, at * 8)).collect();
        let type_id = b.structure(name, 80, &fields);
        for member in 0..fields.len() {
            let access = b.string(&format!("0:{member}"));
            relos.push(CoreRelo { insn_offset: 0, type_id, access, kind: 0 });
        }
    }
    (b.build(), relos)
}

/// The shortest of many runs.
fn best<T>(runs: u32, mut run: impl FnMut() -> T) -> Duration {
    let timed = (0..runs).map(|_| {
        let start = Instant::now();
        black_box(run());
        start.elapsed()
    });
    timed.min().unwrap_or_default()
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

fn main() {
    let before = resident_kib();
    let Ok(data) = std::fs::read("/sys/kernel/btf/vmlinux") else {
        println!("skipped: the kernel has no BTF");
        return;
    };
    let read = resident_kib();
    let start = Instant::now();
    let kernel = Kernel(Btf::parse(&data[..]).expect("the kernel's BTF"));
    let first = start.elapsed();
    println!(
        "{} types in {} bytes: first parse {first:.1?}, best {:.1?}; resident {} KiB for the file, {} KiB for parsing; index {} bytes",
        kernel.0.count(),
        data.len(),
        best(50, || Btf::parse(&data[..])),
        read - before,
        resident_kib() - read,
        kernel.0.index_size(),
    );
    let ids: Vec<_> = kernel.0.types().map(|ty| ty.id()).collect();
    let all = best(20, || ids.iter().filter_map(|&id| kernel.0.type_by_id(id).ok()?.size()).count());
    println!("look-up by id: {:.1} ns", all.as_nanos() as f64 / ids.len() as f64);
    println!(
        "look-up of a name that isn't there: {:.1?}",
        best(20, || kernel.0.find_by_name("no_such_type", Kind::Struct))
    );

    let structs = STRUCTS.map(|name| (name.as_bytes(), Kind::Struct));
    let functions = FUNCTIONS.map(|name| (name.as_bytes(), Kind::Func));
    let roots = [&structs[..], &functions[..]].concat();
    println!(
        "parse and find {} structures: {:.1?}; and {} functions: {:.1?}",
        structs.len(),
        best(50, || Btf::parse_finding(&data[..], &structs)),
        functions.len(),
        best(50, || Btf::parse_finding(&data[..], &roots)),
    );

    let (local, relos) = object(&kernel.0);
    let local = Btf::parse(local).expect("made here");
    let found = resolve(&local, relos.iter().copied(), &kernel).expect("resolved");
    let good = found.iter().filter(|result| result.as_ref().is_ok_and(|r| r.value.is_some())).count();
    println!(
        "{} relocations of {} structures ({good} found): {:.1?}",
        relos.len(),
        STRUCTS.len(),
        best(50, || resolve(&local, relos.iter().copied(), &kernel)),
    );
}
