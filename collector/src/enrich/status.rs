//! `/proc/PID/stat` and `/proc/PID/status`.

/// What is needed of `/proc/PID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat<'a> {
    /// Name of the leading thread; may hold any byte.
    pub comm: &'a [u8],
    /// Process id of the parent.
    pub parent: u32,
    /// Start time in clock ticks since boot.
    pub start_ticks: u64,
}

/// Parses `/proc/PID/stat`. The name stands in parentheses and may hold some, so it ends at the last one.
pub fn parse_stat(text: &[u8]) -> Option<Stat<'_>> {
    let open = text.iter().position(|&byte| byte == b'(')?;
    let close = text.iter().rposition(|&byte| byte == b')')?;
    let comm = text.get(open + 1..close)?;
    // Field 3 of proc_pid_stat(5) follows.
    let mut fields = std::str::from_utf8(text.get(close + 1..)?).ok()?.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let start_ticks = fields.nth(17)?.parse().ok()?;
    Some(Stat { comm, parent, start_ticks })
}

/// The `NSpid` line of `/proc/PID/status`: from the namespace of `proc` inward. Empty before Linux 4.1.
pub fn namespace_pids(status: &[u8]) -> Vec<u32> {
    status_field(status, b"NSpid:").map_or_else(Vec::new, Iterator::collect)
}

/// The numbers of a line of `/proc/PID/status`.
pub(crate) fn status_field<'a>(status: &'a [u8], name: &'a [u8]) -> Option<impl Iterator<Item = u32> + 'a> {
    let rest = status.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(name))?;
    let words = std::str::from_utf8(rest).ok()?.split_ascii_whitespace();
    Some(words.map_while(|word| word.parse().ok()))
}
