//! The readers against the running kernel: a program assembled by hand writes its argument. Needs CAP_BPF and CAP_PERFMON (or
//! root), and `BPF_PROG_TEST_RUN` of raw tracepoints (Linux 5.10).

use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use bpf_sys::map::{self, MapCreate};
use bpf_sys::perf::{self, Scope};
use bpf_sys::prog::{self, ProgLoad, TestRun};
use bpf_sys::uapi::flags::{BPF_ANY, BPF_F_TEST_RUN_ON_CPU};
use bpf_sys::uapi::insn::{self, Insn};
use bpf_sys::uapi::perf::{PERF_COUNT_SW_BPF_OUTPUT, PERF_SAMPLE_RAW};
use bpf_sys::{Errno, Error, Log, MapFd, MapType, PerfEventAttr, PerfType, ProgFd, ProgType, RecordType};

use super::{Next, PerfReader, Rest, RingReader};

const LDX_DW: u8 = insn::LDX | insn::MEM | insn::DW;
const STX_DW: u8 = insn::STX | insn::MEM | insn::DW;
const MOV64_REG: u8 = 0xbf;
const MOV32_IMM: u8 = 0xb4;
const ADD64_IMM: u8 = 0x07;
const JA: u8 = 0x05;
const JEQ_IMM: u8 = 0x15;
const JSET_IMM: u8 = 0x45;

const PERF_EVENT_OUTPUT: i32 = 25;
const RINGBUF_RESERVE: i32 = 131;
const RINGBUF_SUBMIT: i32 = 132;
const RINGBUF_DISCARD: i32 = 133;

fn i(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Insn {
    Insn::new(code, dst, src, off, imm)
}

/// The first argument of the tracepoint, as a record: submitted when even, discarded when odd.
fn ring_program(ring: &MapFd) -> Vec<Insn> {
    vec![
        i(LDX_DW, 7, 1, 0, 0),
        i(insn::LD_IMM64, 1, insn::PSEUDO_MAP_FD, 0, ring.as_raw_fd()),
        i(0, 0, 0, 0, 0),
        i(insn::MOV64_IMM, 2, 0, 0, 8),
        i(insn::MOV64_IMM, 3, 0, 0, 0),
        i(insn::CALL, 0, 0, 0, RINGBUF_RESERVE),
        i(JEQ_IMM, 0, 0, 7, 0),
        i(STX_DW, 0, 7, 0, 0),
        i(MOV64_REG, 1, 0, 0, 0),
        i(insn::MOV64_IMM, 2, 0, 0, 0),
        i(JSET_IMM, 7, 0, 2, 1),
        i(insn::CALL, 0, 0, 0, RINGBUF_SUBMIT),
        i(JA, 0, 0, 1, 0),
        i(insn::CALL, 0, 0, 0, RINGBUF_DISCARD),
        i(insn::MOV64_IMM, 0, 0, 0, 0),
        i(insn::EXIT, 0, 0, 0, 0),
    ]
}

/// The first argument of the tracepoint, as a sample of 12 bytes into the buffer of the CPU.
fn perf_program(events: &MapFd) -> Vec<Insn> {
    vec![
        i(LDX_DW, 7, 1, 0, 0),
        i(STX_DW, 10, 7, -16, 0),
        i(STX_DW, 10, 7, -8, 0),
        i(insn::LD_IMM64, 2, insn::PSEUDO_MAP_FD, 0, events.as_raw_fd()),
        i(0, 0, 0, 0, 0),
        // BPF_F_CURRENT_CPU
        i(MOV32_IMM, 3, 0, 0, -1),
        i(MOV64_REG, 4, 10, 0, 0),
        i(ADD64_IMM, 4, 0, 0, -16),
        i(insn::MOV64_IMM, 5, 0, 0, 12),
        i(insn::CALL, 0, 0, 0, PERF_EVENT_OUTPUT),
        i(insn::MOV64_IMM, 0, 0, 0, 0),
        i(insn::EXIT, 0, 0, 0, 0),
    ]
}

fn skip_without_rights<T>(result: Result<T, Error>) -> Option<T> {
    match result {
        Err(e) if matches!(e.errno(), Some(Errno::EPERM | Errno::EACCES)) => {
            eprintln!("skip: needs CAP_BPF and CAP_PERFMON");
            None
        }
        Err(e) if e.errno() == Some(Errno::ENOSYS) && std::env::var_os("EMULATED").is_some() => {
            eprintln!("SKIP the emulator has no bpf(2)");
            None
        }
        other => Some(other.unwrap()),
    }
}

fn load(insns: &[Insn]) -> ProgFd {
    let mut text = vec![0; 1 << 16];
    let mut log = Log::new(1, &mut text);
    let load = ProgLoad { prog_type: ProgType::RAW_TRACEPOINT, insns, license: c"GPL", ..Default::default() };
    prog::load(&load, Some(&mut log))
        .unwrap_or_else(|e| panic!("{e}\n{}", String::from_utf8_lossy(log.text())))
}

/// Runs the program with an argument on a CPU.
fn run(prog: &ProgFd, argument: u64, cpu: u32) {
    let mut ctx = argument.to_ne_bytes();
    let mut run = TestRun { ctx_in: &mut ctx, flags: BPF_F_TEST_RUN_ON_CPU, cpu, ..Default::default() };
    prog::test_run(prog, &mut run).unwrap();
}

fn ring(size: u32) -> Option<(RingReader, ProgFd)> {
    let ring = MapCreate { map_type: MapType::RINGBUF, max_entries: size, ..Default::default() };
    let ring = skip_without_rights(map::create(&ring))?;
    Some((RingReader::open(&ring).unwrap(), load(&ring_program(&ring))))
}

fn value(record: &[u8]) -> u64 {
    u64::from_ne_bytes(record.try_into().unwrap())
}

/// Waits until a descriptor is readable; `false` if that takes long.
fn wait(fd: &impl AsFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let long = Timespec { tv_sec: 10, tv_nsec: 0 };
    poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&long)).unwrap() == 1
}

