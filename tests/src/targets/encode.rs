//! Encoded bytes to JSON.

use otlp_encode::descriptor::Descriptor;
use otlp_encode::{common, json, profiles, resource};

/// Bytes as each of the messages, to JSON: an error, or one line of JSON.
pub fn encode_json(message: &[u8]) {
    let descriptors: [fn() -> &'static Descriptor; 12] = [
        profiles::ExportProfilesServiceRequest::descriptor,
        profiles::ProfilesDictionary::descriptor,
        profiles::ResourceProfiles::descriptor,
        profiles::Profile::descriptor,
        profiles::Sample::descriptor,
        profiles::Mapping::descriptor,
        profiles::Location::descriptor,
        profiles::Function::descriptor,
        profiles::Link::descriptor,
        resource::Resource::descriptor,
        common::AnyValue::descriptor,
        common::InstrumentationScope::descriptor,
    ];
    for descriptor in descriptors {
        let mut line = "before".to_owned();
        match json::transcode(descriptor(), message, &mut line) {
            Ok(()) => {
                let json = line.strip_prefix("before").expect("what was there stays");
                assert!(!json.contains('\n'));
                // Nested as deeply as messages may be, this does not recurse.
                serde_json::from_str::<serde::de::IgnoredAny>(json).expect("it is JSON");
            }
            Err(_) => assert_eq!(line, "before", "an error changes nothing"),
        }
    }
}
