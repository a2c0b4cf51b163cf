//! `service.name` in the environment of a process.

use std::io::BufRead;

use crate::percent;

/// Bytes of an environment that are read.
const MAX_ENVIRONMENT: u64 = 1 << 20;
/// Bytes of a name that are kept.
const MAX_NAME: usize = 255;

/// The service name that an environment (`NAME=VALUE`, each ended by a NUL) states: `OTEL_SERVICE_NAME`, or else
/// `service.name` in `OTEL_RESOURCE_ATTRIBUTES`. Nothing else of it is kept.
pub fn service_name(environment: impl BufRead) -> Option<String> {
    let mut environment = environment.take(MAX_ENVIRONMENT);
    let mut variable = Vec::new();
    let mut from_attributes = None;
    loop {
        // Secrets stand here too.
        variable.fill(0);
        variable.clear();
        if environment.read_until(0, &mut variable).ok()? == 0 {
            return from_attributes;
        }
        let text = variable.strip_suffix(b"\0").unwrap_or(&variable);
        if let Some(value) = text.strip_prefix(b"OTEL_SERVICE_NAME=") {
            if let Some(name) = clean(value) {
                return Some(name);
            }
        } else if let Some(value) = text.strip_prefix(b"OTEL_RESOURCE_ATTRIBUTES=") {
            from_attributes = from_attributes.or_else(|| name_in_attributes(value));
        }
    }
}

/// `service.name` in `key=value,key=value`, whose values are percent-encoded.
fn name_in_attributes(attributes: &[u8]) -> Option<String> {
    attributes.split(|&byte| byte == b',').find_map(|attribute| {
        let equals = attribute.iter().position(|&byte| byte == b'=')?;
        let (key, value) = attribute.split_at_checked(equals)?;
        (key.trim_ascii() == b"service.name")
            .then(|| clean(&percent::decode(value.get(1..)?.trim_ascii())))?
    })
}

/// Text that can stand in telemetry, if any is left.
fn clean(value: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(value);
    let text: String = text.trim().chars().filter(|character| !character.is_control()).collect();
    let end = text.char_indices().map(|(at, character)| at + character.len_utf8());
    let end = end.take_while(|&end| end <= MAX_NAME).last()?;
    text.get(..end).map(str::to_owned)
}
