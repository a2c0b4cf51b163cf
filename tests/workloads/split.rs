//! The Rust twin of `split.c`: the same arguments, slices and output.

use std::arch::asm;
use std::hint::black_box;
use std::io::{Read, Write};

/// One turn through the three functions; see `split.c`.
const TURN_NS: u64 = 3_858_000;

/// CPU time of this thread in ns, by a system call in the function that asks; see `thread_clock.h`.
#[inline(always)]
fn thread_clock() -> u64 {
    const CLOCK_GETTIME: i64 = 228;
    const CLOCK_THREAD_CPUTIME_ID: i64 = 3;
    let mut now = [0u64; 2];
    // SAFETY: clock_gettime writes one 16-byte timespec, which is what `now` has room for.
    unsafe {
        asm!("syscall", inout("rax") CLOCK_GETTIME => _, in("rdi") CLOCK_THREAD_CPUTIME_ID, in("rsi") &mut now,
            out("rcx") _, out("r11") _, options(nostack));
    }
    now[0] * 1_000_000_000 + now[1]
}

/// Works until the thread's clock reaches `end`; returns the clock. A `salt` for each caller keeps them apart.
#[inline(always)]
fn work_until(end: u64, salt: u64) -> u64 {
    let mut x = salt;
    loop {
        for _ in 0..2_000 {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
        }
        black_box(x);
        let now = thread_clock();
        if now >= end {
            return now;
        }
    }
}

#[inline(never)]
fn burn_seventy(end: u64) -> u64 {
    work_until(end, 0x7070_7070_7070_7070)
}

#[inline(never)]
fn burn_twenty(end: u64) -> u64 {
    work_until(end, 0x2020_2020_2020_2020)
}

#[inline(never)]
fn burn_ten(end: u64) -> u64 {
    work_until(end, 0x1010_1010_1010_1010)
}

/// Blocks, without CPU time, until stdin has a byte or ends.
fn wait_for_stdin() {
    let _ = std::io::stdin().lock().read(&mut [0]);
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().and_then(|s| s.parse::<f64>().ok()).filter(|s| *s > 0.0);
    let Some(seconds) = seconds else {
        eprintln!("usage: split SECONDS");
        std::process::exit(2);
    };
    wait_for_stdin();

    let mut spent = [0u64; 3];
    let start = thread_clock();
    let mut now = start;
    let mut turn = start;
    while ((now - start) as f64) < seconds * 1e9 {
        let mut charge = |slot: usize, burn: fn(u64) -> u64, end: u64| {
            let before = now;
            now = burn(end);
            spent[slot] += now - before;
        };
        charge(0, burn_seventy, turn + TURN_NS * 7 / 10);
        charge(1, burn_twenty, turn + TURN_NS * 9 / 10);
        charge(2, burn_ten, turn + TURN_NS);
        turn += TURN_NS;
    }

    let [seventy, twenty, ten] = spent.map(|ns| ns as f64 / 1e9);
    let pid = std::process::id();
    println!(
        "{{\"pid\":{pid},\"tid\":{pid},\"total_seconds\":{:.6},\"seconds\":{{\"burn_seventy\":{seventy:.6},\
         \"burn_twenty\":{twenty:.6},\"burn_ten\":{ten:.6}}}}}",
        (now - start) as f64 / 1e9
    );
    let _ = std::io::stdout().flush();
    wait_for_stdin();
}
