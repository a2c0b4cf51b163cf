//! DNS messages.

use collector::tracer::dns::message;

/// One message of anybody's.
pub fn tracer_dns(data: &[u8]) {
    let Some(parsed) = message::parse(data) else { return };
    assert!(data.len() >= 12 && parsed.code < 16);
    let Some(question) = parsed.question else {
        assert!(parsed.is_response);
        return;
    };
    // Four characters for each of 254 bytes at most.
    assert!((1..=254 * 4).contains(&question.name.len()));
    assert!(question.name.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase()));
}
