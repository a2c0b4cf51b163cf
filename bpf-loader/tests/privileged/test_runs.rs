//! Programs run by request.

use std::time::Duration;

use bpf_loader::Error;
use bpf_loader::test_run::TestRun;
use bpf_sys::Errno;

use crate::record::fired;
use crate::{kernel_has, load_possible, read_global};

const OBJECT: &[u8] = include_bytes!("../bpf/prebuilt/test_run.bpf.o");
const PACKET: &[u8] = &[3; 64];

#[test]
fn a_packet_goes_in_and_comes_out() {
    let Some(object) = load_possible(OBJECT) else { return };
    let run = TestRun { data: PACKET, repeat: 1000, ..TestRun::default() };
    let result = object.program("length").unwrap().test_run(&run).unwrap();
    assert_eq!((result.return_value, &result.data[..], &result.context[..]), (64, PACKET, &[][..]));
    assert!(result.duration < Duration::from_millis(10));

    // struct __sk_buff, whose mark is the third word.
    let mut context = [0; 192];
    context[8..12].copy_from_slice(&21u32.to_ne_bytes());
    let run = TestRun { data: PACKET, context: &context, ..TestRun::default() };
    let result = object.program("length").unwrap().test_run(&run).unwrap();
    assert_eq!(result.context[8..12], 42u32.to_ne_bytes());

    let result =
        object.program("lengthen").unwrap().test_run(&TestRun { data: PACKET, ..TestRun::default() });
    let result = result.unwrap();
    assert_eq!((result.return_value, result.data.len()), (2, 72));
    assert_eq!((&result.data[..8], &result.data[8..]), (&[0xff; 8][..], PACKET));
    let short = TestRun { data: &[0; 4], ..TestRun::default() };
    let e = object.program("length").unwrap().test_run(&short).unwrap_err();
    assert_eq!(e.errno(), Some(Errno::EINVAL));
}

#[test]
fn it_runs_as_often_as_asked() {
    let Some(object) = load_possible(OBJECT) else { return };
    let run = TestRun { data: PACKET, repeat: 100, ..TestRun::default() };
    assert_eq!(object.program("counted").unwrap().test_run(&run).unwrap().return_value, 5);
    assert_eq!(read_global(OBJECT, &object, "counted_runs"), 100);
}

#[test]
fn a_raw_tracepoint_program_runs_on_the_cpu_asked_for() {
    let Some(object) = load_possible(OBJECT) else { return };
    let program = object.program("second_argument").unwrap();
    let context = [[1u64, 77].map(u64::to_ne_bytes).concat(), vec![0; 80]].concat();
    for cpu in 0..bpf_sys::possible_cpus().unwrap().min(2) as u32 {
        let run = TestRun { context: &context, cpu: Some(cpu), ..TestRun::default() };
        match program.test_run(&run) {
            Ok(result) => assert_eq!(result.return_value, 77),
            Err(e) => {
                assert!(!kernel_has((5, 10)), "{e}");
                assert!(matches!(*e, Error::Unsupported { min_kernel: (5, 10), .. }), "{e}");
                return;
            }
        }
        assert_eq!(read_global(OBJECT, &object, "cpu"), u64::from(cpu));
    }
}

#[test]
fn a_syscall_program_answers_in_its_context() {
    let Some(object) = load_possible(OBJECT) else { return };
    if !kernel_has((5, 14)) {
        // There are no such programs.
        assert!(object.program("add").is_err());
        return;
    }
    let context = [30u64, 12, 0].map(u64::to_ne_bytes).concat();
    let result =
        object.program("add").unwrap().test_run(&TestRun { context: &context, ..TestRun::default() });
    let result = result.unwrap();
    assert_eq!(result.return_value, 7);
    assert_eq!(result.context, [30u64, 12, 42].map(u64::to_ne_bytes).concat());
    fired(object.program("add").unwrap());
}

#[test]
fn live_frames_and_types_that_cannot() {
    let Some(object) = load_possible(OBJECT) else { return };
    let run = TestRun { data: PACKET, repeat: 8, live_frames: Some(4), ..TestRun::default() };
    match object.program("lengthen").unwrap().test_run(&run).map_err(|e| *e) {
        Ok(_) => assert!(kernel_has((5, 18))),
        Err(Error::Unsupported { feature: "test runs on live frames", min_kernel, .. }) => {
            assert!(!kernel_has(min_kernel));
        }
        Err(e) => panic!("{e}"),
    }
    let e = object.program("kprobe").unwrap().test_run(&TestRun::default()).unwrap_err();
    assert_eq!(e.errno(), Some(Errno::ENOTSUPP), "{e}");
}
