//! Files by the code that processes run of them: for whoever reads more of them than names.

use super::files::FileNo;
use super::host_symbolizer::HostSymbolizer;
use super::read_at::ReadAt;

/// What a process has at an address.
pub(crate) enum Code<'s> {
    /// Code of a file.
    InFile {
        /// Which: one number for all files with the same build id and size.
        file: FileNo,
        /// The address in the file's own address space.
        address: u64,
        /// Its bytes.
        source: &'s dyn ReadAt,
    },
    /// Code of no file, or of one that cannot be read.
    Elsewhere,
    /// Nothing that can be executed.
    NotMapped,
}

impl HostSymbolizer {
    /// What the latest program of a process has at an address.
    pub(crate) fn code(&mut self, pid: u32, address: u64) -> Code<'_> {
        let Some((owner, mapping)) = self.find_or_read_mapping(pid, u64::MAX, address) else {
            return Code::NotMapped;
        };
        let distance = address - mapping.start;
        let (file, offset) = if &*mapping.file.path == "[vdso]" {
            (self.vdso_of(&mapping), distance)
        } else if mapping.file.is_file() {
            (self.file_of(owner, &mapping).ok(), mapping.offset.wrapping_add(distance))
        } else {
            return Code::Elsewhere;
        };
        let found = file.and_then(|file| Some((file, self.files.address_of(file, offset)?)));
        match found.and_then(|(file, address)| Some((file, address, self.files.source(file)?))) {
            Some((file, address, source)) => Code::InFile { file, address, source },
            None => Code::Elsewhere,
        }
    }
}
