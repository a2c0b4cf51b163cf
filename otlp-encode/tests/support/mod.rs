//! Prost messages made up by proptest, and the same messages through this crate.
#![allow(dead_code, reason = "each test program uses a part")]

pub mod common;
pub mod logs;
pub mod metrics;
pub mod profiles;
pub mod trace;

use proptest::collection::vec;
use proptest::prelude::*;

/// Numbers at the edges of varint lengths, zero and negative ones among them.
pub fn int64() -> impl Strategy<Value = i64> {
    prop_oneof![
        Just(0),
        Just(-1),
        Just(i64::MIN),
        Just(i64::MAX),
        (0u32..63).prop_map(|n| 1 << n),
        any::<i64>()
    ]
}

pub fn int32() -> impl Strategy<Value = i32> {
    prop_oneof![Just(0), Just(-1), Just(i32::MIN), 0..300i32, any::<i32>()]
}

fn uint64() -> impl Strategy<Value = u64> {
    int64().prop_map(|value| value as u64)
}

fn uint32() -> impl Strategy<Value = u32> {
    int32().prop_map(|value| value as u32)
}

/// Zeros of both signs, infinities and numbers that are none among them.
pub fn double() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), Just(-0.0), Just(f64::NAN), Just(f64::NEG_INFINITY), any::<f64>()]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), ".{0,12}", "[a-z]{120,136}"]
}

fn few<T: std::fmt::Debug>(items: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    vec(items, 0..4)
}

fn indices() -> impl Strategy<Value = Vec<i32>> {
    vec(int32(), 0..6)
}

fn blob() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..140)
}
