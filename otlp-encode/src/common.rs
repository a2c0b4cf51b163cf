//! `opentelemetry/proto/common/v1/common.proto` (OTLP 1.11).

use crate::message;

message! {
    /// A value of an attribute or a log body: write exactly one field, or none for an empty value.
    pub struct AnyValue {
        /// Text.
        string_value: explicit_string = 1,
        /// A truth value.
        bool_value: explicit_bool = 2,
        /// An integer.
        int_value: explicit_int64 = 3,
        /// A floating-point number.
        double_value: explicit_double = 4,
        /// A list.
        array_value: message<ArrayValue> = 5,
        /// A map.
        kvlist_value: message<KeyValueList> = 6,
        /// Bytes.
        bytes_value: explicit_bytes = 7,
        /// Text, as an index into the string table of a profiles message; undefined in other signals.
        string_value_strindex: explicit_int32 = 8,
    }
}

message! {
    /// A list of values.
    pub struct ArrayValue {
        /// The values.
        values: repeated<AnyValue> = 1,
    }
}

message! {
    /// A map of values.
    pub struct KeyValueList {
        /// The entries; keys are unique.
        values: repeated<KeyValue> = 1,
    }
}

message! {
    /// An attribute.
    pub struct KeyValue {
        /// The name; empty where `key_strindex` is used.
        key: string = 1,
        /// The value.
        value: message<AnyValue> = 2,
        /// The name, as an index into the string table of a profiles message; undefined in other signals.
        key_strindex: int32 = 3,
    }
}

impl KeyValue<'_> {
    /// Writes key and value.
    pub fn set(&mut self, key: &str, value: impl FnOnce(&mut AnyValue<'_>)) {
        self.value(value);
        self.key(key);
    }

    /// Writes key and text.
    pub fn string(&mut self, key: &str, value: &str) {
        self.set(key, |any| any.string_value(value));
    }

    /// Writes key and integer.
    pub fn int(&mut self, key: &str, value: i64) {
        self.set(key, |any| any.int_value(value));
    }
}

message! {
    /// What produced the telemetry.
    pub struct InstrumentationScope {
        /// Its name.
        name: string = 1,
        /// Its version.
        version: string = 2,
        /// Its attributes; keys are unique.
        attributes: repeated<KeyValue> = 3,
        /// How many attributes were discarded.
        dropped_attributes_count: uint32 = 4,
    }
}

message! {
    /// Which attributes of a resource identify and describe one entity.
    pub struct EntityRef {
        /// The schema that the entity's type and attributes follow.
        schema_url: string = 1,
        /// The entity's type, such as `service`.
        r#type: string = 2,
        /// Keys of the attributes that identify it.
        id_keys: repeated_string = 3,
        /// Keys of the attributes that describe it.
        description_keys: repeated_string = 4,
    }
}
