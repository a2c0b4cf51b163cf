//! What can go wrong.

use core::fmt;

/// A table of the profiles dictionary; its value is its field number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// `mapping_table`
    Mapping = 1,
    /// `location_table`
    Location = 2,
    /// `function_table`
    Function = 3,
    /// `link_table`
    Link = 4,
    /// `string_table`
    String = 5,
    /// `attribute_table`
    Attribute = 6,
    /// `stack_table`
    Stack = 7,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mapping => "mapping_table",
            Self::Location => "location_table",
            Self::Function => "function_table",
            Self::Link => "link_table",
            Self::String => "string_table",
            Self::Attribute => "attribute_table",
            Self::Stack => "stack_table",
        })
    }
}

/// Why an item or a request is not valid, or why bytes could not be read back as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A sample needs as many values as timestamps, or timestamps alone, or exactly one value.
    SampleShape {
        /// How many values it had.
        values: usize,
        /// How many timestamps it had.
        timestamps: usize,
    },
    /// One profile has samples with and without values, or with and without timestamps.
    MixedSampleShapes,
    /// A sample's timestamp lies outside its profile's time range.
    Timestamp {
        /// The timestamp.
        timestamp: u64,
        /// The first instant of the range.
        start: u64,
        /// The first instant past the range.
        end: u64,
    },
    /// A list of attributes has two with the same key.
    DuplicateKey {
        /// The first of the two attributes.
        first: u32,
        /// The second.
        second: u32,
    },
    /// A mapping must be `0..0`, or start below its limit.
    MappingRange {
        /// `memory_start`.
        start: u64,
        /// `memory_limit`.
        limit: u64,
    },
    /// An index of another dictionary, or of an earlier [`Epoch`](crate::Epoch).
    UnknownIndex {
        /// The table it was used for.
        table: Table,
        /// The index.
        index: u32,
    },
    /// An entry that nothing refers to.
    Unreferenced {
        /// The table it is in.
        table: Table,
        /// Its index.
        index: u32,
    },
    /// A table has 2^31 entries, or 4 GiB.
    TableFull {
        /// The table.
        table: Table,
    },
    /// A field that must not be empty, or an id or a time that must not be zero.
    Empty {
        /// The field.
        field: &'static str,
    },
    /// A list of attributes, or a map, has a key twice.
    DuplicateAttribute,
    /// An entity refers to an attribute that its resource does not have.
    UnknownKey,
    /// Lists and maps within a value, nested deeper than [`MAX_VALUE_DEPTH`](crate::MAX_VALUE_DEPTH).
    ValueDepth,
    /// A number that its field does not allow.
    OutOfRange {
        /// The field.
        field: &'static str,
    },
    /// Numbers that must ascend and do not: a list, or an end before its start.
    NotAscending {
        /// The list, or the end.
        field: &'static str,
    },
    /// A histogram has one bucket more than bounds, or none of both.
    BucketCount {
        /// How many bounds.
        bounds: usize,
        /// How many buckets.
        buckets: usize,
    },
    /// A histogram's count is not the sum of its buckets.
    Count {
        /// The count.
        count: u64,
        /// The sum.
        buckets: u64,
    },
    /// Counts of buckets that add up to more than 64 bits hold, or a bucket's index beyond 32 bits.
    Overflow {
        /// The field.
        field: &'static str,
    },
    /// An item that takes more than [`Limits::MAX_BYTES`](crate::Limits::MAX_BYTES), with its resource and so on.
    TooLarge {
        /// How many bytes it takes.
        bytes: usize,
    },
    /// Encoded bytes end in the middle of a field.
    Truncated {
        /// Where the bytes run out.
        offset: usize,
    },
    /// A varint of more than 64 bits.
    Varint {
        /// Where it starts.
        offset: usize,
    },
    /// A field that the message does not have.
    UnknownField {
        /// Where its header starts.
        offset: usize,
        /// Its number.
        field: u64,
    },
    /// A field whose wire type is not the one that its type asks for.
    WireType {
        /// Where its header starts.
        offset: usize,
        /// Its number.
        field: u32,
    },
    /// A field after one with a higher number, or twice where once is allowed: the bytes are not canonical.
    FieldOrder {
        /// Where its header starts.
        offset: usize,
        /// Its number.
        field: u32,
    },
    /// A string that is not UTF-8.
    Utf8 {
        /// The first byte that is wrong.
        offset: usize,
    },
    /// Messages nested deeper than [`json::MAX_DEPTH`](crate::json::MAX_DEPTH).
    Depth {
        /// Where the message that is too deep starts.
        offset: usize,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SampleShape { values, timestamps } => write!(
                f,
                "sample with {values} values and {timestamps} timestamps: as many of each, timestamps alone or one \
                 value alone"
            ),
            Self::MixedSampleShapes => {
                f.write_str("samples of one profile must all have values, timestamps or both")
            }
            Self::Timestamp { timestamp, start, end } => {
                write!(f, "sample timestamp {timestamp} is outside the profile's range [{start}, {end})")
            }
            Self::DuplicateKey { first, second } => {
                write!(f, "attributes {first} and {second} of one list have the same key")
            }
            Self::MappingRange { start, limit } => {
                write!(f, "mapping from {start:#x} to {limit:#x}: neither empty nor ascending")
            }
            Self::UnknownIndex { table, index } => write!(f, "index {index} is not in this {table}"),
            Self::Unreferenced { table, index } => write!(f, "nothing refers to entry {index} of {table}"),
            Self::TableFull { table } => write!(f, "{table} is full"),
            Self::Empty { field } => write!(f, "{field} is empty"),
            Self::DuplicateAttribute => f.write_str("attributes have a key twice"),
            Self::UnknownKey => {
                f.write_str("an entity refers to an attribute that its resource does not have")
            }
            Self::ValueDepth => f.write_str("lists and maps of an attribute are nested too deeply"),
            Self::OutOfRange { field } => write!(f, "{field} is out of range"),
            Self::NotAscending { field } => write!(f, "{field} does not ascend"),
            Self::BucketCount { bounds, buckets } => {
                write!(f, "{buckets} buckets for {bounds} bounds: one more than bounds, or none of both")
            }
            Self::Count { count, buckets } => {
                write!(f, "count is {count}, but the buckets add up to {buckets}")
            }
            Self::Overflow { field } => write!(f, "{field} overflows"),
            Self::TooLarge { bytes } => write!(f, "an item takes {bytes} bytes, more than a request may"),
            Self::Truncated { offset } => write!(f, "message ends in the middle of a field at byte {offset}"),
            Self::Varint { offset } => write!(f, "varint longer than 64 bits at byte {offset}"),
            Self::UnknownField { offset, field } => write!(f, "unknown field {field} at byte {offset}"),
            Self::WireType { offset, field } => {
                write!(f, "wrong wire type for field {field} at byte {offset}")
            }
            Self::FieldOrder { offset, field } => write!(f, "field {field} out of order at byte {offset}"),
            Self::Utf8 { offset } => write!(f, "string is not UTF-8 at byte {offset}"),
            Self::Depth { offset } => write!(f, "messages nested too deeply at byte {offset}"),
        }
    }
}

impl core::error::Error for Error {}
