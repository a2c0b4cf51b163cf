//! The few calls of libbpf that are needed, owned and named as in Rust.

use std::ffi::{CStr, CString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::Mutex;

use libbpf_sys as sys;

/// What libbpf has warned of since it was last asked.
static MESSAGES: Mutex<String> = Mutex::new(String::new());

unsafe extern "C" {
    fn vsnprintf(to: *mut c_char, size: usize, format: *const c_char, args: *mut sys::__va_list_tag)
    -> c_int;
}

extern "C" fn print(
    level: sys::libbpf_print_level,
    format: *const c_char,
    args: *mut sys::__va_list_tag,
) -> c_int {
    if level != sys::LIBBPF_WARN {
        return 0;
    }
    // A verifier's log comes as one message.
    let mut buffer = vec![0u8; 1 << 16];
    // SAFETY: libbpf passes a format and the arguments that it wants; the size is the buffer's.
    unsafe { vsnprintf(buffer.as_mut_ptr().cast(), buffer.len(), format, args) };
    let text = CStr::from_bytes_until_nul(&buffer).unwrap_or_default().to_string_lossy();
    MESSAGES.lock().unwrap().push_str(&text);
    0
}

/// From now on, warnings are kept for [`messages`].
pub fn collect_messages() {
    // SAFETY: the function has the type that libbpf wants and lives as long as the program.
    unsafe { sys::libbpf_set_print(Some(print)) };
}

/// Warnings since the last call.
pub fn messages() -> String {
    std::mem::take(&mut MESSAGES.lock().unwrap())
}

/// An opened object.
pub struct Object(NonNull<sys::bpf_object>);

impl Object {
    /// Opens an object, with kernel types from a file if one is given; the error is an errno. Nothing of it will be pinned.
    pub fn open(path: &Path, btf: Option<&Path>) -> Result<Self, i32> {
        let c_string = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(|_| 22);
        let path = c_string(path)?;
        let btf = btf.map(c_string).transpose()?;
        let options = sys::bpf_object_open_opts {
            sz: size_of::<sys::bpf_object_open_opts>() as _,
            btf_custom_path: btf.as_ref().map_or(ptr::null(), |p| p.as_ptr()),
            ..Default::default()
        };
        // SAFETY: path and options live through the call, which copies what it keeps.
        let object = unsafe { sys::bpf_object__open_file(path.as_ptr(), &options) };
        let object = Self(NonNull::new(object).ok_or_else(last_errno)?);
        for map in object.maps() {
            // SAFETY: the map is the object's; no path means no pinning.
            unsafe { sys::bpf_map__set_pin_path(map.0, ptr::null()) };
        }
        Ok(object)
    }

    /// Loads it: 0 or an errno.
    pub fn load(&self) -> i32 {
        // SAFETY: the object is open.
        -unsafe { sys::bpf_object__load(self.0.as_ptr()) }
    }

    /// Everything up to loading programs: 0 or an errno.
    pub fn prepare(&self) -> i32 {
        // SAFETY: the object is open.
        -unsafe { sys::bpf_object__prepare(self.0.as_ptr()) }
    }

    pub fn maps(&self) -> impl Iterator<Item = Map> {
        let mut last = ptr::null_mut();
        std::iter::from_fn(move || {
            // SAFETY: the object is open, the last map is its own or null.
            last = unsafe { sys::bpf_object__next_map(self.0.as_ptr(), last) };
            (!last.is_null()).then_some(Map(last))
        })
    }

    pub fn programs(&self) -> impl Iterator<Item = Program> {
        let mut last = ptr::null_mut();
        std::iter::from_fn(move || {
            // SAFETY: the object is open, the last program is its own or null.
            last = unsafe { sys::bpf_object__next_program(self.0.as_ptr(), last) };
            (!last.is_null()).then_some(Program(last))
        })
    }

    /// Leaves only the program of that name to be loaded, and maps of operations only if it is an operation.
    pub fn choose(&self, name: &str) {
        let mut operation = false;
        for program in self.programs() {
            let chosen = program.name() == name;
            operation |= chosen && program.kind() == sys::BPF_PROG_TYPE_STRUCT_OPS;
            program.set_autoload(chosen);
        }
        for map in self.maps().filter(|map| map.kind() == sys::BPF_MAP_TYPE_STRUCT_OPS && !operation) {
            // SAFETY: the map is the object's.
            unsafe { sys::bpf_map__set_autocreate(map.0, false) };
        }
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: closed once; maps and programs are not used after their object.
        unsafe { sys::bpf_object__close(self.0.as_ptr()) };
    }
}

/// A map of an open object.
pub struct Map(*mut sys::bpf_map);

impl Map {
    pub fn name(&self) -> String {
        // SAFETY: the map's object is open.
        text(unsafe { sys::bpf_map__name(self.0) })
    }

    pub fn kind(&self) -> sys::bpf_map_type {
        // SAFETY: the map's object is open.
        unsafe { sys::bpf_map__type(self.0) }
    }

    pub fn kind_name(&self) -> String {
        // SAFETY: the name of a type is constant.
        text(unsafe { sys::libbpf_bpf_map_type_str(self.kind()) })
    }
}

/// A program of an open object.
pub struct Program(*mut sys::bpf_program);

impl Program {
    pub fn name(&self) -> String {
        // SAFETY: the program's object is open.
        text(unsafe { sys::bpf_program__name(self.0) })
    }

    pub fn section(&self) -> String {
        // SAFETY: the program's object is open.
        text(unsafe { sys::bpf_program__section_name(self.0) })
    }

    pub fn kind(&self) -> sys::bpf_prog_type {
        // SAFETY: the program's object is open.
        unsafe { sys::bpf_program__type(self.0) }
    }

    pub fn set_autoload(&self, autoload: bool) {
        // SAFETY: the program's object is open.
        unsafe { sys::bpf_program__set_autoload(self.0, autoload) };
    }

    /// The instructions as they are now, 8 bytes each.
    pub fn instructions(&self) -> Vec<[u8; 8]> {
        // SAFETY: the program's object is open.
        let (start, count) = unsafe { (sys::bpf_program__insns(self.0), sys::bpf_program__insn_cnt(self.0)) };
        if start.is_null() {
            return Vec::new();
        }
        // SAFETY: libbpf has that many instructions of 8 bytes there until the object is next changed.
        unsafe { std::slice::from_raw_parts(start.cast::<[u8; 8]>(), count as usize) }.to_vec()
    }
}

fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: libbpf's strings end with a zero and live as long as the object.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

fn last_errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(-1)
}
