//! Programs run by request, on a packet or context of the caller's (`BPF_PROG_TEST_RUN`).

use std::time::Duration;

use bpf_sys::uapi::flags::{BPF_F_TEST_RUN_ON_CPU, BPF_F_TEST_XDP_LIVE_FRAMES};
use bpf_sys::{Errno, ProgType, prog};

use crate::error::{Error, Result};
use crate::program::Program;

/// Bytes by which a program may lengthen a packet that is given back.
const GROWTH: usize = 64 << 10;

/// What a program is run on. Fields left at their default are "none".
#[derive(Debug, Clone, Copy, Default)]
pub struct TestRun<'a> {
    /// The packet, of programs that see one: for XDP and those on `struct __sk_buff`, with its Ethernet header.
    pub data: &'a [u8],
    /// The context: `struct __sk_buff`, `struct xdp_md` (Linux 5.15), `struct bpf_sk_lookup` (5.13), a raw tracepoint's
    /// arguments (5.10), whatever a `syscall` program takes (5.14).
    pub context: &'a [u8],
    /// How often to run; 0 is once. Programs of some types, `syscall` among them, take no other.
    pub repeat: u32,
    /// On this CPU: raw tracepoints only (Linux 5.10).
    pub cpu: Option<u32>,
    /// XDP: carry out the verdicts, on so many frames at a time, or as many as the kernel likes for 0 (Linux 5.18).
    pub live_frames: Option<u32>,
}

/// What a run gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestRunResult {
    /// The program's.
    pub return_value: u32,
    /// Mean time of a run, to the nanosecond.
    pub duration: Duration,
    /// The packet afterwards; of a flow dissector, `struct bpf_flow_keys`.
    pub data: Vec<u8>,
    /// The context afterwards, of programs that have it given back.
    pub context: Vec<u8>,
}

/// The version from which a type of program can be run, where a kernel of this project may be older.
fn min_kernel(program: ProgType) -> Option<(u8, u8)> {
    match program {
        ProgType::RAW_TRACEPOINT => Some((5, 10)),
        ProgType::SK_LOOKUP => Some((5, 13)),
        ProgType::SYSCALL => Some((5, 14)),
        ProgType::NETFILTER => Some((6, 4)),
        _ => None,
    }
}

impl Program {
    /// Runs the program, attached or not.
    ///
    /// # Errors
    ///
    /// `ENOTSUPP`: programs of its type cannot be run so. `EINVAL`: the packet is shorter than an Ethernet header, or the
    /// context has another length or fields that must be zero. [`Error::Unsupported`]: of raw tracepoints before Linux
    /// 5.10, `sk_lookup` 5.13, `syscall` 5.14, live frames 5.18, netfilter 6.4.
    pub fn test_run(&self, input: &TestRun<'_>) -> Result<TestRunResult> {
        let program = self.kind.prog_type;
        let returns_data = !input.data.is_empty() && input.live_frames.is_none();
        let mut data = vec![0; if returns_data { input.data.len() + GROWTH } else { 0 }];
        let mut context = input.context.to_vec();
        // The others refuse to give a context back, or write it where they read it.
        let returns_context =
            !matches!(program, ProgType::RAW_TRACEPOINT | ProgType::SYSCALL | ProgType::TRACING);
        let mut context_out = vec![0; if returns_context { context.len() } else { 0 }];
        let mut run = prog::TestRun {
            data_in: input.data,
            data_out: &mut data,
            ctx_in: &mut context,
            ctx_out: &mut context_out,
            repeat: input.repeat,
            flags: input.cpu.map_or(0, |_| BPF_F_TEST_RUN_ON_CPU)
                | input.live_frames.map_or(0, |_| BPF_F_TEST_XDP_LIVE_FRAMES),
            cpu: input.cpu.unwrap_or(0),
            batch_size: input.live_frames.unwrap_or(0),
        };
        let output = prog::test_run(&self.fd, &mut run).map_err(|error| match error.errno() {
            Some(Errno::ENOTSUPP) => match min_kernel(program) {
                Some(min_kernel) => {
                    Box::new(Error::Unsupported { feature: "test runs of such programs", min_kernel, error })
                }
                None => error.into(),
            },
            Some(Errno::EINVAL) if input.live_frames.is_some() && bpf_sys::kernel_version() < (5, 18) => {
                Box::new(Error::Unsupported {
                    feature: "test runs on live frames",
                    min_kernel: (5, 18),
                    error,
                })
            }
            _ => error.into(),
        })?;
        data.truncate(output.data_len as usize);
        let context = match program {
            ProgType::SYSCALL => context,
            _ => {
                context_out.truncate(output.ctx_len as usize);
                context_out
            }
        };
        Ok(TestRunResult {
            return_value: output.return_value,
            duration: Duration::from_nanos(u64::from(output.duration_ns)),
            data,
            context,
        })
    }
}
