//! Netlink messages and their attributes, written and read: pure functions over bytes.
//!
//! The format is that of include/uapi/linux/netlink.h: a header of 16 bytes, a fixed structure that depends on the
//! message's type, and attributes of length, type and payload, each padded to 4 bytes. Numbers are in the host's order.

use crate::errno::{Error, Message as Text, Result};

const HEADER: usize = 16;
const ATTR_HEADER: usize = 4;
const NLA_F_NESTED: u16 = 1 << 15;
/// Without the flags "nested" and "network byte order".
const NLA_TYPE_MASK: u16 = (1 << 14) - 1;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// A request that is being written.
#[derive(Debug, Clone)]
pub struct Request {
    bytes: Vec<u8>,
    too_long: bool,
}

impl Request {
    /// A request of this type (`RTM_*`) with these flags (`NLM_F_*`, of which `NLM_F_REQUEST` and `NLM_F_ACK` are added)
    /// and the fixed structure that such requests begin with.
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let flags = flags | (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(fixed);
        let mut request = Self { bytes, too_long: false };
        request.pad();
        request
    }

    /// Adds an attribute.
    #[must_use]
    pub fn attr(mut self, kind: u16, payload: &[u8]) -> Self {
        self.put(kind, payload.len());
        self.bytes.extend_from_slice(payload);
        self.pad();
        self
    }

    /// Adds an attribute that holds a number.
    #[must_use]
    pub fn attr_u32(self, kind: u16, value: u32) -> Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// Adds an attribute that holds a string with its terminating zero.
    #[must_use]
    pub fn attr_str(self, kind: u16, text: &str) -> Self {
        self.attr(kind, &[text.as_bytes(), &[0]].concat())
    }

    /// Adds an attribute that holds the attributes which `fill` adds.
    #[must_use]
    pub fn nest(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self.put(kind | NLA_F_NESTED, 0);
        self = fill(self);
        let len = self.length(self.bytes.len() - start);
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self
    }

    fn put(&mut self, kind: u16, payload: usize) {
        let len = self.length(ATTR_HEADER + payload);
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
    }

    fn length(&mut self, len: usize) -> u16 {
        u16::try_from(len).unwrap_or_else(|_| {
            self.too_long = true;
            u16::MAX
        })
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// The fixed structure and the attributes so far, which some attributes hold whole (`VETH_INFO_PEER`).
    pub fn body(&self) -> &[u8] {
        self.bytes.get(HEADER..).unwrap_or_default()
    }

    /// The bytes to send.
    pub(crate) fn finish(&mut self, call: &'static str, sequence: u32) -> Result<&[u8]> {
        let len = u32::try_from(self.bytes.len()).ok().filter(|_| !self.too_long);
        let too_long = Error::Argument { call, what: "an attribute is longer than 64 KiB" };
        self.bytes[..4].copy_from_slice(&len.ok_or(too_long)?.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        Ok(&self.bytes)
    }
}

/// One message of the kernel's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reply<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// What follows the header.
    pub(crate) payload: &'a [u8],
}

/// Splits what one `recv` gave into messages; nothing after the first malformed one, for which `None` is given.
pub(crate) fn replies(mut rest: &[u8]) -> impl Iterator<Item = Option<Reply<'_>>> {
    core::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let bytes = core::mem::take(&mut rest);
        let parsed = split(bytes);
        Some(parsed.map(|(reply, len)| {
            rest = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
            reply
        }))
    })
}

fn split(bytes: &[u8]) -> Option<(Reply<'_>, usize)> {
    let len = u32_at(bytes, 0)? as usize;
    let payload = bytes.get(HEADER..len)?;
    let reply =
        Reply { kind: u16_at(bytes, 4)?, flags: u16_at(bytes, 6)?, sequence: u32_at(bytes, 8)?, payload };
    Some((reply, len))
}

impl<'a> Reply<'a> {
    /// `Some` if this ends the answer: the request succeeded, or an error with what the kernel says about it.
    pub(crate) fn end(&self) -> Option<core::result::Result<(), (i32, Text)>> {
        match self.kind {
            // A dump that failed says so at its end; other numbers are lengths.
            NLMSG_DONE => match u32_at(self.payload, 0).map(|e| e as i32) {
                Some(errno @ ..0) => Some(Err((errno.wrapping_neg(), Text::default()))),
                _ => Some(Ok(())),
            },
            NLMSG_ERROR => match u32_at(self.payload, 0).map(|e| e as i32) {
                Some(0) => Some(Ok(())),
                Some(errno) => Some(Err((errno.wrapping_neg(), self.error_text().unwrap_or_default()))),
                None => Some(Err((libc::EBADMSG, Text::default()))),
            },
            _ => None,
        }
    }

    /// The extended acknowledgement's message, which comes after the errno and the request's header, or the whole
    /// request where it was not capped.
    fn error_text(&self) -> Option<Text> {
        if self.flags & NLM_F_ACK_TLVS == 0 {
            return None;
        }
        let request = match self.flags & NLM_F_CAPPED {
            0 => (u32_at(self.payload, 4)? as usize).max(HEADER),
            _ => HEADER,
        };
        let attrs = self.payload.get(request.checked_next_multiple_of(4)?.checked_add(4)?..)?;
        find(attrs, NLMSGERR_ATTR_MSG).map(Text::new)
    }

    /// The attributes after the fixed structure of `fixed` bytes.
    pub(crate) fn attributes(&self, fixed: usize) -> &'a [u8] {
        self.payload.get(fixed..).unwrap_or_default()
    }
}

