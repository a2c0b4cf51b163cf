//! What the running kernel tells of itself in files: its configuration, its symbols and its version.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::Path;

use crate::error::{Error, Result};
use crate::externs::kconfig;

/// A configuration has 300 KB.
const MAX_CONFIG: u64 = 16 << 20;

/// `/boot/config-RELEASE`, which distributions install, or else `/proc/config.gz` (CONFIG_IKCONFIG_PROC).
pub(super) fn config() -> Result<Option<Vec<u8>>> {
    let release = release().unwrap_or_default();
    let places = [format!("/boot/config-{release}"), "/proc/config.gz".to_owned()];
    for place in places {
        match read_config(Path::new(&place)) {
            Ok(text) => return Ok(Some(text)),
            // A reader without access to /boot may still read the other.
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {}
            Err(e) => {
                return Err(Box::new(Error::ReadTarget {
                    what: "the kernel's configuration",
                    reason: format!("{place}: {e}"),
                }));
            }
        }
    }
    Ok(None)
}

/// Reads a configuration, compressed or not.
fn read_config(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = BufReader::new(File::open(path)?);
    let mut text = Vec::new();
    if file.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
        gunzip(file, &mut text)?;
    } else {
        file.take(MAX_CONFIG).read_to_end(&mut text)?;
    }
    Ok(text)
}

#[cfg(feature = "gzip")]
fn gunzip(file: impl BufRead, text: &mut Vec<u8>) -> io::Result<()> {
    flate2::bufread::GzDecoder::new(file).take(MAX_CONFIG).read_to_end(text).map(drop)
}

#[cfg(not(feature = "gzip"))]
fn gunzip(_: impl BufRead, _: &mut Vec<u8>) -> io::Result<()> {
    Err(io::Error::new(ErrorKind::Unsupported, "it is compressed, and this build lacks the feature gzip"))
}

/// `/proc/kallsyms`. Addresses are zero for those who may not see them (kernel.kptr_restrict).
pub(super) fn kallsyms() -> Result<Option<Box<dyn BufRead>>> {
    match File::open("/proc/kallsyms") {
        // It has 10 MB or more.
        Ok(file) => Ok(Some(Box::new(BufReader::with_capacity(64 << 10, file)))),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Box::new(Error::ReadTarget { what: "/proc/kallsyms", reason: e.to_string() })),
    }
}

fn release() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/osrelease").map(|text| text.trim_end().to_owned())
}

/// The version as `LINUX_VERSION_CODE` has it.
pub(super) fn kernel_version() -> Option<u32> {
    let signature = fs::read_to_string("/proc/version_signature").ok();
    let version = fs::read_to_string("/proc/sys/kernel/version").unwrap_or_default();
    kconfig::kernel_version(signature.as_deref(), &version, &release().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "gzip")]
    #[test]
    fn a_configuration_may_be_compressed() {
        use std::io::Write as _;

        let path = std::env::temp_dir().join(format!("config-{}", std::process::id()));
        let text = b"CONFIG_HZ=100\n";
        fs::write(&path, text).unwrap();
        assert_eq!(read_config(&path).unwrap(), text);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(text).unwrap();
        let gz = gz.finish().unwrap();
        fs::write(&path, &gz).unwrap();
        assert_eq!(read_config(&path).unwrap(), text);
        fs::write(&path, &gz[..gz.len() / 2]).unwrap();
        assert!(read_config(&path).is_err());
        fs::remove_file(&path).unwrap();
        assert_eq!(read_config(&path).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn the_running_kernel_has_a_version() {
        // No test of ours runs on a kernel before 5.
        assert!(kernel_version().unwrap() >= 5 << 16);
    }
}
