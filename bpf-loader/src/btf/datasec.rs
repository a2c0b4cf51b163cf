//! Filling in what the compiler leaves out of data sections, and what only the symbol table knows.
//!
//! clang writes 0 for the size of a section and for the offsets of its global variables, and lists them in no order; the
//! kernel wants all three right. A static linker has already done it for objects that went through one.

use super::edit::Edit;
use super::encode::info;
use super::types::HEADER_LEN;
use super::{Btf, Kind, Linkage};
use crate::error::{Error, Result};
use crate::stable_sort::sort_by_number;

/// What the symbol table says of a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symbol {
    /// Its offset in its section.
    pub offset: u32,
    /// Of hidden or internal visibility: its linkage becomes static.
    pub hidden: bool,
}

/// A copy of `btf` whose data sections have sizes, variables' offsets, and variables in the order of their offsets, and whose
/// hidden functions are static: the verifier checks those where they are called, global ones alone and for any arguments.
///
/// `size_of` answers a section's size in bytes by its name, `symbol_of` a global variable's symbol by the names of
/// section and variable, `is_hidden` whether a function is of hidden or internal visibility. `.ksyms` and `.kconfig`, whose variables are defined elsewhere, are filled only as far as both
/// answer.
///
/// # Errors
///
/// `BtfDatasec` if a section has no size, or a variable no symbol though its offset is needed; `BtfUnexpectedKind` if
/// something other than a variable is in a section; `BtfTypeId`, `BtfString`, `BtfStringUtf8`.
pub fn fill(
    btf: &Btf<'_>,
    size_of: impl Fn(&str) -> Option<u32>,
    symbol_of: impl Fn(&str, &str) -> Option<Symbol>,
    is_hidden: impl Fn(&[u8]) -> bool,
) -> Result<Vec<u8>> {
    let mut edit = Edit::new(btf)?;
    let mut types = btf.types();
    loop {
        let at = types.at;
        let Some(ty) = types.next() else { break };
        if ty.func_linkage() == Some(Linkage::Global) && is_hidden(ty.name_bytes()?) {
            edit.set(at + 4, info(Kind::Func, Linkage::Static.number(), false));
        }
        if ty.kind() != Kind::Datasec {
            continue;
        }
        let section = ty.name()?;
        let external = matches!(section, ".ksyms" | ".kconfig");
        // Nobody but the loader can have placed externs.
        let unfilled = ty.size() == Some(0) || external;
        if unfilled {
            match size_of(section).filter(|&size| size > 0) {
                Some(size) => edit.set(at + 8, size),
                None if external => {}
                None => {
                    return Err(Box::new(Error::BtfDatasec { section: section.to_owned(), variable: None }));
                }
            }
        }
        let mut rows = Vec::new();
        for var in ty.section_vars() {
            let mut offset = var.offset;
            let variable = btf.type_by_id(var.type_id)?;
            match variable.var_linkage() {
                Some(Linkage::Static) => {}
                Some(Linkage::Extern) if !external => {}
                Some(_) => match symbol_of(section, variable.name()?) {
                    Some(symbol) => {
                        offset = if unfilled { symbol.offset } else { offset };
                        if symbol.hidden {
                            let variable_at = btf.types_from(var.type_id)?.at;
                            edit.set(variable_at + HEADER_LEN, Linkage::Static.number());
                        }
                    }
                    None if external || !unfilled => {}
                    None => {
                        let variable = Some(variable.name()?.to_owned());
                        return Err(Box::new(Error::BtfDatasec { section: section.to_owned(), variable }));
                    }
                },
                None if external => {}
                None => {
                    let (type_id, kind) = (variable.id(), variable.kind());
                    return Err(Box::new(Error::BtfUnexpectedKind { type_id, kind, expected: "var" }));
                }
            }
            rows.push([var.type_id.0, offset, var.size]);
        }
        sort_by_number(&mut rows, |&[_, offset, _]| offset.into());
        for (word, at) in rows.iter().flatten().zip((at + HEADER_LEN..).step_by(4)) {
            edit.set(at, *word);
        }
    }
    edit.build()
}

#[cfg(test)]
mod tests;
