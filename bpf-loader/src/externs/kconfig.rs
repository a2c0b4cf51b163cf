//! Values of `.kconfig`: options of the kernel's configuration, written as the program's variables hold them.
//!
//! The rules are libbpf's (`bpf_object__process_kconfig_line` and what it calls).

use super::ExternFault;
use crate::btf::{Btf, BtfId, Kind};
use crate::bytes::Endian;
use crate::error::Result;
use crate::error::excerpt;
use crate::text;

/// How a variable holds an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueType {
    /// `bool`: y or n.
    Bool,
    /// `enum libbpf_tristate`: y, m or n.
    Tristate,
    /// `char`: the letter y, m or n, or a number.
    Char {
        /// Of type `signed char`, or `char` where that is signed.
        signed: bool,
    },
    /// An integer of 2, 4 or 8 bytes.
    Int {
        /// Two's complement.
        signed: bool,
    },
    /// `char[]`: a string, cut to fit and ended by a zero byte.
    Chars,
}

/// A variable of `.kconfig`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// What it holds.
    pub value_type: ValueType,
    /// Its size in bytes.
    pub size: u32,
    /// Its place in the map's value, in bytes.
    pub offset: u32,
}

impl Variable {
    /// The variable that a type makes, `None` if it is of no type that an option can have. Its offset is yet to be given.
    pub(super) fn of(btf: &Btf<'_>, type_id: BtfId) -> Result<Option<Self>> {
        let ty = btf.skip_mods_and_typedefs(type_id)?;
        let of = |value_type, size| Some(Self { value_type, size, offset: 0 });
        let size = ty.size().unwrap_or_default();
        Ok(match ty.kind() {
            Kind::Int => {
                let Some(int) = ty.int() else { return Ok(None) };
                match size {
                    1 if int.bool => of(ValueType::Bool, 1),
                    _ if int.bool => None,
                    1 => of(ValueType::Char { signed: int.signed }, 1),
                    2 | 4 | 8 => of(ValueType::Int { signed: int.signed }, size),
                    _ => None,
                }
            }
            Kind::Enum | Kind::Enum64 if ty.name_bytes()? == b"libbpf_tristate" && matches!(size, 4 | 8) => {
                of(ValueType::Tristate, size)
            }
            Kind::Array => {
                let Some(array) = ty.array().filter(|array| array.len > 0) else { return Ok(None) };
                let element = btf.skip_mods_and_typedefs(array.element)?;
                let is_char = element.size() == Some(1) && element.int().is_some_and(|int| !int.bool);
                if is_char { of(ValueType::Chars, array.len) } else { None }
            }
            _ => None,
        })
    }

    /// Alignment in bytes.
    pub(super) fn align(&self) -> u32 {
        if self.value_type == ValueType::Chars { 1 } else { self.size }
    }

    /// What the variable holds where the configuration has this text after the equals sign.
    ///
    /// # Errors
    ///
    /// `Value`: a text of another type, or a number out of range.
    pub fn parse(&self, text: &[u8], endian: Endian) -> Result<Vec<u8>, ExternFault> {
        let bad = |problem| ExternFault::Value { value: excerpt(&String::from_utf8_lossy(text)), problem };
        match text.first() {
            Some(&letter @ (b'y' | b'n' | b'm')) => match self.value_type {
                ValueType::Bool if letter == b'm' => Err(bad("a module is neither true nor false")),
                ValueType::Bool => Ok(vec![u8::from(letter == b'y')]),
                ValueType::Tristate => {
                    let number = [b'n', b'y', b'm'].iter().position(|&l| l == letter).unwrap_or_default();
                    Ok(self.bytes(number as u64, endian))
                }
                ValueType::Char { .. } => Ok(vec![letter]),
                ValueType::Int { .. } | ValueType::Chars => {
                    Err(bad("the variable is no bool, char or enum libbpf_tristate"))
                }
            },
            Some(b'"') => match (self.value_type, text) {
                (ValueType::Chars, [b'"', inner @ .., b'"']) => {
                    let mut value = inner.to_vec();
                    value.truncate(self.size.saturating_sub(1) as usize);
                    value.push(0);
                    Ok(value)
                }
                (ValueType::Chars, _) => Err(bad("the string does not end")),
                _ => Err(bad("the variable is no array of char")),
            },
            _ => {
                let number = parse_number(text).ok_or_else(|| bad("it is no number of 64 bits"))?;
                match self.value_type {
                    ValueType::Int { .. } | ValueType::Char { .. } => self.number(number, endian),
                    _ => Err(bad("the variable is no integer")),
                }
            }
        }
    }

