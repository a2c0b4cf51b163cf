//! What a process publishes of itself, for whoever looks from outside: OTEP 4719, "Process Context".

use crate::symbolize::maps::MapsLine;
use crate::symbolize::read_at::{ReadAt, read_vec};

/// Names of the mapping that it is in, with what may follow.
const NAMES: [&[u8]; 3] = [b"[anon_shmem:OTEL_CTX]", b"[anon:OTEL_CTX]", b"/memfd:OTEL_CTX"];
const SIGNATURE: [u8; 8] = *b"OTEL_CTX";
/// Bytes of the header: the signature, a version, the size of what is published, a time, and its address.
const HEADER: usize = 32;
/// Of programs that try it out, and of the others.
const VERSIONS: [u32; 2] = [1, 2];
/// Bytes that are read.
const MAX_PAYLOAD: usize = 64 << 10;
/// How often it is read again where it changes meanwhile.
const TRIES: usize = 3;
/// The attribute that says how threads publish what they work for.
const SCHEMA: &[u8] = b"threadlocal.schema_version";
/// Its values of which [`super`] knows the format: of the draft, and of what it becomes.
const SCHEMAS: [&[u8]; 3] = [b"tlsdesc_v1_dev", b"tlsdesc_v1", b"tls_v1"];
/// Attributes are in a message, or in one within it.
const DEPTH: usize = 2;

/// Where a process publishes, by its mappings. `None`: it does not.
pub fn mapping<'m>(mut mappings: impl Iterator<Item = MapsLine<'m>>) -> Option<u64> {
    let found = mappings.find(|line| NAMES.iter().any(|name| line.path.starts_with(name)));
    found.map(|line| line.start)
}

/// Whether a process says there that its threads publish their spans as is known here.
pub fn publishes_spans(memory: &dyn ReadAt, address: u64) -> bool {
    let payload = (0..TRIES).find_map(|_| payload(memory, address));
    let schema = payload.as_deref().and_then(|payload| attribute(payload, SCHEMA, DEPTH));
    schema.is_some_and(|schema| SCHEMAS.contains(&schema))
}

/// What is published by the header at an address. `None`: nothing, or it is being changed.
fn payload(memory: &dyn ReadAt, address: u64) -> Option<Vec<u8>> {
    let read = || read_vec(memory, address, HEADER as u64, HEADER, "a process context").ok();
    let header = read()?;
    let (signature, rest) = header.split_first_chunk()?;
    let (version, rest) = rest.split_first_chunk()?;
    let (size, rest) = rest.split_first_chunk()?;
    let (published, rest) = rest.split_first_chunk()?;
    let at = u64::from_ne_bytes(*rest.first_chunk()?);
    let is_valid = *signature == SIGNATURE
        && VERSIONS.contains(&u32::from_ne_bytes(*version))
        && u64::from_ne_bytes(*published) != 0;
    let size = u32::from_ne_bytes(*size).into();
    let payload = is_valid.then(|| read_vec(memory, at, size, MAX_PAYLOAD, "a process context").ok())??;
    (read()? == header).then_some(payload)
}

/// The text of an attribute of a message of Protocol Buffers whose attributes are `KeyValue`s (`opentelemetry.proto.common.v1`), in it or in
/// messages within it.
fn attribute<'p>(message: &'p [u8], key: &[u8], depth: usize) -> Option<&'p [u8]> {
    let found = field(message, 1).is_some_and(|found| found == key);
    if found {
        return field(field(message, 2)?, 1);
    }
    let within = Fields(message).filter(|_| depth > 0);
    within.filter_map(|(_, content)| attribute(content, key, depth - 1)).last()
}

/// The last content of a field of that number, as readers take it.
fn field(message: &[u8], number: u64) -> Option<&[u8]> {
    Fields(message).filter(|(of, _)| *of == number).last().map(|(_, content)| content)
}

/// Fields that have a length: their numbers and contents, up to what makes no sense.
struct Fields<'m>(&'m [u8]);

