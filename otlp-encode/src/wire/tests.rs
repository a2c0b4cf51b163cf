//! Fields byte by byte.

use super::*;
use alloc::vec;

fn bytes(fill: impl FnOnce(&mut Fields<'_>)) -> Vec<u8> {
    let mut writer = Writer::new();
    fill(&mut writer.fields());
    writer.as_bytes().to_vec()
}

#[test]
fn varints_at_their_edges() {
    assert_eq!(bytes(|f| f.uint64(1, 0)), [0x08, 0]);
    assert_eq!(bytes(|f| f.uint64(1, 127)), [0x08, 0x7f]);
    assert_eq!(bytes(|f| f.uint64(1, 128)), [0x08, 0x80, 0x01]);
    assert_eq!(bytes(|f| f.uint64(1, 16_383)), [0x08, 0xff, 0x7f]);
    assert_eq!(bytes(|f| f.uint64(1, 16_384)), [0x08, 0x80, 0x80, 0x01]);
    let max = [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    assert_eq!(bytes(|f| f.uint64(1, u64::MAX)), max);
    assert_eq!(bytes(|f| f.int64(1, -1)), max);
    assert_eq!(bytes(|f| f.int32(1, -1)), max);
    for shift in 0..64 {
        for value in [1u64 << shift, (1 << shift) - 1] {
            let mut writer = Writer::new();
            writer.varint(value);
            assert_eq!(writer.len(), varint_len(value), "{value:#x}");
        }
    }
}

#[test]
fn fields_with_large_numbers() {
    assert_eq!(bytes(|f| f.bool(15, true)), [0x78, 1]);
    assert_eq!(bytes(|f| f.bool(16, true)), [0x80, 0x01, 1]);
    assert_eq!(bytes(|f| f.bool((1 << 29) - 1, true)), [0xf8, 0xff, 0xff, 0xff, 0x0f, 1]);
}

#[test]
fn packed_fields_keep_their_order_and_vanish_when_empty() {
    assert_eq!(bytes(|f| f.packed_varint(1, [1u64, 300].into_iter())), [0x0a, 3, 1, 0xac, 0x02]);
    assert_eq!(
        bytes(|f| f.packed_fixed64(1, &[1, 2])),
        [0x0a, 16, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(bytes(|f| f.packed_varint(1, core::iter::empty())), []);
    assert_eq!(bytes(|f| f.packed_fixed64(1, &[])), []);
}

#[test]
fn packed_varints_at_the_start_of_the_buffer() {
    let values = [1, 127, 128, 300, 16_383, 16_384, u64::MAX, 0, 1, 2];
    let want = bytes(|f| f.packed_varint(1, values.into_iter()));
    for room in 0..want.len() + 2 {
        let mut writer = Writer::new();
        writer.prepend(&[0; MIN_CAPACITY]);
        writer.clear();
        writer.prepend(&vec![0; MIN_CAPACITY - room]);
        writer.fields().packed_varint(1, values.into_iter());
        assert_eq!(writer.as_bytes()[..want.len()], want, "{room} bytes of room");
        assert_eq!(writer.len(), want.len() + MIN_CAPACITY - room);
    }
}

#[test]
fn texts_of_every_length_are_copied() {
    let text: Vec<u8> = (0..=200).collect();
    for len in 0..text.len() {
        let got = bytes(|f| f.bytes(1, &text[..len]));
        assert_eq!(got[got.len() - len..], text[..len]);
        assert_eq!(got.len() - len, 1 + varint_len(len as u64));
    }
}

#[test]
fn nested_messages_get_their_length() {
    let long = vec![7; 200];
    let got = bytes(|f| {
        f.message(2, |mut inner| inner.bytes(1, &long));
        f.message(1, |_| {});
    });
    let mut want = vec![0x0a, 0, 0x12, 0xcb, 0x01, 0x0a, 0xc8, 0x01];
    want.extend(&long);
    assert_eq!(got, want);
}

#[test]
fn lengths_at_their_edges() {
    // With headers of one byte, and of two.
    for field in [1u32, 16] {
        for len in [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152] {
            let content = vec![9; len];
            let mut want = Vec::new();
            for mut rest in [u64::from(field) << 3 | 2, len as u64] {
                while rest >= 0x80 {
                    want.push(rest as u8 | 0x80);
                    rest >>= 7;
                }
                want.push(rest as u8);
            }
            want.extend(&content);
            assert!(bytes(|f| f.bytes(field, &content)) == want, "{field} {len}");
            assert!(
                bytes(|f| f.message(field, |fields| fields.writer.prepend(&content))) == want,
                "{field} {len}"
            );
        }
    }
}

#[test]
fn memory_grows_at_the_front_and_is_reused() {
    let mut writer = Writer::new();
    writer.prepend(b"end");
    writer.prepend(&[1; 5000]);
    assert!(writer.as_bytes().ends_with(b"\x01end"));
    let capacity = writer.capacity();
    writer.clear();
    assert!(writer.is_empty());
    writer.prepend(&[2; 5003]);
    assert_eq!(writer.as_bytes(), [2; 5003]);
    assert_eq!(writer.capacity(), capacity);
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "field 2 written after field 1")]
fn ascending_order_is_caught() {
    bytes(|f| {
        f.bool(1, true);
        f.bool(2, true);
    });
}
