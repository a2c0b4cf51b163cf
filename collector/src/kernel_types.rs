//! The kernel's types: its own, or where it carries none those of a file, and of which.

use bpf_loader::text::join;
use std::fs;
use std::path::{Path, PathBuf};

use bpf_loader::bytes::Endian;
use bpf_loader::object_file::read_btf;
use bpf_loader::target::RunningTarget;
use object::Endianness;

use crate::error::{Error, Result};
use crate::symbolize::Place;
use crate::symbolize::elf::{Elf, build_id_in_notes};
use crate::symbolize::read_at::FileReader;

/// Where files are looked for if the kernel carries no types and none are named: `BUILDID.btf` or `RELEASE.btf`.
pub const FOLDERS: [&str; 2] = ["/etc/ebpf-otlp/btf", "/usr/lib/ebpf-otlp/btf"];

/// A build id in a name has at least so many digits; less may be a date.
const LEAST_DIGITS: usize = 16;

/// Where types come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelTypes {
    /// `/sys/kernel/btf/vmlinux` (Linux 5.4, CONFIG_DEBUG_INFO_BTF).
    Own,
    /// A file.
    File(PathBuf),
    /// The kernel has none, and no file was found.
    Missing,
}

impl KernelTypes {
    /// Decides where the running kernel's types come from: a file that is named; in a folder that is named, the file of this
    /// kernel; if none is named and the kernel has no types of its own, a file of this kernel in [`FOLDERS`] or where
    /// distributions have kernels with types in them, as libbpf looks for them.
    ///
    /// # Errors
    ///
    /// `KernelTypes` if the file cannot be read, or is of another kernel as far as that can be told: by a build id or a release
    /// in its name, the build id in it, or its byte order.
    pub fn find(given: Option<&Path>) -> Result<Self> {
        Self::find_below(Path::new("/"), given)
    }

    fn find_below(root: &Path, given: Option<&Path>) -> Result<Self> {
        let kernel = Kernel::read(root);
        let has_own = root.join("sys/kernel/btf/vmlinux").exists();
        match given {
            Some(folder) if folder.is_dir() => match kernel.in_folder(folder) {
                Some(file) => kernel.take(file),
                None if has_own => Ok(Self::Own),
                None => {
                    let names: Vec<_> = kernel.names().collect();
                    Err(unfit(folder, format!("this kernel's is not there: {}", join(&names, " or "))))
                }
            },
            Some(file) => kernel.take(file.to_owned()),
            None if has_own => Ok(Self::Own),
            None => {
                let below = |path: &str| root.join(path.trim_start_matches('/'));
                let found = FOLDERS.iter().find_map(|folder| kernel.in_folder(&below(folder)));
                if let Some(file) = found {
                    return kernel.take(file);
                }
                let mut usual = kernel.usual_places().map(|place| below(&place)).into_iter();
                Ok(usual.find_map(|file| kernel.take(file).ok()).unwrap_or(Self::Missing))
            }
        }
    }

    /// The running kernel with these types. A file is read when its types are first asked for.
    pub fn target(&self) -> RunningTarget {
        match self {
            Self::File(path) => RunningTarget::new().with_btf_file(path),
            Self::Own | Self::Missing => RunningTarget::new(),
        }
    }
}

fn unfit(path: &Path, reason: impl ToString) -> Box<Error> {
    Box::new(Error::KernelTypes { path: path.to_owned(), reason: reason.to_string() })
}

/// What the running kernel is known by.
struct Kernel {
    release: String,
    build_id: Option<String>,
}

impl Kernel {
    fn read(root: &Path) -> Self {
        let release = fs::read_to_string(root.join("proc/sys/kernel/osrelease")).unwrap_or_default();
        let notes = fs::read(root.join("sys/kernel/notes")).unwrap_or_default();
        let build_id = build_id_in_notes(&notes, Endianness::default());
        Self { release: release.trim().to_owned(), build_id: build_id.as_deref().map(hexadecimal) }
    }

    /// Names of files with this kernel's types, the surest first.
    fn names(&self) -> impl Iterator<Item = String> {
        let known = self.build_id.iter().chain(Some(&self.release)).filter(|name| !name.is_empty());
        known.map(|name| format!("{name}.btf"))
    }

    fn in_folder(&self, folder: &Path) -> Option<PathBuf> {
        self.names().map(|name| folder.join(name)).find(|file| file.exists())
    }

