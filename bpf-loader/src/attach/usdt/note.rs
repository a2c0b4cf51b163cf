//! `.note.stapsdt`: the list of a file's probes
//! (<https://sourceware.org/systemtap/wiki/UserSpaceProbeImplementation>).

use crate::bytes::Bytes;

/// A probe, with addresses as the linker left them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note<'a> {
    /// Of the `nop` that stands for the probe.
    pub location: u64,
    /// Of the section `.stapsdt.base`, to see whether the file was relocated since.
    pub base: u64,
    /// Of a counter of those who watch, or 0.
    pub semaphore: u64,
    /// Who provides the probe.
    pub provider: &'a [u8],
    /// Its name.
    pub name: &'a [u8],
    /// Where its arguments are, as `-4@%eax 8@$5`; in the form that each architecture's assembler has.
    pub arguments: &'a [u8],
}

/// The notes of a section. Ends after the first error.
#[derive(Debug, Clone)]
pub struct Notes<'a> {
    rest: Bytes<'a>,
    address_size: usize,
}

impl<'a> Notes<'a> {
    /// `section` is what is in the section, of a file whose addresses have 4 or 8 bytes.
    pub fn new(section: Bytes<'a>, address_size: usize) -> Self {
        Self { rest: section, address_size }
    }

    fn parse(&mut self) -> Option<Result<Note<'a>, &'static str>> {
        let all = self.rest;
        let (name_size, size, kind) = (all.u32(0)? as usize, all.u32(4)? as usize, all.u32(8)?);
        let fields = || {
            let name = all.slice(12, name_size)?;
            let at = 12usize.checked_add(name_size)?.checked_next_multiple_of(4)?;
            let descriptor = all.slice(at, size)?;
            // The last one may be without padding.
            let end = at.checked_add(size)?.checked_next_multiple_of(4)?.min(all.data.len());
            Some((name.data, descriptor, all.tail(end)?))
        };
        let Some((name, descriptor, rest)) = fields() else {
            self.rest.data = &[];
            return Some(Err("a note that ends after its section"));
        };
        self.rest = rest;
        let note = if kind == 3 && name == b"stapsdt\0" { self.describe(descriptor) } else { None };
        if note.is_none() {
            self.rest.data = &[];
        }
        Some(note.ok_or("a note that describes no probe"))
    }

    fn describe(&self, descriptor: Bytes<'a>) -> Option<Note<'a>> {
        let address = |number: usize| match self.address_size {
            8 => descriptor.u64(number * 8),
            _ => descriptor.u32(number * 4).map(u64::from),
        };
        let provider_at = 3 * self.address_size;
        let provider = descriptor.cstr(provider_at)?;
        let name_at = provider_at + provider.len() + 1;
        let name = descriptor.cstr(name_at)?;
        let arguments = descriptor.cstr(name_at + name.len() + 1)?;
        if name.is_empty() {
            return None;
        }
        Some(Note {
            location: address(0)?,
            base: address(1)?,
            semaphore: address(2)?,
            provider,
            name,
            // Written by old assemblers for "none".
            arguments: if arguments.first() == Some(&b':') { &[] } else { arguments },
        })
    }
}

impl<'a> Iterator for Notes<'a> {
    type Item = Result<Note<'a>, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.data.is_empty() {
            return None;
        }
        let found = self.parse();
        if found.is_none() {
            self.rest.data = &[];
            return Some(Err("a note that ends after its section"));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::Endian;

    fn note(kind: u32, owner: &[u8], descriptor: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [owner.len() as u32, descriptor.len() as u32, kind] {
            bytes.extend(word.to_le_bytes());
        }
        for part in [owner, descriptor] {
            bytes.extend(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    fn probe(addresses: [u64; 3], texts: &[u8]) -> Vec<u8> {
        let mut descriptor: Vec<u8> = addresses.iter().flat_map(|a| a.to_le_bytes()).collect();
        descriptor.extend(texts);
        note(3, b"stapsdt\0", &descriptor)
    }

    fn parse(bytes: &[u8]) -> Vec<Result<Note<'_>, &'static str>> {
        Notes::new(Bytes::new(bytes, Endian::Little), 8).collect()
    }

    #[test]
    fn probes_are_read_one_after_the_other() {
        let mut bytes = probe([0x1000, 0x2000, 0], b"lib\0start\0-4@%eax\0");
        bytes.extend(probe([0x1010, 0x2000, 0x3000], b"lib\0end\0:\0"));
        let notes = parse(&bytes);
        assert_eq!(
            notes[0],
            Ok(Note {
                location: 0x1000,
                base: 0x2000,
                semaphore: 0,
                provider: b"lib",
                name: b"start",
                arguments: b"-4@%eax"
            })
        );
        let end = notes[1].unwrap();
        assert_eq!((end.name, end.arguments, end.semaphore), (&b"end"[..], &b""[..], 0x3000));
        assert_eq!(notes.len(), 2);
    }

    #[test]
    fn addresses_may_have_four_bytes() {
        let mut descriptor: Vec<u8> = [1u32, 2, 3].iter().flat_map(|a| a.to_be_bytes()).collect();
        descriptor.extend(b"p\0n\0\0");
        let mut bytes = Vec::new();
        for word in [8, descriptor.len() as u32, 3] {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend(b"stapsdt\0");
        bytes.extend(descriptor);
        let note = Notes::new(Bytes::new(&bytes, Endian::Big), 4).next().unwrap().unwrap();
        assert_eq!((note.location, note.base, note.semaphore, note.arguments), (1, 2, 3, &b""[..]));
    }

    #[test]
    fn what_is_no_probe_ends_the_list() {
        for bad in [
            note(4, b"stapsdt\0", &[0; 27]),
            note(3, b"GNU\0", &[0; 27]),
            probe([0; 3], b"lib\0\0\0"),
            probe([0; 3], b"lib\0name\0unterminated"),
            probe([0; 3], b""),
            note(3, b"stapsdt\0", &[0; 8]),
        ] {
            let mut bytes = bad;
            bytes.extend(probe([0; 3], b"lib\0start\0\0"));
            let notes = parse(&bytes);
            assert!(notes.len() == 1 && notes[0].is_err(), "{notes:?}");
        }
    }

    #[test]
    fn every_cut_is_an_error() {
        let bytes = probe([1, 2, 3], b"lib\0start\0-4@%eax\0");
        // The last two bytes are padding.
        for len in 1..bytes.len() - 2 {
            let notes = parse(&bytes[..len]);
            assert!(notes.iter().all(Result::is_err) && notes.len() == 1, "{len}: {notes:?}");
        }
        let mut huge = bytes;
        huge[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(parse(&huge)[0].is_err());
    }
}
