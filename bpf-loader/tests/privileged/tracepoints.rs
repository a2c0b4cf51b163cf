//! Tracepoints of all kinds.

use crate::{load, permitted, read_global};

const OBJECT: &[u8] = include_bytes!("../bpf/prebuilt/tracepoint.bpf.o");

#[test]
fn a_raw_tracepoint_runs_until_its_link_is_dropped() {
    let Some(object) = load(OBJECT) else { return };
    let program = object.program("raw_tracepoint").unwrap();
    let Some(link) = permitted(program.attach_raw_tracepoint("sys_enter")) else { return };
    let before = read_global(OBJECT, &object, "runs");
    let between = read_global(OBJECT, &object, "runs");
    assert_ne!(between, before, "reading makes system calls");
    drop(link);
    let after = read_global(OBJECT, &object, "runs");
    assert_eq!(read_global(OBJECT, &object, "runs"), after);
}
