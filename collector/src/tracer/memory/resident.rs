//! How large processes are, from `/proc/PID/statm`.

use std::fs;

/// Bytes resident and bytes of address space; `None` if the process is gone, or is one of the kernel's own.
pub fn read(pid: u32) -> Option<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    parse(&text, bpf_sys::page_size() as u64).filter(|&(_, size)| size > 0)
}

/// `size resident shared text lib data dt`, in pages.
fn parse(statm: &str, page: u64) -> Option<(u64, u64)> {
    let mut pages = statm.split_whitespace().map_while(|field| field.parse::<u64>().ok());
    let (size, resident) = (pages.next()?, pages.next()?);
    Some((resident.checked_mul(page)?, size.checked_mul(page)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statm_counts_pages() {
        assert_eq!(parse("300 20 10 1 0 9 0\n", 4096), Some((20 * 4096, 300 * 4096)));
        assert_eq!(parse("300", 4096), None);
        assert_eq!(parse("99999999999999999 1 1", 4096), None);
    }
}
