//! Names of block devices.

use crate::sorted::SortedMap;
use std::fs;

/// Names by number, read once: a device that is gone keeps its name.
#[derive(Debug, Default)]
pub(super) struct DeviceNames(SortedMap<(u32, u32), String>);

/// As many are kept; then they are read anew.
const MAX_NAMES: usize = 1024;

impl DeviceNames {
    /// The name of a device, as in `/sys/block`: `sda`, `nvme0n1`; its numbers where it has none.
    pub fn get(&mut self, (major, minor): (u32, u32)) -> &str {
        if self.0.len() >= MAX_NAMES && !self.0.contains_key(&(major, minor)) {
            self.0.clear();
        }
        self.0.entry((major, minor)).or_insert_with(|| {
            // A link to the device's directory.
            let target = fs::read_link(format!("/sys/dev/block/{major}:{minor}"));
            let name = target.ok().and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
            name.unwrap_or_else(|| format!("{major}:{minor}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_sys_and_few_are_kept() {
        let mut names = DeviceNames::default();
        for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
            let Ok(numbers) = fs::read_to_string(entry.path().join("dev")) else { continue };
            let Some((major, minor)) = numbers.trim().split_once(':') else { continue };
            let numbers = (major.parse().unwrap(), minor.parse().unwrap());
            assert_eq!(names.get(numbers), entry.file_name().to_str().unwrap());
        }
        assert_eq!(names.get((4000, 7)), "4000:7");
        (0..3000).for_each(|minor| assert_eq!(names.get((4000, minor)), format!("4000:{minor}")));
        assert!(names.0.len() <= MAX_NAMES);
    }
}
