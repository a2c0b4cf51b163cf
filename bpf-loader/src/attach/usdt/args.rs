//! Where a probe's arguments are: `-4@%eax`, `8@$5`, `8@-8(%rbp)`, `1@(%rbp,%rax,8)`, `-4@[sp, 96]`, in the words of each
//! architecture's assembler.

use super::regs::Registers;

/// Most arguments of a probe, `BPF_USDT_MAX_ARG_CNT` of usdt.bpf.h.
pub const MAX_ARGS: usize = 12;

/// How a value is reached. Offsets of registers are in the BPF program's context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The value itself.
    Const(i64),
    /// A register.
    Reg(u16),
    /// Memory at a register and so many bytes.
    Deref {
        /// The register.
        reg: u16,
        /// Bytes.
        offset: i64,
    },
    /// Memory at a register, another one scaled, and so many bytes.
    Indexed {
        /// The first register.
        reg: u16,
        /// The register that is scaled.
        index: u16,
        /// By how many bits it is shifted.
        shift: u8,
        /// Bytes.
        offset: i64,
    },
    /// A register for floating-point numbers, which no BPF program can read: reading it is an error there.
    Unreadable,
}

/// An argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Arg {
    /// Where it is.
    pub place: Place,
    /// Its bytes: 1, 2, 4 or 8.
    pub size: u8,
    /// Whether its sign is extended.
    pub signed: bool,
}

/// Why arguments cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadArg {
    /// Byte where the argument begins.
    pub at: usize,
    /// What is wrong.
    pub reason: &'static str,
}