impl<'m> Iterator for Fields<'m> {
    type Item = (u64, &'m [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (tag, rest) = varint(self.0)?;
            let (content, rest) = match tag & 7 {
                0 => (None, varint(rest)?.1),
                1 => (None, rest.get(8..)?),
                2 => {
                    let (length, rest) = varint(rest)?;
                    let (content, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                    (Some(content), rest)
                }
                5 => (None, rest.get(4..)?),
                _ => return None,
            };
            self.0 = rest;
            if let Some(content) = content {
                return Some((tag >> 3, content));
            }
        }
    }
}

/// A number of at most 64 bits, seven in a byte, and what is behind it.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    const LONGEST: usize = 10;
    let length = bytes.iter().take(LONGEST).position(|byte| byte & 0x80 == 0)? + 1;
    let (number, rest) = bytes.split_at_checked(length)?;
    let digits = number.iter().rev().map(|byte| u64::from(byte & 0x7f));
    Some((digits.fold(0, |value, digit| value << 7 | digit), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbolize::maps;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use prost::Message;

    /// Memory from an address on.
    struct Memory(u64, Vec<u8>);

    impl ReadAt for Memory {
        fn size(&self) -> u64 {
            u64::MAX
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
            let bytes =
                offset.checked_sub(self.0).and_then(|at| self.1.get(at as usize..)?.get(..buffer.len()));
            bytes.map_or(Ok(0), |bytes| {
                buffer.copy_from_slice(bytes);
                Ok(bytes.len())
            })
        }
    }

    fn attributes(schema: &str) -> Resource {
        let text = |text: &str| Some(AnyValue { value: Some(Value::StringValue(text.into())) });
        let pair =
            |key: &str, value: &str| KeyValue { key: key.into(), value: text(value), ..KeyValue::default() };
        let attributes = vec![pair("service.name", "shop"), pair("threadlocal.schema_version", schema)];
        Resource { attributes, dropped_attributes_count: 3, ..Resource::default() }
    }

    const START: u64 = 0x7f00_0000_0000;

    fn published(version: u32, time: u64, payload: &[u8]) -> Memory {
        let mut bytes = b"OTEL_CTX".to_vec();
        bytes.extend(version.to_ne_bytes().into_iter().chain((payload.len() as u32).to_ne_bytes()));
        bytes.extend(time.to_ne_bytes().into_iter().chain((START + 32).to_ne_bytes()));
        bytes.extend(payload);
        Memory(START, bytes)
    }

    fn says(memory: &Memory, name: &str) -> bool {
        let text = format!("7f0000000000-7f0000001000 rw-s 00000000 00:01 5 {name}\n");
        mapping(maps::parse(text.as_bytes())).is_some_and(|address| publishes_spans(memory, address))
    }

    #[test]
    fn who_publishes_spans_says_so() {
        let payload = attributes("tlsdesc_v1_dev").encode_to_vec();
        let memory = published(2, 1, &payload);
        for name in ["/memfd:OTEL_CTX (deleted)", "[anon_shmem:OTEL_CTX]", "[anon:OTEL_CTX]"] {
            assert!(says(&memory, name), "{name}");
        }
        assert!(!says(&memory, "/memfd:other (deleted)"));
        // Within another message, as its first field.
        let mut within = vec![1 << 3 | 2, payload.len() as u8];
        within.extend(&payload);
        assert!(says(&published(1, 1, &within), "/memfd:OTEL_CTX"));
        for (version, time, schema) in [(3, 1, "tls_v1"), (2, 0, "tls_v1"), (2, 1, "go_pprof_labels_v1")] {
            let memory = published(version, time, &attributes(schema).encode_to_vec());
            assert!(!says(&memory, "/memfd:OTEL_CTX"), "{version} {time} {schema}");
        }
        for length in 0..memory.1.len() {
            let cut = Memory(START, memory.1[..length].to_vec());
            assert!(!says(&cut, "/memfd:OTEL_CTX"), "{length}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_no_attribute() {
        assert_eq!(attribute(&[0xff; 40], SCHEMA, DEPTH), None);
        assert_eq!(attribute(&[10, 200, 1], SCHEMA, DEPTH), None);
        assert_eq!(attribute(&[3, 4, 5], SCHEMA, DEPTH), None);
        assert_eq!(varint(&[0x80; 11]), None);
        assert_eq!(varint(&[0xac, 2, 9]), Some((300, &[9][..])));
    }
}
