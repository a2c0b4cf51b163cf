use super::*;
use crate::btf::encode::Builder;

const SEVEN_THREE: &str = "\
0: R1=ctx() R10=fp0
0: (95) exit
R0 !read_ok

Verification failed: Register Type Safety: Unreadable register

Reason:
  R0 has never been initialized on this path, so the verifier cannot
  use it as an input.

At:
  insn 0
        | ^-- error: R0 is not readable
  Instruction context:
  >>> 0 | (95) exit

Causal path:
  no retained diagnostic events on this path

Suggestion:
  Initialize R0 on every path before this instruction.

processed 1 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
";

fn log(text: &str) -> VerifierLog {
    VerifierLog::new(text, &Context::default())
}

#[test]
fn the_last_lines_are_shown_and_all_on_request() {
    let text: String = (0..50).map(|i| format!("{i}: (b7) r1 = {i}\n")).collect::<String>()
        + "R2 is bad\nprocessed 3 insns\n";
    let log = log(&text);
    let short = log.to_string();
    assert!(short.contains("reason: R2 is bad\n  at: instruction 49"), "{short}");
    assert!(
        short.contains("r1 = 49") && short.contains("r1 = 39") && !short.contains("r1 = 38\n"),
        "{short}"
    );
    assert!(
        short.contains("39 lines of the verifier's log left out") && !short.contains("processed"),
        "{short}"
    );
    let all = format!("{log:#}");
    assert!(all.contains("r1 = 0\n") && all.contains("processed 3"), "{all}");
}

#[test]
fn states_are_not_taken_for_reasons() {
    let old = log(
        "; int f(void *ctx)\n0: (b7) r0 = 1\n R0_w=inv1 R1=ctx(id=0,off=0,imm=0) R10=fp0\n; return *p;\n\
                   1: (61) r0 = *(u32 *)(r1 +4096)\ninvalid bpf_context access off=4096 size=4\n",
    );
    assert_eq!(old.reason(), Some("invalid bpf_context access off=4096 size=4"));
    assert_eq!(old.insn(), Some(InsnIdx(1)));
    let new = log(
        "func#0 @0\n0: R1=ctx() R10=fp0\n; return *p; @ a.bpf.c:3\n0: (61) r0 = *(u32 *)(r1 +4096)\n\
                   arg#0 reference type('UNKNOWN ') size cannot be determined: -22\ninvalid bpf_context access\n",
    );
    assert_eq!(new.reason(), Some("invalid bpf_context access"));
    let register = log("3: (bf) r1 = r2\nR2 !read_ok\n");
    assert_eq!(register.reason(), Some("R2 !read_ok"));
    // Refused before the first instruction.
    assert_eq!(log("last insn is not an exit or jmp\n").reason(), Some("last insn is not an exit or jmp"));
}

#[test]
fn the_report_of_linux_7_3_is_understood() {
    let log = log(SEVEN_THREE);
    assert_eq!(
        log.reason(),
        Some(
            "R0 has never been initialized on this path, so the verifier cannot use it as an input. (R0 !read_ok)"
        )
    );
    assert_eq!(log.suggestion(), Some("Initialize R0 on every path before this instruction."));
    assert_eq!(log.insn(), Some(InsnIdx(0)));
    let short = log.to_string();
    assert!(short.ends_with("0: (95) exit\n  R0 !read_ok"), "{short}");
}

#[test]
fn what_is_missing_is_named() {
    let text = "11: (b7) r1 = 0\n12: (85) call unknown#195896080\ninvalid func unknown#195896080\n";
    let poisoned = [(InsnIdx(12), "task_struct.no_such".to_owned()), (InsnIdx(40), "pid.other".to_owned())];
    let context = Context { poisoned: &poisoned, ..Context::default() };
    let log = VerifierLog::new(text, &context);
    assert_eq!(log.missing(), ["task_struct.no_such"]);
    assert!(log.to_string().contains("does not have task_struct.no_such"));
    // A failure that has nothing to do with poison does not name it.
    assert_eq!(VerifierLog::new("12: (85) call bpf_x#1\nR1 invalid\n", &context).missing(), [] as [&str; 0]);
}

#[test]
fn the_source_line_is_found() {
    let mut b = Builder::new(Endian::HOST);
    let (file, first, second) = (b.string("dir/a.bpf.c"), b.string("\tint x = 0;"), b.string("  return *p;"));
    b.int("int", 4, 1);
    let btf = b.build();
    let record = |insn: u32, line: u32, number: u32| {
        [insn, file, line, number << 10 | 5].into_iter().flat_map(u32::to_ne_bytes).collect::<Vec<u8>>()
    };
    let line_info = [record(0, first, 7), record(2, second, 9)].concat();
    let context = Context { line_info: &line_info, btf: Some(&btf), ..Context::default() };
    let shown = |text| VerifierLog::new(text, &context).to_string();
    assert!(shown("1: (95) exit\nbad\n").contains("at: instruction 1, dir/a.bpf.c:7: int x = 0;"));
    assert!(shown("2: (95) exit\nbad\n").contains("at: instruction 2, dir/a.bpf.c:9: return *p;"));
    // Without line information, and without an instruction.
    assert!(log("2: (95) exit\nbad\n").to_string().contains("at: instruction 2\n"));
    assert!(!shown("bad\n").contains("at:"));
}
