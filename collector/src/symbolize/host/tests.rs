use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;

use super::*;

/// A root directory with files in it, and one beside it.
struct Tree(PathBuf);

impl Tree {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("host-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("root/lib")).unwrap();
        fs::write(path.join("secret"), "outside").unwrap();
        fs::write(path.join("root/lib/file"), "inside").unwrap();
        Self(path)
    }

    fn link(&self, to: impl AsRef<Path>, name: &str) {
        symlink(to, self.0.join("root").join(name)).unwrap();
    }

    fn read(&self, place: &Place) -> Option<String> {
        let mut text = String::new();
        open_regular(place).ok()?.0.read_to_string(&mut text).unwrap();
        Some(text)
    }

    fn below(&self, path: &str) -> Place {
        Place::below(self.0.join("root"), path)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn links_stay_below_the_root() {
    let tree = Tree::new("links");
    let secret = tree.0.join("secret");
    tree.link(&secret, "absolute");
    tree.link("../secret", "upward");
    tree.link(&tree.0, "directory");
    tree.link("/lib/file", "library");
    tree.link("lib", "relative");
    for path in ["/absolute", "/upward", "/directory/secret", "/../secret", "/lib/../../secret"] {
        assert_eq!(tree.read(&tree.below(path)), None, "{path}");
    }
    for path in ["/library", "library", "/relative/file", "/../lib/file"] {
        assert_eq!(tree.read(&tree.below(path)).as_deref(), Some("inside"), "{path}");
    }
    // What such a link means to the process that made it.
    let inner = tree.0.join("root").join(secret.strip_prefix("/").unwrap());
    fs::create_dir_all(inner.parent().unwrap()).unwrap();
    fs::write(&inner, "the root's own").unwrap();
    assert_eq!(tree.read(&tree.below("/absolute")).as_deref(), Some("the root's own"));
    // The agent's own choice leads anywhere.
    let trusted = Place::trusted(tree.0.join("root/upward"));
    assert_eq!(tree.read(&trusted).as_deref(), Some("outside"));
}

#[test]
fn no_link_at_all_where_none_is_wanted() {
    let tree = Tree::new("no-links");
    tree.link("lib/file", "library");
    tree.link("lib", "relative");
    for path in ["/library", "/relative/file"] {
        assert_eq!(tree.read(&tree.below(path).without_links()), None, "{path}");
    }
    assert_eq!(tree.read(&tree.below("/lib/file").without_links()).as_deref(), Some("inside"));
}

#[test]
fn links_of_the_kernel_are_refused_below_a_root() {
    let own = open_regular(&Place::below("/".into(), "/proc/self/exe")).map_err(|e| *e);
    let Err(SymbolizeError::Open { path, source }) = own else { panic!("{own:?}") };
    assert_eq!((path, source.raw_os_error()), ("/proc/self/exe".into(), Some(libc::ELOOP)));
    assert!(open_regular(&Place::trusted("/proc/self/exe".into())).is_ok());
    // The root itself is one.
    assert!(open_regular(&Host::default().in_process_root(std::process::id(), "/etc/passwd")).is_ok());
}