    /// What the variable holds where it stands for a number.
    ///
    /// # Errors
    ///
    /// `Value`: it is out of range, or the variable does not hold numbers.
    pub fn number(&self, number: u64, endian: Endian) -> Result<Vec<u8>, ExternFault> {
        let bad = |problem| ExternFault::Value { value: number.to_string(), problem };
        let bits = (self.size * 8).min(64);
        let fits = match self.value_type {
            ValueType::Bool => number <= 1,
            ValueType::Int { .. } | ValueType::Char { .. } if bits == 64 => true,
            ValueType::Int { signed: true } | ValueType::Char { signed: true } => {
                number.wrapping_add(1 << (bits - 1)) < 1 << bits
            }
            ValueType::Int { .. } | ValueType::Char { .. } => number >> bits == 0,
            ValueType::Tristate | ValueType::Chars => return Err(bad("the variable is no integer")),
        };
        if fits { Ok(self.bytes(number, endian)) } else { Err(bad("it does not fit the variable")) }
    }

    fn bytes(&self, number: u64, endian: Endian) -> Vec<u8> {
        let size = (self.size as usize).min(8);
        match endian {
            Endian::Little => number.to_le_bytes().iter().take(size).copied().collect(),
            Endian::Big => number.to_be_bytes().iter().skip(8 - size).copied().collect(),
        }
    }
}

/// The options that a configuration (`/boot/config-*`, `/proc/config.gz` unpacked) sets, in its order: name and the text
/// after the equals sign. Comments and what makes no sense are passed over.
pub fn parse(config: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    config.split(|&b| b == b'\n').filter_map(|line| {
        let at = line.iter().position(|&b| b == b'=')?;
        let (name, value) = (line.get(..at)?, line.get(at + 1..)?);
        (name.starts_with(b"CONFIG_") && !value.is_empty()).then_some((name, value))
    })
}

/// A number as C's `strtoull` takes it: decimal, `0x` hexadecimal, `0` octal; a minus sign is taken modulo 2^64.
fn parse_number(text: &[u8]) -> Option<u64> {
    let text = core::str::from_utf8(text).ok()?.trim_start();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let hex = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let (digits, radix) = match (hex, digits.strip_prefix('0')) {
        (Some(rest), _) => (rest, 16),
        (None, Some(rest)) if !rest.is_empty() => (rest, 8),
        _ => (digits, 10),
    };
    // `from_str_radix` would take another sign.
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return None;
    }
    let number = u64::from_str_radix(digits, radix).ok()?;
    Some(if negative { number.wrapping_neg() } else { number })
}

/// The kernel's version as `LINUX_VERSION_CODE` has it, from what the kernel says of itself: `/proc/version_signature`
/// (Ubuntu only), `/proc/sys/kernel/version` and `/proc/sys/kernel/osrelease`.
///
/// Ubuntu and Debian leave the last part of the version out of the release.
pub fn kernel_version(signature: Option<&str>, version: &str, release: &str) -> Option<u32> {
    let ubuntu = signature.and_then(|s| s.split_whitespace().nth(2)).and_then(three_numbers);
    let debian = text::split_once(version, "Debian ").and_then(|(_, rest)| three_numbers(rest));
    ubuntu.or(debian).or_else(|| three_numbers(release))
}