/// Type and payload of each attribute in `rest`, up to the first that is malformed.
pub(crate) fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    core::iter::from_fn(move || {
        let len = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & NLA_TYPE_MASK;
        let payload = rest.get(ATTR_HEADER..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    })
}

/// The payload of the first attribute of that type.
pub(crate) fn find(attrs: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(attrs).find(|(k, _)| *k == kind).map(|(_, payload)| payload)
}

/// The number in the first attribute of that type.
pub(crate) fn find_u32(attrs: &[u8], kind: u16) -> Option<u32> {
    u32_at(find(attrs, kind)?, 0)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(((HEADER + payload.len()) as u32).to_ne_bytes());
        out.extend(kind.to_ne_bytes());
        out.extend(flags.to_ne_bytes());
        out.extend(sequence.to_ne_bytes());
        out.extend([0; 4]);
        out.extend(payload);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    fn error(flags: u16, errno: i32, rest: &[u8]) -> Vec<u8> {
        let mut payload = errno.to_ne_bytes().to_vec();
        payload.extend(message(19, 0, 7, &[]));
        payload.extend(rest);
        message(NLMSG_ERROR, flags, 7, &payload)
    }

    #[test]
    fn requests_nest_and_pad() {
        let mut request =
            Request::new(19, 0, &[1, 2, 3]).nest(43, |r| r.attr_u32(1, 5).attr_str(7, "ab")).attr(9, &[]);
        let bytes = request.finish("x", 77).unwrap().to_vec();
        assert_eq!(bytes.len(), 16 + 4 + (4 + 8 + 8) + 4);
        let parsed: Vec<_> = replies(&bytes).collect();
        let reply = parsed[0].unwrap();
        assert_eq!((parsed.len(), reply.kind, reply.flags, reply.sequence), (1, 19, 5, 77));
        let attrs: Vec<_> = attributes(reply.attributes(4)).collect();
        assert_eq!(attrs.iter().map(|a| a.0).collect::<Vec<_>>(), [43, 9]);
        assert_eq!(find_u32(attrs[0].1, 1), Some(5));
        assert_eq!(find(attrs[0].1, 7), Some(&b"ab\0"[..]));
        assert_eq!(find(attrs[0].1, 8), None);
    }

    #[test]
    fn what_does_not_fit_an_attribute_is_refused() {
        assert!(Request::new(1, 0, &[]).attr(1, &vec![0; 65531]).finish("x", 0).is_ok());
        assert!(Request::new(1, 0, &[]).attr(1, &vec![0; 65532]).finish("x", 0).is_err());
        let nest = |r: Request| r.attr(1, &[0; 40000]).attr(1, &[0; 40000]);
        assert!(Request::new(1, 0, &[]).nest(1, nest).finish("x", 0).is_err());
    }

    #[test]
    fn an_acknowledgement_tells_errno_and_message() {
        let end = |bytes: &[u8]| replies(bytes).next().unwrap().unwrap().end();
        assert_eq!(end(&error(0, 0, &[])), Some(Ok(())));
        assert_eq!(end(&message(NLMSG_DONE, 0, 7, &[0; 4])), Some(Ok(())));
        assert_eq!(end(&message(NLMSG_DONE, 0, 7, &(-2i32).to_ne_bytes())), Some(Err((2, Text::default()))));
        assert_eq!(end(&message(NLMSG_DONE, 0, 7, &[])), Some(Ok(())));
        assert_eq!(end(&message(16, 0, 7, &[0; 4])), None);
        assert_eq!(end(&message(NLMSG_ERROR, 0, 7, &[])), Some(Err((libc::EBADMSG, Text::default()))));
        let mut attr = vec![11, 0, 1, 0];
        attr.extend(b"no way\0");
        let capped = error(NLM_F_CAPPED | NLM_F_ACK_TLVS, -22, &attr);
        assert_eq!(end(&capped), Some(Err((22, Text::new(b"no way")))));
        // Without the flag, whatever follows is no attribute.
        assert_eq!(end(&error(0, -22, &attr)), Some(Err((22, Text::default()))));
        // The most negative number has no positive counterpart.
        assert!(matches!(end(&error(0, i32::MIN, &[])), Some(Err((i32::MIN, _)))));
    }

    #[test]
    fn malformed_answers_end_the_iteration() {
        let good = message(16, 0, 7, &[0; 5]);
        let mut two = good.clone();
        two.extend([200, 0, 0, 0]);
        assert_eq!(replies(&two).map(|r| r.is_some()).collect::<Vec<_>>(), [true, false]);
        for len in [0u32, 15, 22, u32::MAX] {
            let mut bad = good.clone();
            bad[..4].copy_from_slice(&len.to_ne_bytes());
            bad.truncate(21);
            assert_eq!(replies(&bad).collect::<Vec<_>>(), [None], "{len}");
        }
        for attrs in [&[3, 0, 1, 0][..], &[0, 0, 0, 0], &[9, 0, 1, 0, 5], &[4, 0, 1]] {
            assert_eq!(attributes(attrs).count(), 0, "{attrs:?}");
        }
        // An errno whose request claims to be as long as memory.
        let mut payload = (-1i32).to_ne_bytes().to_vec();
        payload.extend(u32::MAX.to_ne_bytes());
        payload.extend([0; 20]);
        let huge = message(NLMSG_ERROR, NLM_F_ACK_TLVS, 7, &payload);
        assert_eq!(replies(&huge).next().unwrap().unwrap().end(), Some(Err((1, Text::default()))));
    }
}
