//! Programs, BTF and tokens.

use std::os::fd::{AsFd, AsRawFd};

use bpf_sys::map::{self, MapCreate};
use bpf_sys::prog::{self, ProgArrays, ProgLoad, TestRun};
use bpf_sys::uapi::flags::{BPF_ANY, BPF_STREAM_STDOUT};
use bpf_sys::uapi::insn::{self, Insn};
use bpf_sys::{Errno, Error, Log, MapType, ProgType, StatsType, btf, token};

use crate::{create, hash_map, kernel_has, load, return_program};

#[test]
fn a_program_is_loaded_run_and_described() {
    let Some(prog) = load(ProgType::SOCKET_FILTER, &return_program(42)) else { return };
    let output =
        prog::test_run(&prog, &mut TestRun { data_in: &[0; 64], repeat: 3, ..Default::default() }).unwrap();
    assert_eq!((output.return_value, output.data_len), (42, 64));
    let mut short = [0; 10];
    let mut run = TestRun { data_in: &[5; 64], data_out: &mut short, ..Default::default() };
    assert_eq!(prog::test_run(&prog, &mut run).unwrap_err().errno(), Some(Errno::ENOSPC));

    let info = prog::info(&prog).unwrap();
    assert_eq!(info.prog_type, ProgType::SOCKET_FILTER);
    assert_eq!(info.name.to_string(), "test_prog");
    assert_eq!(info.flags & 1, 1, "GPL");
    assert_eq!(info.recursion_misses(), kernel_has((5, 12)).then_some(0));
    let mut xlated = vec![0; info.xlated_len as usize];
    prog::info_arrays(&prog, &mut ProgArrays { xlated: &mut xlated, ..Default::default() }).unwrap();
    assert_eq!(xlated[..8], [0xb7, 0, 0, 0, 42, 0, 0, 0]);

    assert!(prog::ids().any(|id| id == Ok(info.id)));
    let same = prog::open_by_id(info.id, None).unwrap();
    assert_eq!(prog::info(&same).unwrap().tag, info.tag);
    let map = hash_map(MapType::ARRAY, 4, 1).unwrap();
    prog::bind_map(&prog, &map).unwrap();
    let mut map_ids = [0; 2];
    let info =
        prog::info_arrays(&prog, &mut ProgArrays { map_ids: &mut map_ids, ..Default::default() }).unwrap();
    assert_eq!((info.nr_map_ids, map_ids[0]), (1, map::info(&map).unwrap().id));
}

#[test]
fn a_refused_program_leaves_its_log() {
    // r0 is never set.
    let insns = [Insn::new(insn::EXIT, 0, 0, 0, 0)];
    let mut prog =
        ProgLoad { prog_type: ProgType::SOCKET_FILTER, insns: &insns, license: c"GPL", ..Default::default() };
    let mut buf = vec![0; 4096];
    let mut log = Log::new(1, &mut buf);
    let e = prog::load(&prog, Some(&mut log)).unwrap_err();
    if e.errno() == Some(Errno::EPERM) {
        eprintln!("skip: needs CAP_BPF");
        return;
    }
    assert_eq!(e.errno(), Some(Errno::EACCES));
    let text = String::from_utf8_lossy(log.text()).into_owned();
    assert!(text.contains("R0 !read_ok"), "{text}");
    if log.true_size != 0 {
        assert_eq!(log.true_size as usize, text.len() + 1);
        let whole = log.true_size;
        let mut short = [0; 8];
        let mut log = Log::new(1, &mut short);
        assert_eq!(prog::load(&prog, Some(&mut log)).unwrap_err().errno(), Some(Errno::ENOSPC));
        assert_eq!(log.true_size, whole);
    }
    // An index that the kernel would follow out of the array.
    let insns = [
        Insn::new(insn::LD_IMM64, 1, insn::PSEUDO_MAP_IDX, 0, 1),
        Insn::default(),
        Insn::new(insn::MOV64_IMM, 0, 0, 0, 0),
        Insn::new(insn::EXIT, 0, 0, 0, 0),
    ];
    prog.insns = &insns;
    let map = hash_map(MapType::ARRAY, 4, 1).unwrap();
    let fds = [map.as_raw_fd(), map.as_raw_fd()];
    prog.fd_array = &fds[..1];
    assert!(matches!(prog::load(&prog, None), Err(Error::Argument { .. })));
    prog.fd_array = &fds;
    match prog::load(&prog, None) {
        Ok(_) => assert!(kernel_has((5, 14))),
        Err(e) => assert!(!kernel_has((5, 14)) && e.errno() == Some(Errno::E2BIG), "{e}"),
    }
}

