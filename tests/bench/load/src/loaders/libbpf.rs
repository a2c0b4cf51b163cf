//! libbpf.

use std::ffi::CString;
use std::path::Path;

use crate::meter::Result;

pub fn load(object: &Path) -> Result<()> {
    let path = CString::new(object.as_os_str().as_encoded_bytes())?;
    // SAFETY: no other thread uses libbpf.
    unsafe { libbpf_sys::libbpf_set_print(None) };
    // SAFETY: the path ends with a zero; libbpf takes no options as null.
    let object = unsafe { libbpf_sys::bpf_object__open_file(path.as_ptr(), std::ptr::null()) };
    if object.is_null() {
        return Err(format!("open: {}", std::io::Error::last_os_error()).into());
    }
    // SAFETY: the object was opened above and never closed.
    match unsafe { libbpf_sys::bpf_object__load(object) } {
        0 => Ok(()),
        error => Err(format!("load: {}", std::io::Error::from_raw_os_error(-error)).into()),
    }
}