#[test]
fn the_kernels_records_are_read_and_discarded_ones_counted() {
    let Some((mut reader, prog)) = ring(4096) else { return };
    assert_eq!(reader.next(), Ok(Next::Empty));
    // Many times around the ring.
    for round in 0..100u64 {
        for k in 0..20 {
            run(&prog, round * 20 + k, 0);
        }
        let mut got = Vec::new();
        let drained = reader.drain(usize::MAX, |record| got.push(value(record))).unwrap();
        assert_eq!(drained.rest, Rest::Empty);
        let even: Vec<u64> = (round * 20..round * 20 + 20).step_by(2).collect();
        assert_eq!(got, even);
    }
    assert_eq!(reader.discarded(), 1000);
}

#[test]
fn a_full_ring_is_read_whole_and_takes_records_again() {
    let Some((mut reader, prog)) = ring(4096) else { return };
    // 256 records of 16 bytes fill 4096; the kernel keeps some back on older versions.
    for k in 0..300 {
        run(&prog, 2 * k, 0);
    }
    let mut got = Vec::new();
    reader.drain(usize::MAX, |record| got.push(value(record))).unwrap();
    assert!((255..=256).contains(&got.len()), "{}", got.len());
    assert!(got.iter().enumerate().all(|(k, v)| *v == 2 * k as u64));
    run(&prog, 4, 0);
    assert_eq!(reader.next(), Ok(Next::Record(&4u64.to_ne_bytes())));
}

#[test]
fn a_sleeping_reader_is_woken_for_every_record_that_it_has_not_seen() {
    // All fit the ring, however late the reader is.
    const N: u64 = 20_000;
    let Some((mut reader, prog)) = ring(1 << 19) else { return };
    let writer = std::thread::spawn(move || {
        for k in 0..N {
            run(&prog, 2 * k, 0);
            if k % 50 == 0 {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
    });
    let (mut got, mut asleep) = (0, 0);
    while got < N {
        match reader.next().unwrap() {
            Next::Record(record) => {
                assert_eq!(value(record), 2 * got);
                got += 1;
            }
            Next::Busy | Next::Empty => {
                if reader.prepare_to_sleep() {
                    asleep += 1;
                    assert!(wait(&reader), "a wake-up was lost after {got} records");
                }
            }
        }
    }
    writer.join().unwrap();
    assert!(asleep > 0);
    assert_eq!(reader.next(), Ok(Next::Empty));
}

#[test]
fn a_second_reader_of_a_ring_is_refused() {
    let ring = MapCreate { map_type: MapType::RINGBUF, max_entries: 4096, ..Default::default() };
    let Some(ring) = skip_without_rights(map::create(&ring)) else { return };
    let reader = RingReader::open(&ring).unwrap();
    assert_eq!(RingReader::open(&ring).unwrap_err(), Error::AlreadyMapped);
    drop(reader);
    RingReader::open(&ring).unwrap();
}

#[test]
fn samples_of_a_perf_buffer_are_read_and_losses_counted() {
    let events = MapCreate {
        map_type: MapType::PERF_EVENT_ARRAY,
        key_size: 4,
        value_size: 4,
        max_entries: bpf_sys::possible_cpus().unwrap() as u32,
        ..Default::default()
    };
    let Some(events) = skip_without_rights(map::create(&events)) else { return };
    let attr = PerfEventAttr {
        kind: PerfType::SOFTWARE,
        config: PERF_COUNT_SW_BPF_OUTPUT,
        sample_type: PERF_SAMPLE_RAW,
        sample_period: 1,
        wakeup: 1,
        ..Default::default()
    };
    let event = perf::open(&attr, Scope::AllProcesses, Some(0), None);
    let Some(event) = skip_without_rights(event) else { return };
    map::update(&events, &0u32.to_ne_bytes(), &event.as_raw_fd().to_ne_bytes(), BPF_ANY).unwrap();
    let mut reader = PerfReader::open(&event, 1).unwrap();
    event.enable(false).unwrap();
    let prog = load(&perf_program(&events));

    assert_eq!(reader.next(), Ok(None));
    assert!(reader.prepare_to_sleep());
    // 24 bytes do not divide a page, so records wrap.
    for k in 0..1000u64 {
        run(&prog, k, 0);
        let record = reader.next().unwrap().unwrap();
        assert_eq!(record.kind, RecordType::SAMPLE);
        let data = record.raw_sample().unwrap();
        assert_eq!((data.len(), value(&data[..8])), (12, k));
        assert_eq!(reader.next(), Ok(None));
    }
    assert!(wait(&reader), "woken by the samples");

    for k in 0..500 {
        run(&prog, k, 0);
    }
    let mut samples = 0;
    while let Some(record) = reader.next().unwrap() {
        assert_eq!(value(&record.raw_sample().unwrap()[..8]), samples);
        samples += 1;
    }
    // The loss is told with the next sample.
    assert_eq!(reader.lost(), 0);
    run(&prog, 9, 0);
    assert_eq!(reader.next().unwrap().unwrap().kind, RecordType::LOST);
    assert_eq!(reader.lost(), 500 - samples);
    assert_eq!(value(&reader.next().unwrap().unwrap().raw_sample().unwrap()[..8]), 9);
}
