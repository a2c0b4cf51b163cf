//! Exception callbacks: functions that nothing calls, which a program names by a tag in BTF to be run when it throws.

use crate::ALL_OBJECTS;
use crate::btf::{Btf, Kind, Linkage, Type};
use crate::error::{Error, Result, excerpt};
use crate::fuel::Fuel;
use crate::object::{Function, FunctionIdx};
use crate::sorted::SortedMap;

/// What the tag begins with; the callback's name follows.
const TAG: &[u8] = b"exception_callback:";

/// The callbacks of an object's programs.
#[derive(Default)]
pub(crate) struct ExceptionCallbacks<'a> {
    /// By the program's name; `None` where there are several, which the verifier will refuse with a word on it.
    named: SortedMap<&'a str, Option<Result<FunctionIdx>>>,
}

impl<'a> ExceptionCallbacks<'a> {
    /// Looks the tags up. `may_be` says whether a function is a subprogram.
    pub fn collect(
        btf: &Btf<'_>,
        functions: &[Function<'a>],
        may_be: impl Fn(&Function<'a>) -> bool,
    ) -> Self {
        let mut all = Self::default();
        if !ALL_OBJECTS {
            return all;
        }
        let is_callback = |tag: &Type<'_>| tag.component() == Some(-1) && tag.name_tail().starts_with(TAG);
        let mut tags = btf.types_of(Kind::DeclTag).filter(is_callback).peekable();
        if tags.peek().is_none() {
            return all;
        }
        let programs: SortedMap<&[u8], &'a str> =
            functions.iter().map(|f| (f.name.as_bytes(), f.name)).collect();
        let callbacks = functions.iter().zip(0..).filter(|(f, _)| f.global && may_be(f));
        let callbacks: SortedMap<&[u8], FunctionIdx> =
            callbacks.map(|(f, i)| (f.name.as_bytes(), FunctionIdx(i))).collect();
        // Names may be as long as the file, and shared by all tags.
        let mut fuel = Fuel::OBJECT.clone();
        for tag in tags {
            let Ok(of) = btf.type_by_id(tag.referred()) else { continue };
            let mut name = |ty: &Type<'_>| fuel.name(btf, ty.name_offset()).ok();
            let (Some(Linkage::Global), Some(program)) = (of.func_linkage(), name(&of)) else { continue };
            let (Some(&program), Some(callback)) = (programs.get(program), name(&tag)) else { continue };
            let callback = callback.get(TAG.len()..).unwrap_or_default();
            let found = callbacks.get(callback).copied().ok_or_else(|| {
                let callback = excerpt(&String::from_utf8_lossy(callback));
                Box::new(Error::ExceptionCallback { callback })
            });
            // Two are none.
            let only = if all.named.contains_key(program) { None } else { Some(found) };
            all.named.insert(program, only);
        }
        all
    }

    /// The callback of a program, if it has one.
    ///
    /// # Errors
    ///
    /// It is no global function outside the sections of programs.
    pub fn of(&self, program: &str) -> Result<Option<FunctionIdx>> {
        self.named.get(program).cloned().flatten().transpose()
    }
}

#[cfg(all(test, feature = "all-objects"))]
mod tests {
    use super::*;
    use crate::btf::BtfId;
    use crate::btf::encode::Builder;
    use crate::bytes::Endian;
    use crate::elf::SectionIdx;

    #[test]
    fn tags_name_global_functions() {
        let mut b = Builder::new(Endian::Little);
        let prototype = b.prototype(BtfId::VOID, &[]);
        let mut program = |name, linkage, callbacks: &[&str]| {
            let function = b.function(name, prototype, linkage);
            for callback in callbacks {
                b.decl_tag(&format!("exception_callback:{callback}"), function, -1);
            }
        };
        program("one", Linkage::Global, &["handler"]);
        program("two", Linkage::Global, &["handler", "other"]);
        program("none", Linkage::Global, &[]);
        program("private", Linkage::Static, &["handler"]);
        program("lost", Linkage::Global, &["hidden"]);
        let btf = Btf::parse(b.build()).unwrap();
        let function =
            |name, section, global| Function { name, section: SectionIdx(section), insns: 0..1, global };
        let subprograms = [function("hidden", 1, false), function("handler", 1, true)];
        let programs = ["one", "two", "none", "private", "lost"].map(|name| function(name, 2, true));
        let functions: Vec<_> = subprograms.into_iter().chain(programs).collect();
        let callbacks = ExceptionCallbacks::collect(&btf, &functions, |f| f.section == SectionIdx(1));

        assert_eq!(callbacks.of("one"), Ok(Some(FunctionIdx(1))));
        for program in ["two", "none", "private", "absent"] {
            assert_eq!(callbacks.of(program), Ok(None), "{program}");
        }
        assert_eq!(
            callbacks.of("lost"),
            Err(Box::new(Error::ExceptionCallback { callback: "hidden".into() }))
        );
    }
}
