//! What the loader reads beside objects: lists of kernels, notes of binaries, logs of verifiers.

use super::input::Input;
use bpf_loader::attach::usdt::args::{self, MAX_ARGS};
use bpf_loader::attach::usdt::note::Notes;
use bpf_loader::attach::usdt::regs::Registers;
use bpf_loader::bytes::{Bytes, Endian};
use bpf_loader::externs::kconfig::{self, ValueType, Variable};
use bpf_loader::insn::InsnIdx;
use bpf_loader::kallsyms;
use bpf_loader::machine::Machine;
use bpf_loader::verifier_log::{Context, VerifierLog};
use std::io::BufReader;

/// A list of kernel symbols, read in pieces of a size that the first byte says.
pub fn loader_kallsyms(data: &[u8]) {
    let mut input = Input::new(data);
    let piece = 1 + usize::from(input.u8());
    let list = input.rest();
    let names = ["schedule", "vfs_read", "x"];
    let find =
        |piece| kallsyms::find(BufReader::with_capacity(piece, list), names).expect("bytes can be read");
    let found = find(piece);
    assert!(found.keys().all(|name| names.contains(name)));
    assert_eq!(found, find(1 << 20), "pieces change nothing");
}

/// A kernel's configuration, each value as every type of variable; and its version.
pub fn loader_kconfig(config: &[u8]) {
    for (name, value) in kconfig::parse(config) {
        assert!(name.starts_with(b"CONFIG_") && !value.is_empty() && !value.contains(&b'\n'));
        let types = [
            (ValueType::Bool, 1),
            (ValueType::Tristate, 4),
            (ValueType::Char { signed: false }, 1),
            (ValueType::Int { signed: true }, 2),
            (ValueType::Int { signed: false }, 4),
            (ValueType::Int { signed: true }, 8),
            (ValueType::Chars, 5),
        ];
        for (value_type, size) in types {
            let variable = Variable { value_type, size, offset: 0 };
            for endian in [Endian::Little, Endian::Big] {
                if let Ok(bytes) = variable.parse(value, endian) {
                    // A string may be shorter than its variable.
                    let cut =
                        value_type == ValueType::Chars && !bytes.is_empty() && bytes.len() < size as usize;
                    assert!(bytes.len() == size as usize || cut, "{bytes:?}");
                }
            }
        }
    }
    let text = String::from_utf8_lossy(config);
    let mut lines = text.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default();
    kconfig::kernel_version(Some(line()), line(), line());
}

/// Notes of probes, and their arguments as each architecture writes them.
pub fn loader_usdt(data: &[u8]) {
    use Machine::{Aarch64, Arm, Riscv64, S390x, X86, X86_64};
    let own = [X86_64, X86, Aarch64, Arm, Riscv64, S390x].map(|machine| (machine, machine));
    let pairs = own.into_iter().chain([(X86, X86_64), (Arm, Aarch64)]);
    let registers: Vec<_> = pairs.filter_map(|(program, kernel)| Registers::new(program, kernel)).collect();
    let arguments = |text: &[u8]| {
        let Ok(text) = core::str::from_utf8(text) else { return };
        for registers in &registers {
            match args::parse(*registers, text) {
                Ok(args) => {
                    assert!(args.len() <= MAX_ARGS);
                    assert!(args.iter().all(|arg| matches!(arg.size, 1 | 2 | 4 | 8)), "{text:?}: {args:?}");
                }
                Err(bad) => assert!(bad.at <= text.len() && text.is_char_boundary(bad.at)),
            }
        }
    };
    arguments(data);
    for endian in [Endian::Little, Endian::Big] {
        for address_size in [4, 8] {
            let notes: Vec<_> = Notes::new(Bytes::new(data, endian), address_size).collect();
            notes.iter().flatten().for_each(|note| arguments(note.arguments));
            // Each has a header of 12 bytes; what comes after the last may be an error.
            let count = notes.iter().flatten().count();
            assert!(notes.len() <= count + 1);
            assert!(count * 12 <= data.len());
        }
    }
}

/// A verifier's log, of a program with a poisoned instruction and lines of source.
///
/// The first byte says how long the line information is, which comes next; the log is the rest.
pub fn loader_verifier_log(data: &[u8]) {
    let mut input = Input::new(data);
    let len = usize::from(input.u8());
    let line_info = input.bytes(len);
    let text = String::from_utf8_lossy(input.rest());
    let poisoned = [(InsnIdx(3), "struct task_struct.no_such_member".to_owned())];
    let mut strings = bpf_loader::btf::encode::Builder::new(Endian::HOST);
    strings.string("file.c");
    strings.string("int x = 1;");
    let btf = strings.build();
    let context = Context { poisoned: &poisoned, line_info, btf: Some(&btf), truncated: len % 2 == 1 };
    let log = VerifierLog::new(&text, &context);
    assert_eq!(log.text(), text.trim_end());
    assert!(log.missing().iter().all(|missing| *missing == poisoned[0].1));
    let _ = (log.reason(), log.suggestion(), log.insn(), log.source());
    let (short, whole) = (log.to_string(), format!("{log:#}"));
    assert!(short.lines().count() <= 64, "{short}");
    assert!(
        text.trim_end().lines().all(|line| whole.contains(line.trim_end_matches('\r'))),
        "all is shown: {whole}"
    );
}
