//! Relocatable BPF objects, written by hand.

/// `SHT_PROGBITS`.
const PROGBITS: u32 = 1;
const SYMTAB: u32 = 2;
const STRTAB: u32 = 3;
const REL: u32 = 9;
/// `SHF_WRITE | SHF_ALLOC`.
pub const DATA: u64 = 3;
/// `SHF_ALLOC | SHF_EXECINSTR`.
pub const CODE: u64 = 6;
/// `STT_OBJECT`.
pub const OBJECT: u8 = 1;
/// `STT_FUNC`.
pub const FUNCTION: u8 = 2;
/// `STB_GLOBAL`.
const GLOBAL: u8 = 1;

/// Bytes of the file header and of a section header.
const HEADER: usize = 64;

struct Section {
    name: u32,
    kind: u32,
    flags: u64,
    link: u32,
    info: u32,
    entry: u64,
    content: Vec<u8>,
}

/// An object file of the host's byte order in the making.
pub struct Object {
    /// In order; the null section first.
    sections: Vec<Section>,
    symbols: Vec<u8>,
    strings: Vec<u8>,
}

impl Default for Object {
    fn default() -> Self {
        let mut object = Self { sections: Vec::new(), symbols: vec![0; 24], strings: vec![0] };
        object.raw(0, 0, 0, Vec::new());
        object
    }
}

impl Object {
    /// The place of a string that sections and symbols can be named by.
    pub fn string(&mut self, text: &str) -> u32 {
        let at = self.strings.len() as u32;
        self.strings.extend(text.bytes().chain([0]));
        at
    }

    fn raw(&mut self, name: u32, kind: u32, flags: u64, content: Vec<u8>) -> u16 {
        self.sections.push(Section { name, kind, flags, link: 0, info: 0, entry: 0, content });
        self.sections.len() as u16 - 1
    }

    /// A section; its index.
    pub fn section(&mut self, name: &str, flags: u64, content: Vec<u8>) -> u16 {
        let name = self.string(name);
        self.raw(name, PROGBITS, flags, content)
    }

    /// A global symbol by the place of its name; its index.
    pub fn symbol(&mut self, name: u32, kind: u8, section: u16, value: u64, size: u64) -> u32 {
        let index = self.symbols.len() / 24;
        self.symbols.extend(name.to_ne_bytes());
        self.symbols.extend([GLOBAL << 4 | kind, 0]);
        self.symbols.extend(section.to_ne_bytes());
        self.symbols.extend([value, size].map(u64::to_ne_bytes).concat());
        index as u32
    }

    /// Relocations of a section: offset, symbol and type.
    pub fn relocations(&mut self, section: u16, relocations: impl IntoIterator<Item = (u64, u32, u32)>) {
        let entries = relocations
            .into_iter()
            .flat_map(|(at, symbol, kind)| [at, u64::from(symbol) << 32 | u64::from(kind)]);
        let content = entries.flat_map(u64::to_ne_bytes).collect();
        let index = self.raw(0, REL, 0, content);
        self.sections[usize::from(index)].info = section.into();
        self.sections[usize::from(index)].entry = 16;
    }

    /// The file.
    pub fn build(mut self) -> Vec<u8> {
        let symbols = std::mem::take(&mut self.symbols);
        let table = self.raw(0, SYMTAB, 0, symbols);
        let strings = std::mem::take(&mut self.strings);
        let names = self.raw(0, STRTAB, 0, strings);
        for section in &mut self.sections {
            match section.kind {
                SYMTAB => (section.link, section.info, section.entry) = (names.into(), 1, 24),
                REL => section.link = table.into(),
                _ => {}
            }
        }
        let mut contents = Vec::new();
        let mut headers = Vec::new();
        for section in &self.sections {
            contents.resize(contents.len().next_multiple_of(8), 0);
            headers.extend([section.name, section.kind].map(u32::to_ne_bytes).concat());
            let at = (HEADER + contents.len()) as u64;
            headers
                .extend([section.flags, 0, at, section.content.len() as u64].map(u64::to_ne_bytes).concat());
            headers.extend([section.link, section.info].map(u32::to_ne_bytes).concat());
            headers.extend([8, section.entry].map(u64::to_ne_bytes).concat());
            contents.extend_from_slice(&section.content);
        }
        contents.resize(contents.len().next_multiple_of(8), 0);

        let order = if cfg!(target_endian = "big") { 2 } else { 1 };
        let mut file = vec![0x7f, b'E', b'L', b'F', 2, order, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        // A relocatable file for BPF.
        file.extend([1u16, 247].map(u16::to_ne_bytes).concat());
        file.extend(1u32.to_ne_bytes());
        file.extend([0, 0, (HEADER + contents.len()) as u64].map(u64::to_ne_bytes).concat());
        file.extend(0u32.to_ne_bytes());
        let count = self.sections.len() as u16;
        file.extend([HEADER as u16, 0, 0, 64, count, names].map(u16::to_ne_bytes).concat());
        file.extend(contents);
        file.extend(headers);
        file
    }
}
