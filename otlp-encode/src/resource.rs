//! `opentelemetry/proto/resource/v1/resource.proto` (OTLP 1.11).

use crate::common::{EntityRef, KeyValue};
use crate::message;

message! {
    /// What the telemetry is about.
    pub struct Resource {
        /// The attributes; keys are unique.
        attributes: repeated<KeyValue> = 1,
        /// How many attributes were discarded.
        dropped_attributes_count: uint32 = 2,
        /// The entities that the attributes describe.
        entity_refs: repeated<EntityRef> = 3,
    }
}
