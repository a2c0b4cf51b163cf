//! Programs whose every system call is known: a few instructions in an ELF file, without a C library.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

const BASE: u32 = 0x40_0000;

/// Instructions for x86, as far as they are the same for programs of 32 and 64 bits.
#[derive(Clone)]
pub struct Code {
    wide: bool,
    bytes: Vec<u8>,
}

/// Registers, by their number.
#[derive(Clone, Copy)]
pub enum Reg {
    A = 0,
    C = 1,
    D = 2,
    B = 3,
    Si = 6,
    Di = 7,
}

impl Code {
    pub fn of_64_bits() -> Self {
        Self { wide: true, bytes: Vec::new() }
    }

    pub fn of_32_bits() -> Self {
        Self { wide: false, bytes: Vec::new() }
    }

    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend(bytes);
        self
    }

    pub fn set(&mut self, register: Reg, value: i32) -> &mut Self {
        self.put(&[0xb8 + register as u8]).put(&value.to_le_bytes())
    }

    /// A system call; arguments are in their registers.
    pub fn call(&mut self, number: i32) -> &mut Self {
        if self.wide { self.set(Reg::A, number).put(&[0x0f, 0x05]) } else { self.call_compat(number) }
    }

    /// A system call of 32-bit programs, from whatever program.
    pub fn call_compat(&mut self, number: i32) -> &mut Self {
        self.set(Reg::A, number).put(&[0xcd, 0x80])
    }

    /// `body` so many times. Loops within loops use the other counter.
    pub fn times(&mut self, n: u32, body: impl FnOnce(&mut Self)) -> &mut Self {
        // ebp counts; no call touches it.
        self.put(&[0xbd]).put(&n.to_le_bytes());
        let start = self.bytes.len();
        body(self);
        let decrement: &[u8] = if self.wide { &[0xff, 0xcd] } else { &[0x4d] };
        self.put(decrement).jump(&[0x0f, 0x85], start)
    }

    /// Calls numbers `first` to `last`, which do not exist.
    pub fn call_all(&mut self, first: i32, last: i32) -> &mut Self {
        self.set(Reg::B, first);
        let start = self.bytes.len();
        self.put(&[0x89, 0xd8, 0x0f, 0x05, 0xff, 0xc3, 0x81, 0xfb]).put(&(last + 1).to_le_bytes());
        self.jump(&[0x0f, 0x85], start)
    }

    /// What runs where the last call returned 0: in a child.
    pub fn if_zero(&mut self, body: impl FnOnce(&mut Self)) -> &mut Self {
        self.put(&[0x85, 0xc0, 0x0f, 0x85, 0, 0, 0, 0]);
        let start = self.bytes.len();
        body(self);
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start - 4..start].copy_from_slice(&length.to_le_bytes());
        self
    }

    fn jump(&mut self, instruction: &[u8], to: usize) -> &mut Self {
        let length = to as i64 - (self.bytes.len() + instruction.len() + 4) as i64;
        self.put(instruction).put(&(length as i32).to_le_bytes())
    }

    /// Tells that it is here, and waits to be let on: a `write` and a `read`.
    pub fn gate(&mut self) -> &mut Self {
        let (buffer, number) = (DATA as i32, [0, 1]);
        let [read, write] = if self.wide { number } else { [3, 4] };
        for (call, fd) in [(write, 1), (read, 0)] {
            let (first, second) = if self.wide { (Reg::Di, Reg::Si) } else { (Reg::B, Reg::C) };
            self.set(first, fd).set(second, buffer).set(Reg::D, 1).call(call);
        }
        self
    }

    /// `nanosleep` for the time that the program was built with.
    pub fn sleep(&mut self) -> &mut Self {
        self.set(Reg::Di, TIMESPEC as i32).set(Reg::Si, 0).call(35)
    }

    /// A handler for SIGUSR1 that does nothing, and after which calls start again.
    pub fn handle_usr1(&mut self) -> &mut Self {
        self.set(Reg::Di, 10).set(Reg::Si, SIGACTION as i32).set(Reg::D, 0);
        // The size of a set of signals is the fourth argument, in r10.
        self.put(&[0x41, 0xba, 8, 0, 0, 0]).call(13)
    }

    pub fn exit(&mut self, number: i32) -> &mut Self {
        let first = if self.wide { Reg::Di } else { Reg::B };
        self.set(first, 0).call(number)
    }

    /// The file.
    fn elf(&self, sleep_nanos: u64) -> Vec<u8> {
        let (header, entry) = (if self.wide { 64 } else { 52 }, if self.wide { 56 } else { 32 });
        let mut data = Vec::new();
        for word in [0, 0, sleep_nanos, HANDLER, 0x1400_0000, HANDLER + 1, 0] {
            data.extend(word.to_le_bytes());
        }
        // The handler returns to the restorer, which calls rt_sigreturn.
        data.extend([0xc3, 0xb8, 15, 0, 0, 0, 0x0f, 0x05]);
        let size = DATA as usize - BASE as usize + data.len() + self.bytes.len();
        let code_at = DATA as usize + data.len();
        let mut file = vec![0x7f, b'E', b'L', b'F', 1 + u8::from(self.wide), 1, 1, 0];
        file.resize(16, 0);
        let machine: u16 = if self.wide { 62 } else { 3 };
        file.extend([2u16, machine].iter().flat_map(|n| n.to_le_bytes()));
        file.extend(1u32.to_le_bytes());
        let address = |file: &mut Vec<u8>, n: u64| {
            file.extend(&n.to_le_bytes()[..if self.wide { 8 } else { 4 }]);
        };
        for n in [code_at as u64, header, 0] {
            address(&mut file, n);
        }
        file.extend(0u32.to_le_bytes());
        file.extend([header as u16, entry, 1, 0, 0, 0].iter().flat_map(|n| n.to_le_bytes()));
        // One segment, readable, writable and executable.
        file.extend(1u32.to_le_bytes());
        if self.wide {
            file.extend(7u32.to_le_bytes());
        }
        for n in [0, u64::from(BASE), u64::from(BASE), size as u64, size as u64 + 4096] {
            address(&mut file, n);
        }
        if !self.wide {
            file.extend(7u32.to_le_bytes());
        }
        address(&mut file, 4096);
        file.resize((DATA - u64::from(BASE)) as usize, 0);
        file.extend(data);
        file.extend(&self.bytes);
        file
    }
}