/// All arguments of a probe.
///
/// # Errors
///
/// What this does not know, and more than [`MAX_ARGS`].
pub fn parse(registers: Registers, text: &str) -> Result<Vec<Arg>, BadArg> {
    let mut args = Vec::new();
    let mut cursor = Cursor { text, at: 0 };
    loop {
        cursor.skip_blanks();
        let at = cursor.at;
        if cursor.rest().is_empty() {
            return Ok(args);
        }
        if args.len() == MAX_ARGS {
            return Err(BadArg { at, reason: "more than 12 arguments" });
        }
        args.push(cursor.arg(registers).map_err(|reason| BadArg { at, reason })?);
    }
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_blanks(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    /// Takes a character, after blanks, if it comes next.
    fn take(&mut self, wanted: char) -> bool {
        match self.rest().trim_start().strip_prefix(wanted) {
            Some(rest) => self.at = self.text.len() - rest.len(),
            None => return false,
        }
        true
    }

    fn expect(&mut self, wanted: char, reason: &'static str) -> Result<(), &'static str> {
        if self.take(wanted) { Ok(()) } else { Err(reason) }
    }

    /// A decimal number with or without a sign, if one comes next.
    fn number(&mut self) -> Option<i64> {
        self.skip_blanks();
        let rest = self.rest();
        let sign = usize::from(rest.starts_with(['-', '+']));
        let digits = rest.get(sign..)?.bytes().take_while(u8::is_ascii_digit).count();
        let number = rest.get(..sign + digits)?.parse().ok()?;
        self.at += sign + digits;
        Some(number)
    }

    /// A register, with or without `%`.
    fn register(&mut self, registers: Registers) -> Result<u16, &'static str> {
        self.take('%');
        let name = self.rest();
        let len = name.bytes().take_while(u8::is_ascii_alphanumeric).count();
        let offset =
            name.get(..len).and_then(|name| registers.register(name)).ok_or("an unknown register")?;
        self.at += len;
        Ok(offset)
    }

    fn arg(&mut self, registers: Registers) -> Result<Arg, &'static str> {
        let size = self.number().ok_or("no size")?;
        // Also written for what lies in memory, where it makes no difference.
        let float = self.take('f');
        self.expect('@', "no @ after the size")?;
        self.skip_blanks();
        let in_memory = self.rest().split_whitespace().next().unwrap_or_default().contains(['(', '[']);
        let place = match self.place(registers) {
            Err(_) if float && !in_memory => {
                self.at += self.rest().find(char::is_whitespace).unwrap_or(self.rest().len());
                Place::Unreadable
            }
            other => other?,
        };
        if !self.rest().is_empty() && !self.rest().starts_with(char::is_whitespace) {
            return Err("more than a place");
        }
        if !matches!(size.unsigned_abs(), 1 | 2 | 4 | 8) {
            return Err("a size other than 1, 2, 4 or 8");
        }
        Ok(Arg { place, size: size.unsigned_abs() as u8, signed: size < 0 })
    }

    fn place(&mut self, registers: Registers) -> Result<Place, &'static str> {
        if self.take('$') || self.take('#') {
            return Ok(Place::Const(self.number().ok_or("no number")?));
        }
        if self.take('[') {
            let reg = self.register(registers)?;
            let mut offset = 0;
            if self.take(',') {
                self.take('#');
                offset = self.number().ok_or("no offset")?;
            }
            self.expect(']', "no ]")?;
            return Ok(Place::Deref { reg, offset });
        }
        let number = self.number();
        if self.take('(') {
            return self.memory(registers, number.unwrap_or(0));
        }
        match number {
            // On x86, a number alone is an address.
            Some(_) if registers.is_x86() => Err("an absolute address"),
            Some(number) => Ok(Place::Const(number)),
            None => Ok(Place::Reg(self.register(registers)?)),
        }
    }

    /// What follows `OFFSET(`.
    fn memory(&mut self, registers: Registers, offset: i64) -> Result<Place, &'static str> {
        let reg = self.register(registers)?;
        if !self.take(',') {
            self.expect(')', "no )")?;
            return Ok(Place::Deref { reg, offset });
        }
        let index = self.register(registers)?;
        let scale = if self.take(',') { self.number().ok_or("no scale")? } else { 1 };
        self.expect(')', "no )")?;
        if !matches!(scale, 1 | 2 | 4 | 8) {
            return Err("a scale other than 1, 2, 4 or 8");
        }
        Ok(Place::Indexed { reg, index, shift: scale.trailing_zeros() as u8, offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;

    /// As the architecture's own kernel has it.
    fn parse(machine: Machine, text: &str) -> Result<Vec<Arg>, BadArg> {
        super::parse(Registers::new(machine, machine).unwrap(), text)
    }

    fn one(machine: Machine, text: &str) -> Arg {
        let args = parse(machine, text).unwrap_or_else(|e| panic!("{text}: {e:?}"));
        assert_eq!(args.len(), 1, "{text}");
        args[0]
    }

    fn arg(size: i8, place: Place) -> Arg {
        Arg { place, size: size.unsigned_abs(), signed: size < 0 }
    }

    #[test]
    fn x86_64() {
        let a = Machine::X86_64;
        let (ax, bp, sp, r8) = (80, 32, 152, 72);
        for (text, want) in [
            ("-4@%eax", arg(-4, Place::Reg(ax))),
            ("8@%rax", arg(8, Place::Reg(ax))),
            ("1@%al", arg(1, Place::Reg(ax))),
            ("2@%r8w", arg(2, Place::Reg(r8))),
            ("-4@$-9", arg(-4, Place::Const(-9))),
            ("8@$5", arg(8, Place::Const(5))),
            ("8@-8(%rbp)", arg(8, Place::Deref { reg: bp, offset: -8 })),
            ("8@(%rsp)", arg(8, Place::Deref { reg: sp, offset: 0 })),
            (" 4 @ 12 ( %rbp ) ", arg(4, Place::Deref { reg: bp, offset: 12 })),
            ("1@-96(%rbp,%rax,8)", arg(1, Place::Indexed { reg: bp, index: ax, shift: 3, offset: -96 })),
            ("1@(%rbp,%rax)", arg(1, Place::Indexed { reg: bp, index: ax, shift: 0, offset: 0 })),
            ("8f@%xmm0", arg(8, Place::Unreadable)),
            ("8f@-16(%rbp)", arg(8, Place::Deref { reg: bp, offset: -16 })),
        ] {
            assert_eq!(one(a, text), want, "{text}");
        }
    }

    #[test]
    fn other_architectures() {
        for (machine, text, want) in [
            (Machine::Aarch64, "-4@x0", arg(-4, Place::Reg(0))),
            (Machine::Aarch64, "8@x30", arg(8, Place::Reg(240))),
            (Machine::Aarch64, "4@5", arg(4, Place::Const(5))),
            (Machine::Aarch64, "-4@[sp, 96]", arg(-4, Place::Deref { reg: 248, offset: 96 })),
            (Machine::Aarch64, "-4@[x29]", arg(-4, Place::Deref { reg: 232, offset: 0 })),
            (Machine::Riscv64, "-8@a1", arg(-8, Place::Reg(88))),
            (Machine::Riscv64, "-8@-88(s0)", arg(-8, Place::Deref { reg: 64, offset: -88 })),
            (Machine::Riscv64, "4@-1", arg(4, Place::Const(-1))),
            (Machine::S390x, "-8@%r0", arg(-8, Place::Reg(24))),
            (Machine::S390x, "-2@-28(%r15)", arg(-2, Place::Deref { reg: 144, offset: -28 })),
            (Machine::Arm, "-4@[fp, #96]", arg(-4, Place::Deref { reg: 44, offset: 96 })),
            (Machine::Arm, "4@#5", arg(4, Place::Const(5))),
            (Machine::Arm, "4@r3", arg(4, Place::Reg(12))),
            (Machine::X86, "-4@%edx", arg(-4, Place::Reg(8))),
            (Machine::X86, "-4@8(%ebp)", arg(-4, Place::Deref { reg: 20, offset: 8 })),
        ] {
            assert_eq!(one(machine, text), want, "{machine:?} {text}");
        }
    }

    #[test]
    fn several_arguments_and_their_limit() {
        let args = parse(Machine::X86_64, "-4@$1 8@%rdi\t4@(%rsi)").unwrap();
        assert_eq!(args.len(), 3);
        let on_arm = parse(Machine::Aarch64, "-4@[sp, 12] 8@x1").unwrap();
        assert_eq!(on_arm.len(), 2);
        assert_eq!(parse(Machine::X86_64, "").unwrap(), []);
        assert_eq!(parse(Machine::X86_64, &"1@$1 ".repeat(12)).unwrap().len(), 12);
        let e = parse(Machine::X86_64, &"1@$1 ".repeat(13)).unwrap_err();
        assert_eq!((e.at, e.reason), (60, "more than 12 arguments"));
    }

    #[test]
    fn what_nobody_writes_is_refused() {
        for bad in [
            "4",
            "@%eax",
            "4@",
            "4@%",
            "4@%zzz",
            "3@%eax",
            "0@%eax",
            "4@$",
            "4@5",
            "4@(%rax",
            "4@(%rax,)",
            "4@(%rax,%rbx,3)",
            "4@(%rax,%rbx,)",
            "4@%eax,",
            "4@$99999999999999999999",
            "4@global(%rip",
            "4@x+4(%rip)",
            "-@%eax",
            "4f",
            "\u{e9}@%eax",
            "4@\u{e9}",
            "8f@(%xmm0)",
        ] {
            assert!(parse(Machine::X86_64, bad).is_err(), "{bad}");
        }
        for bad in ["4@[sp", "4@[sp,]", "4@[sp 4]", "4@x31", "4@x", "4@x1x", "4@w0"] {
            assert!(parse(Machine::Aarch64, bad).is_err(), "{bad}");
        }
    }
}