/// `6.12.43-1`: patch levels beyond 255 count as 255.
fn three_numbers(text: &str) -> Option<u32> {
    let mut rest = text;
    let mut numbers = [0u32; 3];
    for (i, number) in numbers.iter_mut().enumerate() {
        if i > 0 {
            rest = rest.strip_prefix('.')?;
        }
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        *number = rest.get(..end)?.parse().ok()?;
        rest = rest.get(end..)?;
    }
    let [major, minor, patch] = numbers;
    Some((major & 0xffff) << 16 | (minor & 0xff) << 8 | patch.min(255))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(value_type: ValueType, size: u32) -> Variable {
        Variable { value_type, size, offset: 0 }
    }

    fn parsed(value_type: ValueType, size: u32, text: &str) -> Option<Vec<u8>> {
        variable(value_type, size).parse(text.as_bytes(), Endian::Little).ok()
    }

    #[test]
    fn letters_are_for_bool_char_and_tristate() {
        let values = |ty, size| ["y", "n", "m"].map(|text| parsed(ty, size, text));
        assert_eq!(values(ValueType::Bool, 1), [Some(vec![1]), Some(vec![0]), None]);
        let tristate = values(ValueType::Tristate, 4);
        assert_eq!(tristate, [1, 0, 2].map(|n: u32| Some(n.to_le_bytes().to_vec())));
        let char = values(ValueType::Char { signed: true }, 1);
        assert_eq!(char, [b'y', b'n', b'm'].map(|c| Some(vec![c])));
        assert_eq!(values(ValueType::Int { signed: true }, 4), [None, None, None]);
        assert_eq!(values(ValueType::Chars, 4), [None, None, None]);
    }

    #[test]
    fn numbers_must_fit() {
        let unsigned = |size, text| parsed(ValueType::Int { signed: false }, size, text);
        let signed = |size, text| parsed(ValueType::Int { signed: true }, size, text);
        assert_eq!(unsigned(2, "65535"), Some(vec![0xff, 0xff]));
        assert_eq!(unsigned(2, "65536"), None);
        assert_eq!(unsigned(2, "-1"), None);
        assert_eq!(signed(2, "-32768"), Some(vec![0, 0x80]));
        assert_eq!(signed(2, "-32769"), None);
        assert_eq!(signed(2, "32768"), None);
        assert_eq!(signed(4, "0x7fffffff"), Some(vec![0xff, 0xff, 0xff, 0x7f]));
        assert_eq!(unsigned(8, "0xffffffffffffffff"), Some(vec![0xff; 8]));
        assert_eq!(signed(8, "-1"), Some(vec![0xff; 8]));
        assert_eq!(unsigned(8, "0x10000000000000000"), None);
        assert_eq!(unsigned(4, "010"), Some(vec![8, 0, 0, 0]));
        assert_eq!(unsigned(4, "12abc"), None);
        assert_eq!(unsigned(4, "0x"), None);
        assert_eq!(unsigned(4, "--1"), None);
        assert_eq!(parsed(ValueType::Bool, 1, "1"), None);
        let big = variable(ValueType::Int { signed: false }, 2).number(0x1234, Endian::Big);
        assert_eq!(big, Ok(vec![0x12, 0x34]));
    }

    #[test]
    fn strings_lose_their_quotes_and_what_does_not_fit() {
        let chars = |size, text| parsed(ValueType::Chars, size, text);
        assert_eq!(chars(8, "\"abc\""), Some(b"abc\0".to_vec()));
        assert_eq!(chars(3, "\"abc\""), Some(b"ab\0".to_vec()));
        assert_eq!(chars(1, "\"abc\""), Some(vec![0]));
        assert_eq!(chars(8, "\"\""), Some(vec![0]));
        assert_eq!(chars(8, "\""), None);
        assert_eq!(chars(8, "\"abc"), None);
        // As libbpf, which does not interpret escapes.
        assert_eq!(chars(8, r#""a\"b""#), Some(b"a\\\"b\0".to_vec()));
        assert_eq!(parsed(ValueType::Int { signed: false }, 4, "\"1\""), None);
    }

    #[test]
    fn only_lines_that_set_an_option_count() {
        let text =
            b"# CONFIG_A is not set\nCONFIG_B=y\n\nCONFIG_C\nCONFIG_D=\nOTHER=1\n\xff\nCONFIG_E=\"a=b\"";
        let found: Vec<_> = parse(text).collect();
        assert_eq!(found, [(&b"CONFIG_B"[..], &b"y"[..]), (b"CONFIG_E", b"\"a=b\"")]);
    }

    #[test]
    fn distributions_hide_the_version_in_different_places() {
        let code = |a: u32, b: u32, c: u32| Some(a << 16 | b << 8 | c);
        let signature = Some("Ubuntu 5.4.0-12.15-generic 5.4.8");
        assert_eq!(kernel_version(signature, "#15-Ubuntu SMP", "5.4.0-12-generic"), code(5, 4, 8));
        let debian = "#1 SMP Debian 4.19.260-1 (2022-09-29)";
        assert_eq!(kernel_version(None, debian, "4.19.0-22-amd64"), code(4, 19, 255));
        assert_eq!(kernel_version(None, "#1 SMP Debian 7.2~rc1", "7.2.0-rc1"), code(7, 2, 0));
        assert_eq!(kernel_version(None, "#1 SMP", "6.18.44-x"), code(6, 18, 44));
        assert_eq!(kernel_version(Some("Ubuntu"), "", "six"), None);
    }
}
