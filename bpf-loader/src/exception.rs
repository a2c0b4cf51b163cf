//! Exception callbacks: functions that nothing calls, which a program names by a tag in BTF to be run when it throws.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::btf::{Btf, Kind, Linkage};
use crate::error::{Error, Result, excerpt};
use crate::object::{Function, FunctionIdx};

/// What the tag begins with; the callback's name follows.
const TAG: &str = "exception_callback:";

/// The callbacks of an object's programs.
#[derive(Default)]
pub(crate) struct ExceptionCallbacks<'a> {
    /// By the program's name; `None` where there are several, which the verifier will refuse with a word on it.
    named: HashMap<String, Option<String>>,
    /// Functions that may be callbacks, where any is named at all.
    functions: HashMap<&'a str, FunctionIdx>,
}

impl<'a> ExceptionCallbacks<'a> {
    /// Looks the tags up. `may_be` says whether a function is a subprogram.
    pub fn collect(
        btf: &Btf<'_>,
        functions: &[Function<'a>],
        may_be: impl Fn(&Function<'a>) -> bool,
    ) -> Self {
        let mut all = Self::default();
        for tag in btf.types_of(Kind::DeclTag) {
            if tag.component() != Some(-1) {
                continue;
            }
            let Some(callback) = tag.name().ok().and_then(|name| name.strip_prefix(TAG)) else { continue };
            let Some(Ok(of)) = tag.type_id().map(|id| btf.type_by_id(id)) else { continue };
            let (Some(Linkage::Global), Ok(program)) = (of.func_linkage(), of.name()) else { continue };
            match all.named.entry(program.to_owned()) {
                Entry::Vacant(entry) => drop(entry.insert(Some(callback.to_owned()))),
                Entry::Occupied(mut entry) => drop(entry.insert(None)),
            }
        }
        if !all.named.is_empty() {
            let candidates = functions.iter().enumerate().filter(|(_, f)| f.global && may_be(f));
            all.functions = candidates.map(|(i, f)| (f.name, FunctionIdx(i as u32))).collect();
        }
        all
    }

    /// The callback of a program, if it has one.
    ///
    /// # Errors
    ///
    /// It is no global function outside the sections of programs.
    pub fn of(&self, program: &str) -> Result<Option<FunctionIdx>> {
        let Some(Some(callback)) = self.named.get(program) else { return Ok(None) };
        match self.functions.get(callback.as_str()) {
            Some(function) => Ok(Some(*function)),
            None => Err(Error::ExceptionCallback { callback: excerpt(callback) }),
        }
    }
}

#[cfg(test)]
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
        let functions =
            [function("hidden", 1, false), function("handler", 1, true), function("one", 2, true)];
        let callbacks = ExceptionCallbacks::collect(&btf, &functions, |f| f.section == SectionIdx(1));

        assert_eq!(callbacks.of("one"), Ok(Some(FunctionIdx(1))));
        for program in ["two", "none", "private", "absent"] {
            assert_eq!(callbacks.of(program), Ok(None), "{program}");
        }
        assert_eq!(callbacks.of("lost"), Err(Error::ExceptionCallback { callback: "hidden".into() }));
    }
}
