//! What a user may ask for when a plan is loaded.

use std::path::{Path, PathBuf};

use crate::map::Map;
use crate::map_def::MapSpec;

/// What to do when loading.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions<'o> {
    /// Where maps are pinned that are declared with `pinning = LIBBPF_PIN_BY_NAME`.
    pub pinning: Pinning<'o>,
    /// Existing maps that take the places of maps of the object, by name. They keep what they hold, but for the entries of a
    /// program array that the object initialises with its own programs. Type and sizes of keys and values must be the same.
    pub reuse: Vec<(&'o str, &'o Map)>,
}

/// What becomes of maps that are declared with `pinning = LIBBPF_PIN_BY_NAME`.
#[derive(Debug, Clone, Copy, Default)]
pub enum Pinning<'o> {
    /// They are pinned by their names in `/sys/fs/bpf`, as libbpf does; a pin that is there already is reused, if the map
    /// is as declared.
    #[default]
    Standard,
    /// The same in another directory of a BPF file system, which is made if it isn't there.
    Directory(&'o Path),
    /// They are not pinned, and no pin is looked for.
    Ignored,
}

impl LoadOptions<'_> {
    /// Where a map is pinned, if it is.
    pub(super) fn pin_path(&self, map: &MapSpec<'_>) -> Option<PathBuf> {
        let directory = match self.pinning {
            Pinning::Standard => Path::new("/sys/fs/bpf"),
            Pinning::Directory(directory) => directory,
            Pinning::Ignored => return None,
        };
        map.pin_by_name.then(|| directory.join(&*map.name))
    }

    /// The map that takes the place of one.
    pub(super) fn reused(&self, name: &str) -> Option<&Map> {
        self.reuse.iter().find(|(reused, _)| *reused == name).map(|(_, map)| *map)
    }
}
