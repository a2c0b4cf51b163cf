//! What kernels of five versions print, describe and write, as `tests/vm/record-fixtures` recorded it.

use std::fs;
use std::path::{Path, PathBuf};

use bpf_loader::btf::{Btf, Kind};
use bpf_loader::insn::InsnIdx;
use bpf_loader::ring::{Next, PerfReader, PerfView, RingReader};
use bpf_loader::verifier_log::{Context, VerifierLog};
use bpf_sys::shared::HeapRing;

const KERNELS: [&str; 5] = ["5.10", "6.1", "6.12", "7.2", "7.3"];

fn fixture(kernel: &str, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(kernel).join(name)
}

fn read(kernel: &str, name: &str) -> Vec<u8> {
    let path = fixture(kernel, name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What each program is refused for, in words that all versions have.
const REASONS: [(&str, &str); 10] = [
    ("unchecked_pointer", "invalid mem access 'map_value_or_null'"),
    ("past_the_value", "invalid access to map value"),
    ("past_the_stack", "stack"),
    ("in_a_function", "invalid access to map value"),
    ("endless_loop", "infinite loop"),
    ("many_branches", "unbounded memory access"),
    ("no_result", "R0 !read_ok"),
    ("missing_field", "invalid func unknown#195896080"),
    ("missing_function", "invalid func unknown#2002000003"),
    ("missing_map", "invalid func unknown#2001000002"),
];

#[test]
fn each_kernel_s_reason_is_found() {
    for kernel in KERNELS {
        for level in ["verifier-1", "verifier-2"] {
            for (program, reason) in REASONS {
                let text = read(kernel, &format!("{level}/{program}.log"));
                let log = VerifierLog::new(core::str::from_utf8(&text).unwrap(), &Context::default());
                let found = log.reason().unwrap_or_default();
                assert!(found.contains(reason), "{kernel} {level} {program}: {found:?}");
                let shown = log.to_string();
                assert!(shown.contains(found) && shown.len() < 6000, "{kernel} {level} {program}: {shown}");
            }
        }
    }
}

#[test]
fn each_kernel_s_instruction_is_found() {
    for kernel in KERNELS {
        for level in ["verifier-1", "verifier-2"] {
            let text = read(kernel, &format!("{level}/missing_field.log"));
            let poisoned = [(InsnIdx(3), "struct task_struct.no_such_member".to_owned())];
            let context = Context { poisoned: &poisoned, ..Context::default() };
            let log = VerifierLog::new(core::str::from_utf8(&text).unwrap(), &context);
            assert_eq!(log.missing(), ["struct task_struct.no_such_member"], "{kernel} {level}");
            assert_eq!(log.insn(), Some(InsnIdx(3)), "{kernel} {level}");
        }
    }
}

#[test]
fn each_kernel_s_types_are_read() {
    for kernel in KERNELS {
        let data = read(kernel, "vmlinux.btf");
        let btf = Btf::parse(&data[..]).unwrap();
        btf.validate().unwrap_or_else(|error| panic!("{kernel}: {error}"));
        assert!(btf.count() > 300, "{kernel}: {} types", btf.count());
        for kind in [Kind::Int, Kind::Ptr, Kind::Array, Kind::Struct, Kind::Enum, Kind::Typedef] {
            assert!(btf.types().any(|ty| ty.kind() == kind), "{kernel}: no {kind}");
        }
        for ty in btf.types() {
            assert!(
                ty.name().is_ok() && ty.members().all(|member| member.name().is_ok()),
                "{kernel}: {}",
                ty.id()
            );
        }
        // Since Linux 7.1 the header tells of a section of layouts.
        let header_len = u32::from_le_bytes(data[4..8].try_into().unwrap());
        assert!(matches!(header_len, 24 | 32), "{kernel}: {header_len}");
        for len in 0..data.len() {
            assert!(Btf::parse(&data[..len]).is_err(), "{kernel}: {len} of {} bytes", data.len());
        }
    }
}

/// Positions of reader and writer, and the data.
fn buffer(kernel: &str, name: &str) -> (u64, u64, Vec<u8>) {
    let mut bytes = read(kernel, name);
    let data = bytes.split_off(16);
    let position = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    (position(0), position(8), data)
}

/// The records that `rings.bpf.c` wrote after the last was read.
fn expected() -> Vec<Vec<u8>> {
    let record = |n: u64| [&n.to_le_bytes()[..], &(n as u32 / 2).to_le_bytes()].concat();
    (190..200).map(record).collect()
}

#[test]
fn each_kernel_s_ring_is_read() {
    for kernel in KERNELS {
        let (consumer, producer, data) = buffer(kernel, "ring");
        assert!(producer > data.len() as u64, "{kernel}: it went around");
        let mut ring = HeapRing::new(data.len(), consumer);
        for (n, word) in data.chunks_exact(8).enumerate() {
            ring.write_word(n * 8, word.try_into().unwrap());
        }
        ring.set_producer(producer as usize);
        let mut reader = RingReader::new(ring);
        let mut records = Vec::new();
        while let Next::Record(record) = reader.next().unwrap() {
            records.push(record.to_vec());
        }
        assert_eq!(records, expected(), "{kernel}");
        assert_eq!(reader.discarded(), 10, "{kernel}");
    }
}

struct Buffer {
    tail: u64,
    head: u64,
    data: Vec<u8>,
}

impl PerfView for Buffer {
    fn data_len(&self) -> usize {
        self.data.len()
    }

    fn head(&self) -> u64 {
        self.head
    }

    fn tail(&self) -> u64 {
        self.tail
    }

    fn set_tail(&mut self, tail: u64) {
        self.tail = tail;
    }

    fn copy_out(&self, position: u64, to: &mut [u8]) -> Option<()> {
        let from = self.data.iter().cycle().skip(position as usize % self.data.len());
        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        Some(())
    }
}

#[test]
fn each_kernel_s_perf_buffer_is_read() {
    for kernel in KERNELS {
        let (tail, head, data) = buffer(kernel, "perf");
        assert!(head > data.len() as u64, "{kernel}: it went around");
        let mut reader = PerfReader::new(Buffer { tail, head, data });
        let mut records = Vec::new();
        while let Some(record) = reader.next().unwrap() {
            // The kernel pads samples.
            records.push(record.raw_sample().unwrap()[..12].to_vec());
        }
        assert_eq!(records, expected(), "{kernel}");
    }
}
