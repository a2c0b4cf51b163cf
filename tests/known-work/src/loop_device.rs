//! A block device of a test's own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A loop device over a file. Both go when it is dropped.
pub struct LoopDevice {
    file: PathBuf,
    device: PathBuf,
}

impl LoopDevice {
    /// One of that many bytes over a new file; `None` where the kernel has no loop devices, or this user not the right.
    pub fn new(file: PathBuf, size: u64) -> Option<Self> {
        File::create(&file).and_then(|file| file.set_len(size)).ok()?;
        // Of two tests that look for a free one at once, one may have to look again.
        for _ in 0..10 {
            let free = Command::new("losetup").arg("-f").output().ok();
            let device = free.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned());
            let Some(device) = device.filter(|device| device.starts_with("/dev/loop")) else { break };
            let made = Command::new("losetup").arg(&device).arg(&file).output();
            if made.is_ok_and(|out| out.status.success()) {
                return Some(Self { file, device: device.into() });
            }
        }
        let _ = fs::remove_file(&file);
        None
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.device
    }

    /// What the kernel calls it.
    pub fn name(&self) -> String {
        self.device.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.device).status();
        let _ = fs::remove_file(&self.file);
    }
}