/// BTF with one type: `int`.
fn int_btf() -> Vec<u8> {
    let mut btf = Vec::new();
    btf.extend(0xeb9fu16.to_ne_bytes());
    btf.extend([1, 0]);
    // Header length, then offset and length of types and of strings.
    for word in [24u32, 0, 16, 16, 5] {
        btf.extend(word.to_ne_bytes());
    }
    // Name offset 1, kind 1 (INT), 4 bytes, signed 32 bits.
    for word in [1u32, 1 << 24, 4, 1 << 24 | 32] {
        btf.extend(word.to_ne_bytes());
    }
    btf.extend(b"\0int\0");
    btf
}

#[test]
fn btf_is_loaded_and_read_back() {
    let data = int_btf();
    let btf = match btf::load(&data, 0, None, None) {
        Err(e) if e.errno() == Some(Errno::EPERM) => {
            eprintln!("skip: needs CAP_BPF");
            return;
        }
        other => other.unwrap(),
    };
    let info = btf::info(&btf).unwrap();
    assert_eq!((info.size as usize, info.kernel_btf), (data.len(), 0));
    let mut back = vec![0; data.len()];
    btf::info_data(&btf, &mut back, &mut []).unwrap();
    assert_eq!(back, data);
    assert!(btf::ids().any(|id| id == Ok(info.id)));
    let mut name = [0; 64];
    let kernel = btf::ids().find_map(|id| {
        let btf = btf::open_by_id(id.ok()?, None).ok()?;
        btf::info_data(&btf, &mut [], &mut name).ok().filter(|_| name.starts_with(b"vmlinux\0"))
    });
    assert_eq!(kernel.map(|info| info.kernel_btf), kernel_has((5, 11)).then_some(1));

    let mut broken = data.clone();
    broken[24] = 200;
    let mut buf = vec![0; 4096];
    let mut log = Log::new(1, &mut buf);
    assert_eq!(btf::load(&broken, 0, None, Some(&mut log)).unwrap_err().errno(), Some(Errno::EINVAL));
    assert!(!log.text().is_empty());
}

#[test]
fn statistics_count_runs() {
    let Some(prog) = load(ProgType::SOCKET_FILTER, &return_program(0)) else { return };
    let on = prog::enable_stats(StatsType::RUN_TIME).unwrap();
    prog::test_run(&prog, &mut TestRun { data_in: &[0; 64], repeat: 5, ..Default::default() }).unwrap();
    drop(on);
    assert_eq!(prog::info(&prog).unwrap().run_cnt, 5);
}

#[test]
fn a_program_array_is_set_by_descriptor_and_read_as_id() {
    let Some(prog) = load(ProgType::SOCKET_FILTER, &return_program(0)) else { return };
    let array = MapCreate {
        map_type: MapType::PROG_ARRAY,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        ..Default::default()
    };
    let array = create(&array).unwrap();
    map::update(&array, &[0; 4], &prog.as_raw_fd().to_ne_bytes(), BPF_ANY).unwrap();
    let mut id = [0; 4];
    assert_eq!(map::lookup(&array, &[0; 4], &mut id, 0), Ok(true));
    assert_eq!(u32::from_ne_bytes(id), prog::info(&prog).unwrap().id);
}

#[test]
fn tokens_are_for_user_namespaces() {
    let Ok(dir) = std::fs::File::open("/sys/fs/bpf") else { return };
    let e = token::create(dir.as_fd(), 0).unwrap_err();
    assert_eq!(e.to_string().split(':').next(), Some("bpf(BPF_TOKEN_CREATE)"));
    assert!(e.errno().is_some());
}

#[test]
fn streams_are_read() {
    let Some(prog) = load(ProgType::SOCKET_FILTER, &return_program(0)) else { return };
    match prog::stream_read(&prog, BPF_STREAM_STDOUT, &mut [0; 64]) {
        Ok(len) => assert_eq!(len, 0),
        // Before Linux 6.17.
        Err(e) => assert_eq!(e.errno(), Some(Errno::EINVAL), "{e}"),
    }
}
