//! `/proc/PID/maps`.

/// One line of `/proc/PID/maps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapsLine<'a> {
    /// First address.
    pub start: u64,
    /// First address past it.
    pub end: u64,
    /// True where code can run.
    pub executable: bool,
    /// Offset in the file.
    pub offset: u64,
    /// Device number of the file system, major and minor.
    pub device: (u32, u32),
    /// Inode, 0 where there is no file.
    pub inode: u64,
    /// Path or `[name]`, empty for anonymous memory. `\012` stands for a newline.
    pub path: &'a [u8],
    /// True where ` (deleted)` stood behind the path.
    pub deleted: bool,
}

/// Parses one line, without its newline; `None` where it is no such line.
pub fn parse_line(line: &[u8]) -> Option<MapsLine<'_>> {
    let (range, rest) = split(line, b' ')?;
    let (permissions, rest) = split(rest, b' ')?;
    let (offset, rest) = split(rest, b' ')?;
    let (device, rest) = split(rest, b' ')?;
    let (inode, path) = split(rest, b' ').unwrap_or((rest, b""));
    let (start, end) = split(range, b'-')?;
    let (major, minor) = split(device, b':')?;
    let (start, end) = (hex(start)?, hex(end)?);
    let path = path.trim_ascii_start();
    let (path, deleted) = match path.strip_suffix(b" (deleted)") {
        Some(path) => (path, true),
        None => (path, false),
    };
    (start < end).then_some(MapsLine {
        start,
        end,
        executable: permissions.get(2) == Some(&b'x'),
        offset: hex(offset)?,
        device: (u32::try_from(hex(major)?).ok()?, u32::try_from(hex(minor)?).ok()?),
        inode: std::str::from_utf8(inode).ok()?.parse().ok()?,
        path,
        deleted,
    })
}

/// Parses all lines that are such.
pub fn parse(text: &[u8]) -> impl Iterator<Item = MapsLine<'_>> {
    text.split(|&byte| byte == b'\n').filter_map(parse_line)
}

fn split(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let index = bytes.iter().position(|&byte| byte == at)?;
    Some((bytes.get(..index)?, bytes.get(index + 1..)?))
}

/// Parses hexadecimal digits, without a sign or a prefix.
pub(crate) fn hex(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits
        .iter()
        .try_fold(0, |value: u64, &digit| Some(value << 4 | u64::from(char::from(digit).to_digit(16)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_every_sort() {
        let text = b"55e1e1955000-55e1e1959000 r-xp 00002000 fe:01 1234  /usr/bin/a b\n\
            7f0000000000-7f0000001000 rwxp 00000000 00:00 0 \n\
            7f0000001000-7f0000002000 r-xp 00000000 00:01 77                         /memfd:jit (deleted)\n\
            7ffd1000-7ffd3000 r-xp 00000000 00:00 0                          [vdso]\n\
            ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n\
            garbage\n2-1 r-xp 0 0:0 0\n";
        let lines: Vec<_> = parse(text).collect();
        assert_eq!(lines.len(), 5);
        assert_eq!(lines[0].path, b"/usr/bin/a b");
        assert_eq!((lines[0].offset, lines[0].device, lines[0].inode), (0x2000, (0xfe, 1), 1234));
        assert!(lines[0].executable && !lines[0].deleted);
        assert_eq!(lines[1].path, b"");
        assert_eq!((lines[2].path, lines[2].deleted), (&b"/memfd:jit"[..], true));
        assert_eq!(lines[3].path, b"[vdso]");
        assert_eq!(lines[4].start, 0xffff_ffff_ff60_0000);
    }

    #[test]
    fn own_maps() {
        let text = std::fs::read("/proc/self/maps").unwrap();
        let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).count();
        assert_eq!(parse(&text).count(), lines);
    }
}