/// Where a byte is read to, how long to sleep, and what `rt_sigaction` gets.
const DATA: u64 = BASE as u64 + 128;
const TIMESPEC: u64 = DATA + 8;
const SIGACTION: u64 = DATA + 24;
const HANDLER: u64 = DATA + 56;

/// A program that runs. Killed when it goes out of scope.
pub struct Running {
    child: Child,
    file: PathBuf,
}

impl Running {
    /// Starts a program; `None` if this kernel has no programs of its sort.
    pub fn start(code: &Code, sleep_nanos: u64) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file = std::env::temp_dir().join(format!("calls-{}-{number}", std::process::id()));
        fs::write(&file, code.elf(sleep_nanos)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        let child = loop {
            let started = Command::new(&file).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
            match started {
                // Another test's child still has the file open for writing.
                Err(e) if e.raw_os_error() == Some(libc::ETXTBSY) => std::thread::yield_now(),
                Err(e) if e.raw_os_error() == Some(libc::ENOEXEC) => {
                    fs::remove_file(&file).unwrap();
                    return None;
                }
                started => break started.unwrap(),
            }
        };
        Some(Self { child, file })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it is at a gate.
    pub fn wait_for_gate(&mut self) {
        self.child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    }

    /// Lets it through a gate.
    pub fn let_on(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(&[1]).unwrap();
    }

    /// Waits until it sleeps in a call.
    pub fn wait_until_asleep(&self) {
        self.wait_until("S");
    }

    pub fn wait_until(&self, state: &str) {
        loop {
            let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
            if stat.rsplit(") ").next().unwrap().starts_with(state) {
                return;
            }
            std::thread::yield_now();
        }
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits until it ends; it ends well.
    pub fn finish(mut self) {
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.file);
    }
}
