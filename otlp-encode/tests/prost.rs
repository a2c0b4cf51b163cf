//! The bytes are those that prost writes for the same message.

mod support;

use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use otlp_encode::wire::Writer;
use otlp_encode::{common as ours, resource as ours_resource};
use proptest::prelude::*;
use prost::Message;
use support::common::{any_value, resource, scope, write_any_value, write_resource, write_scope};
use support::{logs, metrics, profiles, trace};

proptest! {
    #[test]
    fn any_value_equals_prost(message in any_value()) {
        let mut writer = Writer::new();
        let bytes = ours::AnyValue::encode(&mut writer, |to| write_any_value(to, &message));
        prop_assert_eq!(bytes, message.encode_to_vec());
    }

    #[test]
    fn scope_equals_prost(message in scope()) {
        let mut writer = Writer::new();
        let bytes = ours::InstrumentationScope::encode(&mut writer, |to| write_scope(to, &message));
        prop_assert_eq!(bytes, message.encode_to_vec());
    }

    #[test]
    fn resource_equals_prost(message in resource()) {
        let mut writer = Writer::new();
        let bytes = ours_resource::Resource::encode(&mut writer, |to| write_resource(to, &message));
        prop_assert_eq!(bytes, message.encode_to_vec());
    }

}

proptest! {
    // Requests are large.
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn profiles_equal_prost(message in profiles::request()) {
        let mut writer = Writer::new();
        prop_assert_eq!(profiles::encode(&mut writer, &message), message.encode_to_vec());
    }

    #[test]
    fn metrics_equal_prost(message in metrics::request()) {
        let mut writer = Writer::new();
        prop_assert_eq!(metrics::encode(&mut writer, &message), message.encode_to_vec());
    }

    #[test]
    fn traces_equal_prost(message in trace::request()) {
        let mut writer = Writer::new();
        prop_assert_eq!(trace::encode(&mut writer, &message), message.encode_to_vec());
    }

    #[test]
    fn logs_equal_prost_in_a_reused_buffer(messages in proptest::collection::vec(logs::request(), 1..3)) {
        let mut writer = Writer::new();
        for message in messages {
            prop_assert_eq!(logs::encode(&mut writer, &message), message.encode_to_vec());
        }
    }
}

fn value(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

#[track_caller]
fn check(message: &AnyValue) -> Vec<u8> {
    let mut writer = Writer::new();
    let bytes = ours::AnyValue::encode(&mut writer, |to| write_any_value(to, message)).to_vec();
    assert_eq!(bytes, message.encode_to_vec());
    bytes
}

#[test]
fn explicit_defaults_are_written() {
    assert_eq!(check(&value(Value::StringValue(String::new()))), [0x0a, 0]);
    assert_eq!(check(&value(Value::BoolValue(false))), [0x10, 0]);
    assert_eq!(check(&value(Value::IntValue(0))), [0x18, 0]);
    assert_eq!(check(&value(Value::DoubleValue(-0.0))), [0x21, 0, 0, 0, 0, 0, 0, 0, 0x80]);
    assert_eq!(check(&value(Value::BytesValue(Vec::new()))), [0x3a, 0]);
    assert_eq!(check(&value(Value::StringValueStrindex(0))), [0x40, 0]);
    assert_eq!(check(&AnyValue { value: None }), []);
}

#[test]
fn negative_numbers_take_ten_bytes() {
    assert_eq!(check(&value(Value::IntValue(-1))).len(), 11);
    assert_eq!(check(&value(Value::StringValueStrindex(-1))).len(), 11);
    assert_eq!(check(&value(Value::StringValueStrindex(i32::MIN))).len(), 11);
}

#[test]
fn strings_of_every_length_of_length() {
    for len in [0, 1, 127, 128, 16_383, 16_384, 3_000_000] {
        let header = check(&value(Value::StringValue("x".repeat(len)))).len() - len;
        assert_eq!(
            header,
            1 + [1, 128, 16_384, 2_097_152].iter().filter(|&&least| len >= least || least == 1).count()
        );
    }
}

#[test]
fn an_empty_request_is_no_bytes() {
    let mut writer = Writer::new();
    assert_eq!(metrics::encode(&mut writer, &Default::default()), []);
    assert_eq!(trace::encode(&mut writer, &Default::default()), []);
    assert_eq!(logs::encode(&mut writer, &Default::default()), []);
    assert_eq!(profiles::encode(&mut writer, &Default::default()), []);
}
