//! `message!`: a proto message as a type whose methods write its fields.

/// Declares a protobuf message: a type with one method a field, which writes that field.
///
/// ```
/// otlp_encode::message! {
///     /// `message Point { string label = 1; repeated int64 values = 2; repeated Point next = 3; }`
///     pub struct Point {
///         /// What it is called.
///         label: string = 1,
///         /// What was measured.
///         values: packed_int64 = 2,
///         /// Where it leads to.
///         next: repeated<Point> = 3,
///     }
/// }
///
/// let mut writer = otlp_encode::wire::Writer::new();
/// let bytes = Point::encode(&mut writer, |point| {
///     point.next(["a", "b"], |next, label| next.label(label));
///     point.values([1, 2]);
/// });
/// assert_eq!(bytes, [0x12, 2, 1, 2, 0x1a, 3, 0x0a, 1, b'a', 0x1a, 3, 0x0a, 1, b'b']);
/// ```
///
/// Fields are declared in ascending order and written in descending order. Kinds:
/// - `int32` (enums too), `int64`, `uint32`, `uint64`, `sint32`, `fixed32`, `fixed64`, `bool`, `double`, `string`, `bytes`,
///   `id` (`bytes` that JSON shows as hexadecimal): the default value is left out, as in proto3;
/// - `explicit_` in front of `int32`, `int64`, `bool`, `double`, `string`, `bytes`: always written (members of a `oneof`,
///   `optional` fields);
/// - `oneof_sfixed64<P>`: always written, in the place of field `P`, the first of its `oneof`: other encoders keep the members
///   of a `oneof` together;
/// - `packed_int32`, `packed_int64`, `packed_uint64` take anything that iterates backwards, `packed_fixed64` and `packed_double` a slice;
/// - `repeated_string` takes anything that iterates backwards; elements stay in order;
/// - `message<M>` takes a closure that fills the nested message;
/// - `repeated<M>` takes what to iterate over and a closure that fills one nested message from one element.
#[macro_export]
macro_rules! message {
    ($(#[$doc:meta])* $vis:vis struct $name:ident {
        $($(#[$field_doc:meta])* $field:ident: $kind:ident $(<$nested:tt>)? = $number:literal,)*
    }) => {
        $(#[$doc])*
        #[derive(Debug)]
        $vis struct $name<'w>($crate::wire::Fields<'w>);

        #[allow(dead_code, reason = "few messages are outermost, or read back")]
        impl<'w> $name<'w> {
            /// Clears `writer` and writes this message as the outermost one.
            $vis fn encode(writer: &mut $crate::wire::Writer, fill: impl FnOnce(&mut $name<'_>)) -> &[u8] {
                writer.clear();
                fill(&mut $name(writer.fields()));
                writer.as_bytes()
            }

            /// The table by which encoded bytes of this message are read back.
            $vis fn descriptor() -> &'static $crate::descriptor::Descriptor {
                const DESCRIPTOR: $crate::descriptor::Descriptor = $crate::descriptor::Descriptor {
                    fields: &[$($crate::descriptor::Field {
                        number: $number,
                        position: $crate::message!(@position $number, $kind $($nested)?),
                        name: stringify!($field),
                        label: $crate::message!(@label $kind),
                        kind: $crate::message!(@kind $kind $($nested)?),
                    }),*],
                };
                &DESCRIPTOR
            }

            /// The fields by their numbers.
            $vis fn fields(&mut self) -> &mut $crate::wire::Fields<'w> {
                &mut self.0
            }

            /// How many bytes were written so far, of the outermost message.
            $vis fn written(&self) -> usize {
                self.0.written()
            }

            $($crate::message!(@method $vis, $field, $number, $kind $($nested)?, $(#[$field_doc])*);)*
        }

        impl<'w> From<$crate::wire::Fields<'w>> for $name<'w> {
            fn from(fields: $crate::wire::Fields<'w>) -> Self {
                Self(fields)
            }
        }
    };

    (@position $number:literal, oneof_sfixed64 $position:literal) => { $position };
    (@position $number:literal, $kind:ident $($nested:ident)?) => { $number };

    (@label message) => { $crate::descriptor::Label::Single };
    (@label repeated) => { $crate::descriptor::Label::Repeated };
    (@label repeated_string) => { $crate::descriptor::Label::Repeated };
    (@label packed_int32) => { $crate::descriptor::Label::Packed };
    (@label packed_int64) => { $crate::descriptor::Label::Packed };
    (@label packed_uint64) => { $crate::descriptor::Label::Packed };
    (@label packed_fixed64) => { $crate::descriptor::Label::Packed };
    (@label packed_double) => { $crate::descriptor::Label::Packed };
    (@label $scalar:ident) => { $crate::descriptor::Label::Single };

    (@kind message $nested:ident) => { $crate::descriptor::Kind::Message($nested::descriptor) };
    (@kind repeated $nested:ident) => { $crate::descriptor::Kind::Message($nested::descriptor) };
    (@kind int32) => { $crate::descriptor::Kind::Int32 };
    (@kind explicit_int32) => { $crate::descriptor::Kind::Int32 };
    (@kind packed_int32) => { $crate::descriptor::Kind::Int32 };
    (@kind int64) => { $crate::descriptor::Kind::Int64 };
    (@kind explicit_int64) => { $crate::descriptor::Kind::Int64 };
    (@kind packed_int64) => { $crate::descriptor::Kind::Int64 };
    (@kind uint32) => { $crate::descriptor::Kind::Uint32 };
    (@kind uint64) => { $crate::descriptor::Kind::Uint64 };
    (@kind packed_uint64) => { $crate::descriptor::Kind::Uint64 };
    (@kind sint32) => { $crate::descriptor::Kind::Sint32 };
    (@kind fixed32) => { $crate::descriptor::Kind::Fixed32 };
    (@kind oneof_sfixed64 $position:literal) => { $crate::descriptor::Kind::Sfixed64 };
    (@kind fixed64) => { $crate::descriptor::Kind::Fixed64 };
    (@kind packed_fixed64) => { $crate::descriptor::Kind::Fixed64 };
    (@kind bool) => { $crate::descriptor::Kind::Bool };
    (@kind explicit_bool) => { $crate::descriptor::Kind::Bool };
    (@kind double) => { $crate::descriptor::Kind::Double };
    (@kind packed_double) => { $crate::descriptor::Kind::Double };
    (@kind explicit_double) => { $crate::descriptor::Kind::Double };
    (@kind string) => { $crate::descriptor::Kind::String };
    (@kind explicit_string) => { $crate::descriptor::Kind::String };
    (@kind repeated_string) => { $crate::descriptor::Kind::String };
    (@kind bytes) => { $crate::descriptor::Kind::Bytes };
    (@kind explicit_bytes) => { $crate::descriptor::Kind::Bytes };
    (@kind id) => { $crate::descriptor::Kind::Id };

    (@method $vis:vis, $field:ident, $number:literal, int32, $(#[$doc:meta])*) => {
        $crate::message!(@implicit $vis, $field, $number, int32, i32, 0, $(#[$doc])*);
    };
    (@method $vis:vis, $field:ident, $number:literal, int64, $(#[$doc:meta])*) => {
        $crate::message!(@implicit $vis, $field, $number, int64, i64, 0, $(#[$doc])*);
    };
    (@method $vis:vis, $field:ident, $number:literal, uint32, $(#[$doc:meta])*) => {
        $crate::message!(@implicit $vis, $field, $number, uint32, u32, 0, $(#[$doc])*);
    };
    (@method $vis:vis, $field:ident, $number:literal, uint64, $(#[$doc:meta])*) => {
        $crate::message!(@implicit $vis, $field, $number, uint64, u64, 0, $(#[$doc])*);
    };
    (@method $vis:vis, $field:ident, $number:literal, fixed64, $(#[$doc:meta])*) => {
        $crate::message!(@implicit $vis, $field, $number, fixed64, u64, 0, $(#[$doc])*);
    };
    (@method $vis:vis, $field:ident, $number:literal, sint32, $(#[$doc:meta])*) => {
        $crate::message!(@implicit $vis, $field, $number, sint32, i32, 0, $(#[$doc])*);
    };
    (@method $vis:vis, $field:ident, $number:literal, fixed32, $(#[$doc:meta])*) => {
        $crate::message!(@implicit $vis, $field, $number, fixed32, u32, 0, $(#[$doc])*);
    };
    (@method $vis:vis, $field:ident, $number:literal, bool, $(#[$doc:meta])*) => {
        $crate::message!(@implicit $vis, $field, $number, bool, bool, false, $(#[$doc])*);
    };
    (@method $vis:vis, $field:ident, $number:literal, double, $(#[$doc:meta])*) => {
        $crate::message!(@implicit $vis, $field, $number, double, f64, 0.0, $(#[$doc])*);
    };
    (@method $vis:vis, $field:ident, $number:literal, string, $(#[$doc:meta])*) => {
        $crate::message!(@implicit $vis, $field, $number, string, &str, "", $(#[$doc])*);
    };
    (@method $vis:vis, $field:ident, $number:literal, bytes, $(#[$doc:meta])*) => {
        $crate::message!(@implicit $vis, $field, $number, bytes, &[u8], b"", $(#[$doc])*);
    };
    (@method $vis:vis, $field:ident, $number:literal, id, $(#[$doc:meta])*) => {
        $crate::message!(@implicit $vis, $field, $number, bytes, &[u8], b"", $(#[$doc])*);
    };
    (@implicit $vis:vis, $field:ident, $number:literal, $write:ident, $type:ty, $default:expr, $(#[$doc:meta])*) => {
        $(#[$doc])*
        #[inline]
        $vis fn $field(&mut self, value: $type) {
            if value != $default {
                self.0.$write($number, value);
            }
        }
    };

    (@method $vis:vis, $field:ident, $number:literal, explicit_int32, $(#[$doc:meta])*) => {
        $crate::message!(@explicit $vis, $field, $number, int32, i32, $(#[$doc])*);
    };
    (@method $vis:vis, $field:ident, $number:literal, explicit_int64, $(#[$doc:meta])*) => {
        $crate::message!(@explicit $vis, $field, $number, int64, i64, $(#[$doc])*);
    };
    (@method $vis:vis, $field:ident, $number:literal, explicit_bool, $(#[$doc:meta])*) => {
        $crate::message!(@explicit $vis, $field, $number, bool, bool, $(#[$doc])*);
    };
    (@method $vis:vis, $field:ident, $number:literal, explicit_double, $(#[$doc:meta])*) => {
        $crate::message!(@explicit $vis, $field, $number, double, f64, $(#[$doc])*);
    };
    (@method $vis:vis, $field:ident, $number:literal, explicit_string, $(#[$doc:meta])*) => {
        $crate::message!(@explicit $vis, $field, $number, string, &str, $(#[$doc])*);
    };
    (@method $vis:vis, $field:ident, $number:literal, explicit_bytes, $(#[$doc:meta])*) => {
        $crate::message!(@explicit $vis, $field, $number, bytes, &[u8], $(#[$doc])*);
    };
    (@method $vis:vis, $field:ident, $number:literal, oneof_sfixed64 $position:literal, $(#[$doc:meta])*) => {
        $(#[$doc])*
        #[inline]
        $vis fn $field(&mut self, value: i64) {
            self.0.sfixed64_at($position, $number, value);
        }
    };
    (@explicit $vis:vis, $field:ident, $number:literal, $write:ident, $type:ty, $(#[$doc:meta])*) => {
        $(#[$doc])*
        #[inline]
        $vis fn $field(&mut self, value: $type) {
            self.0.$write($number, value);
        }
    };

    (@method $vis:vis, $field:ident, $number:literal, packed_int32, $(#[$doc:meta])*) => {
        $crate::message!(@packed $vis, $field, $number, i32, $(#[$doc])*);
    };
    (@method $vis:vis, $field:ident, $number:literal, packed_int64, $(#[$doc:meta])*) => {
        $crate::message!(@packed $vis, $field, $number, i64, $(#[$doc])*);
    };
    (@method $vis:vis, $field:ident, $number:literal, packed_uint64, $(#[$doc:meta])*) => {
        $crate::message!(@packed $vis, $field, $number, u64, $(#[$doc])*);
    };
    (@packed $vis:vis, $field:ident, $number:literal, $type:ty, $(#[$doc:meta])*) => {
        $(#[$doc])*
        #[inline]
        $vis fn $field<I>(&mut self, values: I)
        where
            I: IntoIterator<Item = $type>,
            I::IntoIter: DoubleEndedIterator,
        {
            // Sign extension, as the format wants of a negative number.
            self.0.packed_varint($number, values.into_iter().map(|value| value as u64));
        }
    };
    (@method $vis:vis, $field:ident, $number:literal, packed_fixed64, $(#[$doc:meta])*) => {
        $(#[$doc])*
        #[inline]
        $vis fn $field(&mut self, values: &[u64]) {
            self.0.packed_fixed64($number, values);
        }
    };
    (@method $vis:vis, $field:ident, $number:literal, packed_double, $(#[$doc:meta])*) => {
        $(#[$doc])*
        #[inline]
        $vis fn $field(&mut self, values: &[f64]) {
            self.0.packed_double($number, values);
        }
    };

    (@method $vis:vis, $field:ident, $number:literal, repeated_string, $(#[$doc:meta])*) => {
        $(#[$doc])*
        #[inline]
        $vis fn $field<'a, I>(&mut self, values: I)
        where
            I: IntoIterator<Item = &'a str>,
            I::IntoIter: DoubleEndedIterator,
        {
            for value in values.into_iter().rev() {
                self.0.string($number, value);
            }
        }
    };
    (@method $vis:vis, $field:ident, $number:literal, message $nested:ident, $(#[$doc:meta])*) => {
        $(#[$doc])*
        #[inline]
        $vis fn $field(&mut self, fill: impl FnOnce(&mut $nested<'_>)) {
            self.0.message($number, |fields| fill(&mut $nested::from(fields)));
        }
    };
    (@method $vis:vis, $field:ident, $number:literal, repeated $nested:ident, $(#[$doc:meta])*) => {
        $(#[$doc])*
        #[inline]
        $vis fn $field<I>(&mut self, items: I, mut fill: impl FnMut(&mut $nested<'_>, I::Item))
        where
            I: IntoIterator,
            I::IntoIter: DoubleEndedIterator,
        {
            for item in items.into_iter().rev() {
                self.0.message($number, |fields| fill(&mut $nested::from(fields), item));
            }
        }
    };
}
