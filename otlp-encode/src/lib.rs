//! A hand-written OTLP protobuf encoder: straight from the caller's data to bytes, with no message structs in
//! between and no allocation in steady state.
//!
//! One buffer is filled from its end, fields last to first, so that the length of every nested message is known
//! when its header is written ([`wire`]). The bytes are canonical: the same that other encoders produce for the
//! same message.
//!
//! | layer | for whom |
//! |---|---|
//! | [`ProfilesRequest`] and [`Dictionary`] | whoever exports profiles: what they write is valid, or an error |
//! | [`common`], [`resource`], [`profiles`] | whoever needs a message as the proto files define it, field by field |
//! | [`wire`] and [`message!`] | whoever has protobuf messages of their own |
//! | [`json`] | OTLP JSON, from the encoded bytes of any of these messages |
//!
//! ```
//! use otlp_encode::{ProfileInfo, ProfilesRequest};
//!
//! let mut request = ProfilesRequest::new(0);
//! request.resource_profiles(
//!     "",
//!     |resource| resource.attributes([("service.name", "shop")], |kv, (key, value)| kv.string(key, value)),
//!     |scopes| {
//!         scopes.scope_profiles("", |scope| scope.name("my-profiler"), |profiles| {
//!             let info = ProfileInfo { sample_type: ("samples", "count"), ..ProfileInfo::default() };
//!             profiles.profile(&info, |samples| {
//!                 let dictionary = samples.dictionary();
//!                 let main = dictionary.function("main", "", "main.rs", 0);
//!                 let line = otlp_encode::Line { function: main, line: 3, column: 0 };
//!                 let leaf = dictionary.location(Default::default(), 0x1040, &[line], &[]);
//!                 let stack = dictionary.stack(&[leaf]);
//!                 samples.sample(stack, &[], Default::default(), &[1], &[]);
//!             });
//!         });
//!     },
//! );
//! let bytes = request.finish()?;
//! assert!(!bytes.is_empty());
//! # Ok::<(), otlp_encode::Error>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod attributes;
mod error;
mod message;

pub mod common;
pub mod descriptor;
pub mod dictionary;
pub mod json;
pub mod logs;
pub mod metrics;
pub mod profiles;
mod request;
pub mod resource;
pub mod trace;
pub mod wire;

pub use attributes::{AttributeWriter, Attributes, AttributesBlob, MAX_VALUE_DEPTH, Value};
pub use dictionary::{
    AttributeIdx, Dictionary, FunctionIdx, Line, LinkIdx, LocationIdx, MappingIdx, StackIdx, StringIdx,
};
pub use error::{Error, Table};
pub use request::*;
