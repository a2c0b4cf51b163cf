//! `opentelemetry/proto/profiles/v1development/profiles.proto` and its collector service (OTLP 1.11).
//!
//! These types write any table contents, valid or not. [`Dictionary`](crate::Dictionary) and
//! [`ProfilesRequest`](crate::ProfilesRequest) on top of them write valid messages only.

use crate::common::{AnyValue, InstrumentationScope};
use crate::message;
use crate::resource::Resource;

message! {
    /// The body of `POST /v1development/profiles`. `ProfilesData` has the same fields.
    pub struct ExportProfilesServiceRequest {
        /// Profiles, by resource.
        resource_profiles: repeated<ResourceProfiles> = 1,
        /// What all of them refer to.
        dictionary: message<ProfilesDictionary> = 2,
    }
}

message! {
    /// The tables that profiles refer to; entry 0 of each is the zero value.
    pub struct ProfilesDictionary {
        /// Referred to by `Location.mapping_index`.
        mapping_table: repeated<Mapping> = 1,
        /// Referred to by `Stack.location_indices`.
        location_table: repeated<Location> = 2,
        /// Referred to by `Line.function_index`.
        function_table: repeated<Function> = 3,
        /// Referred to by `Sample.link_index`.
        link_table: repeated<Link> = 4,
        /// Referred to by every `..._strindex`.
        string_table: repeated_string = 5,
        /// Referred to by every `attribute_indices`.
        attribute_table: repeated<KeyValueAndUnit> = 6,
        /// Referred to by `Sample.stack_index`.
        stack_table: repeated<Stack> = 7,
    }
}

message! {
    /// The profiles of one resource.
    pub struct ResourceProfiles {
        /// The resource.
        resource: message<Resource> = 1,
        /// Its profiles, by scope.
        scope_profiles: repeated<ScopeProfiles> = 2,
        /// The schema that the resource's attributes follow.
        schema_url: string = 3,
    }
}

message! {
    /// The profiles of one scope.
    pub struct ScopeProfiles {
        /// What produced them.
        scope: message<InstrumentationScope> = 1,
        /// The profiles.
        profiles: repeated<Profile> = 2,
        /// The schema that the profiles' attributes follow.
        schema_url: string = 3,
    }
}

message! {
    /// Samples of one type in one time range.
    pub struct Profile {
        /// Type and unit of all values.
        sample_type: message<ValueType> = 1,
        /// The samples.
        samples: repeated<Sample> = 2,
        /// Start of the time range, nanoseconds since the Unix epoch.
        time_unix_nano: fixed64 = 3,
        /// Length of the time range.
        duration_nano: uint64 = 4,
        /// Type and unit of `period`.
        period_type: message<ValueType> = 5,
        /// Distance between two sampled events.
        period: int64 = 6,
        /// 16 bytes that no other profile has.
        profile_id: id = 7,
        /// How many attributes were discarded.
        dropped_attributes_count: uint32 = 8,
        /// The format of `original_payload`; both or none.
        original_payload_format: string = 9,
        /// The profile in the format that it was converted from.
        original_payload: bytes = 10,
        /// Attributes of the profile, in `attribute_table`.
        attribute_indices: packed_int32 = 11,
    }
}

message! {
    /// A span that a sample was taken in.
    pub struct Link {
        /// 16 bytes.
        trace_id: id = 1,
        /// 8 bytes.
        span_id: id = 2,
    }
}

message! {
    /// Type and unit of a value.
    pub struct ValueType {
        /// The type, in `string_table`.
        type_strindex: int32 = 1,
        /// The unit, in `string_table`.
        unit_strindex: int32 = 2,
    }
}

message! {
    /// What was seen with one stack, one set of attributes and one link.
    pub struct Sample {
        /// In `stack_table`.
        stack_index: int32 = 1,
        /// In `attribute_table`.
        attribute_indices: packed_int32 = 2,
        /// In `link_table`.
        link_index: int32 = 3,
        /// One value an event, or one for all.
        values: packed_int64 = 4,
        /// One an event, nanoseconds since the Unix epoch.
        timestamps_unix_nano: packed_fixed64 = 5,
    }
}

message! {
    /// A file mapped into memory.
    pub struct Mapping {
        /// First address.
        memory_start: uint64 = 1,
        /// First address past it.
        memory_limit: uint64 = 2,
        /// Offset in the file of the first address.
        file_offset: uint64 = 3,
        /// The file, in `string_table`.
        filename_strindex: int32 = 4,
        /// In `attribute_table`.
        attribute_indices: packed_int32 = 5,
    }
}

message! {
    /// A call stack.
    pub struct Stack {
        /// In `location_table`, leaf first.
        location_indices: packed_int32 = 1,
    }
}

message! {
    /// A place in code.
    pub struct Location {
        /// In `mapping_table`.
        mapping_index: int32 = 1,
        /// The instruction's address.
        address: uint64 = 2,
        /// The functions it lies in, innermost inlined one first.
        lines: repeated<Line> = 3,
        /// In `attribute_table`.
        attribute_indices: packed_int32 = 4,
    }
}

message! {
    /// A line of a function's source.
    pub struct Line {
        /// In `function_table`.
        function_index: int32 = 1,
        /// Line number, 0 if unknown.
        line: int64 = 2,
        /// Column number, 0 if unknown.
        column: int64 = 3,
    }
}

message! {
    /// A function.
    pub struct Function {
        /// The name, in `string_table`.
        name_strindex: int32 = 1,
        /// The name as the system has it, in `string_table`.
        system_name_strindex: int32 = 2,
        /// The source file, in `string_table`.
        filename_strindex: int32 = 3,
        /// First line, 0 if unknown.
        start_line: int64 = 4,
    }
}

message! {
    /// An attribute of the tables.
    pub struct KeyValueAndUnit {
        /// The name, in `string_table`.
        key_strindex: int32 = 1,
        /// The value.
        value: message<AnyValue> = 2,
        /// The unit, in `string_table`.
        unit_strindex: int32 = 3,
    }
}