    /// Where libbpf looks.
    fn usual_places(&self) -> [String; 7] {
        let release = &self.release;
        [
            format!("/boot/vmlinux-{release}"),
            format!("/lib/modules/{release}/vmlinux-{release}"),
            format!("/lib/modules/{release}/build/vmlinux"),
            format!("/usr/lib/modules/{release}/kernel/vmlinux"),
            format!("/usr/lib/debug/boot/vmlinux-{release}"),
            format!("/usr/lib/debug/boot/vmlinux-{release}.debug"),
            format!("/usr/lib/debug/lib/modules/{release}/vmlinux"),
        ]
    }

    fn take(&self, file: PathBuf) -> Result<KernelTypes> {
        if let Some(other) = self.other_in_name(&file).or_else(|| self.other_in_file(&file)) {
            return Err(unfit(&file, other));
        }
        let btf = read_btf(&file).map_err(|error| unfit(&file, error))?;
        if btf.endian() != Endian::HOST {
            return Err(unfit(&file, "it is of a machine of the other byte order"));
        }
        Ok(KernelTypes::File(file))
    }

    /// Says which other kernel the file is named after, if it is.
    fn other_in_name(&self, file: &Path) -> Option<String> {
        let name = file.file_name()?.to_str()?;
        let name = name.strip_suffix(".btf").unwrap_or(name);
        let name = name.strip_prefix("vmlinux-").unwrap_or(name);
        if name.len() >= LEAST_DIGITS && name.bytes().all(|b| b.is_ascii_hexdigit()) {
            return self.other_build_id(&name.to_ascii_lowercase());
        }
        // As 5.10.0-32-amd64: two numbers may be anything, a board's revision say.
        let mut parts = name.splitn(3, '.');
        let mut number = |end: &[char]| {
            let digits = parts.next().and_then(|part| part.split(end).next());
            digits.is_some_and(|digits| digits.parse::<u32>().is_ok())
        };
        let is_release = number(&[]) && number(&[]) && number(&['.', '-', '_', '+']);
        // More may follow, as in 5.10.0-32-amd64-minimal or vmlinux-5.10.0-32-amd64.debug.
        let rest = name.strip_prefix(&*self.release);
        let is_own = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-', '_']));
        let differs = is_release && !self.release.is_empty() && !is_own;
        differs.then(|| format!("it is named after Linux {name}, and this is {}", self.release))
    }

    fn other_in_file(&self, file: &Path) -> Option<String> {
        let (file, _) = FileReader::open(&Place::trusted(file.to_owned())).ok()?;
        self.other_build_id(&hexadecimal(&Elf::read(&file).ok()?.build_id(&file)?))
    }

    fn other_build_id(&self, found: &str) -> Option<String> {
        let own = self.build_id.as_deref().filter(|own| *own != found)?;
        Some(format!("it is of the kernel with build id {found}, and this one has {own}"))
    }
}

