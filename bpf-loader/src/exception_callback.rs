//! Functions that a program names as its exception callback (`bpf_throw`, Linux 6.7): no instruction refers to them, but a
//! tag `exception_callback:NAME` of the program's function in BTF. The verifier wants them among the program's functions.

use std::collections::HashMap;

use crate::btf::{Btf, Kind};
use crate::elf::SectionIdx;
use crate::error::{Error, Result};
use crate::fuel::Fuel;
use crate::object::{Function, FunctionIdx};

const TAG: &[u8] = b"exception_callback:";

/// The callback of each program that has one, or why it cannot be. Of a program that names two there is none, and the
/// verifier will say so.
pub(crate) fn find(
    btf: &Btf<'_>,
    functions: &[Function<'_>],
    text: Option<SectionIdx>,
) -> HashMap<FunctionIdx, Result<Option<FunctionIdx>>> {
    let mut callbacks = HashMap::new();
    let mut tags = btf
        .types_of(Kind::DeclTag)
        .filter(|tag| tag.component() == Some(-1) && tag.name_tail().starts_with(TAG))
        .peekable();
    if tags.peek().is_none() {
        return callbacks;
    }
    let named = |in_text: bool| {
        let functions = functions.iter().zip(0..).filter(move |(f, _)| (Some(f.section) == text) == in_text);
        functions.map(|(f, i)| (f.name.as_bytes(), FunctionIdx(i))).collect::<HashMap<_, _>>()
    };
    let (programs, subprograms) = (named(false), named(true));
    // Names may be as long as the file, and shared by all tags.
    let mut fuel = Fuel::OBJECT.clone();
    for tag in tags {
        let Ok(tagged) = btf.type_by_id(tag.referred()) else { continue };
        let names =
            fuel.name(btf, tagged.name_offset()).and_then(|f| Ok((f, fuel.name(btf, tag.name_offset())?)));
        let Ok((program, callback)) = names else { continue };
        let Some(&program) = programs.get(program).filter(|_| tagged.kind() == Kind::Func) else { continue };
        let name = callback.get(TAG.len()..).unwrap_or_default();
        let callback = subprograms.get(name).copied();
        let global = callback.filter(|f| functions.get(f.0 as usize).is_some_and(|f| f.global));
        let found = global.map(Some).ok_or_else(|| Error::ExceptionCallback {
            name: crate::error::excerpt(&String::from_utf8_lossy(name)),
        });
        callbacks.entry(program).and_modify(|first| *first = Ok(None)).or_insert(found);
    }
    callbacks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btf::Linkage;
    use crate::btf::encode::Builder;
    use crate::bytes::Endian;

    #[test]
    fn a_tag_of_the_program_names_a_global_function() {
        let mut b = Builder::new(Endian::Little);
        let int = b.int("int", 4, 1);
        let prototype = b.prototype(int, &[]);
        for (program, tags) in [
            ("one", &["exception_callback:callback"][..]),
            ("none", &["other"]),
            ("two", &["exception_callback:callback", "exception_callback:callback"]),
            ("wrong", &["exception_callback:hidden"]),
            ("missing", &["exception_callback:"]),
        ] {
            let function = b.function(program, prototype, Linkage::Global);
            for tag in tags {
                b.decl_tag(tag, function, -1);
            }
        }
        let btf = Btf::parse(b.build()).unwrap();
        let function =
            |name, section, global| Function { name, section: SectionIdx(section), insns: 0..1, global };
        let functions = [
            function("one", 1, true),
            function("none", 1, true),
            function("two", 1, true),
            function("wrong", 1, true),
            function("missing", 1, true),
            function("callback", 2, true),
            function("hidden", 2, false),
        ];
        let found = find(&btf, &functions, Some(SectionIdx(2)));
        let error = |name: &str| Err(Error::ExceptionCallback { name: name.into() });
        let expected = [
            (FunctionIdx(0), Ok(Some(FunctionIdx(5)))),
            (FunctionIdx(2), Ok(None)),
            (FunctionIdx(3), error("hidden")),
            (FunctionIdx(4), error("")),
        ];
        assert_eq!(found, HashMap::from(expected));
    }
}