/// A build id as everyone writes it.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use bpf_loader::btf::encode::Builder;

    use super::*;
    use crate::symbolize::elf::tests::Maker;

    const RELEASE: &str = "5.10.0-32-amd64";
    const BUILD_ID: &str = "00112233445566778899aabbccddeeff00112233";

    fn own_id() -> Vec<u8> {
        let digits = (0..BUILD_ID.len()).step_by(2);
        digits.map(|at| u8::from_str_radix(&BUILD_ID[at..at + 2], 16).unwrap()).collect()
    }

    /// A root with the files of a kernel, removed at its end.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str) -> Self {
            let root = Self(std::env::temp_dir().join(format!("kernel-types-{name}-{}", std::process::id())));
            root.write("proc/sys/kernel/osrelease", format!("{RELEASE}\n").as_bytes());
            let header = [4u32, 20, 3].into_iter().flat_map(u32::to_ne_bytes);
            let notes: Vec<u8> = header.chain(*b"GNU\0").chain(own_id()).collect();
            root.write("sys/kernel/notes", &notes);
            root
        }

        fn write(&self, path: &str, bytes: &[u8]) -> PathBuf {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
            path
        }

        fn btf(&self, path: &str) -> PathBuf {
            self.write(path, &Builder::new(Endian::HOST).build())
        }

        fn find(&self, given: Option<&Path>) -> std::result::Result<KernelTypes, String> {
            KernelTypes::find_below(&self.0, given).map_err(|error| error.to_string())
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn what_is_nearest_to_this_kernel_is_taken() {
        let root = Root::new("order");
        assert_eq!(root.find(None), Ok(KernelTypes::Missing));
        root.write(&format!("boot/vmlinux-{RELEASE}"), b"no BTF");
        assert_eq!(root.find(None), Ok(KernelTypes::Missing));
        for path in [
            format!("usr/lib/debug/lib/modules/{RELEASE}/vmlinux"),
            format!("lib/modules/{RELEASE}/build/vmlinux"),
            format!("usr/lib/ebpf-otlp/btf/{RELEASE}.btf"),
            format!("usr/lib/ebpf-otlp/btf/{BUILD_ID}.btf"),
            format!("etc/ebpf-otlp/btf/{RELEASE}.btf"),
        ] {
            let file = root.btf(&path);
            assert_eq!(root.find(None), Ok(KernelTypes::File(file)));
        }
        root.btf("sys/kernel/btf/vmlinux");
        assert_eq!(root.find(None), Ok(KernelTypes::Own));
        let named = root.btf("named.btf");
        assert_eq!(root.find(Some(&named)), Ok(KernelTypes::File(named)));
    }

    #[test]
    fn kernels_in_the_usual_places_may_be_of_another_build() {
        let root = Root::new("builds");
        let maker = Maker { is_64: true, big: Endian::HOST == Endian::Big, machine: 62 };
        let vmlinux = |id: &[u8]| {
            let btf = Builder::new(Endian::HOST).build();
            maker.file(&[(".BTF", 1, 0, 0, 0, btf)], &maker.note(id))
        };
        let boot = root.write(&format!("boot/vmlinux-{RELEASE}"), &vmlinux(&[7; 20]));
        assert_eq!(root.find(None), Ok(KernelTypes::Missing), "rebuilt, and not booted yet");
        let debug = root.write(&format!("usr/lib/debug/boot/vmlinux-{RELEASE}.debug"), &vmlinux(&own_id()));
        assert_eq!(root.find(None), Ok(KernelTypes::File(debug)));
        fs::write(&boot, vmlinux(&own_id())).unwrap();
        assert_eq!(root.find(None), Ok(KernelTypes::File(boot)));
    }

    #[test]
    fn a_folder_has_files_of_many_kernels() {
        let root = Root::new("folder");
        root.btf("fleet/6.1.0-13-amd64.btf");
        let folder = root.0.join("fleet");
        let error = root.find(Some(&folder)).unwrap_err();
        assert!(error.contains(&format!("{BUILD_ID}.btf or {RELEASE}.btf")), "{error}");
        let file = root.btf(&format!("fleet/{RELEASE}.btf"));
        assert_eq!(root.find(Some(&folder)), Ok(KernelTypes::File(file.clone())));
        fs::remove_file(file).unwrap();
        root.btf("sys/kernel/btf/vmlinux");
        assert_eq!(root.find(Some(&folder)), Ok(KernelTypes::Own));
    }

    #[test]
    fn files_of_other_kernels_are_told_by_what_says_so() {
        let root = Root::new("others");
        for (name, reason) in [
            ("6.1.0-13-amd64.btf", "named after Linux 6.1.0-13-amd64, and this is 5.10.0-32-amd64"),
            ("vmlinux-5.10.0", "named after Linux 5.10.0,"),
            ("5.10.0-32-amd64x.btf", "named after Linux 5.10.0-32-amd64x,"),
            ("ffffffffffffffffffffffffffffffffffffffff.btf", "build id ffffffff"),
        ] {
            let error = root.find(Some(&root.btf(name))).unwrap_err();
            assert!(error.contains(reason) && error.contains(name), "{error}");
        }
        for name in [
            "board.btf",
            "vmlinux",
            "5.10.0-32-amd64.btf",
            "5.10.0-32-amd64-minimal.btf",
            "vmlinux-5.10.0-32-amd64.debug",
            "1.2-board.btf",
            "20241129.btf",
            &format!("{BUILD_ID}.btf"),
        ] {
            let file = root.btf(name);
            assert_eq!(root.find(Some(&file)), Ok(KernelTypes::File(file)), "{name}");
        }
        let this = std::env::current_exe().unwrap();
        let error = root.find(Some(&this)).unwrap_err();
        assert!(error.contains("build id") || error.contains(".BTF"), "{error}");
        let other = if Endian::HOST == Endian::Little { Endian::Big } else { Endian::Little };
        let turned = root.write("turned.btf", &Builder::new(other).build());
        assert!(root.find(Some(&turned)).unwrap_err().contains("byte order"));
        for (name, bytes) in [("empty.btf", &b""[..]), ("text.btf", b"no BTF at all")] {
            let file = root.write(name, bytes);
            assert!(root.find(Some(&file)).unwrap_err().contains(name));
        }
        assert!(root.find(Some(&root.0.join("absent.btf"))).is_err());
    }
}
