//! Where the variables of an arena are in it: at its end on kernels that take such places, so that what programs allocate
//! begins at its start, as in libbpf; else at its start.

use bpf_sys::MapType;

use crate::insn::Operand;
use crate::map_def::{Contents, MapSpec};
use crate::object::MapIdx;
use crate::plan::ProgramPlan;
use crate::target::Target;

/// Moves the variables, and what refers to them.
pub(crate) fn place(
    maps: &mut [(MapIdx, MapSpec<'_>)],
    programs: &mut [ProgramPlan<'_>],
    target: &dyn Target,
) {
    for (idx, map) in maps.iter_mut().filter(|(_, map)| map.map_type == MapType::ARENA) {
        let Contents::Data(data) = &map.contents else { continue };
        let Some(offset) = last_pages(map.max_entries, data.len(), target.page_size()) else { continue };
        if offset == 0 || !target.takes_far_places() {
            continue;
        }
        map.data_offset = offset;
        let codes = programs.iter_mut().filter_map(|program| program.code.as_mut().ok());
        for (_, operand) in codes.flat_map(|code| &mut code.operands) {
            match operand {
                Operand::MapValue { map, offset: place } if map == idx => *place = place.wrapping_add(offset),
                _ => {}
            }
        }
    }
}

/// Where so many bytes begin that fill the last of so many pages; `None` if they do not fit. An arena has at most 4 GiB.
fn last_pages(pages: u32, len: usize, page_size: u32) -> Option<u32> {
    let used = u32::try_from(len).ok()?.div_ceil(page_size.max(1));
    if used == 0 {
        return None;
    }
    pages.checked_sub(used)?.checked_mul(page_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_fill_the_last_pages() {
        assert_eq!(last_pages(4, 1, 4096), Some(3 * 4096));
        assert_eq!(last_pages(4, 4097, 4096), Some(2 * 4096));
        assert_eq!(last_pages(4, 4 * 4096, 4096), Some(0));
        assert_eq!(last_pages(4, 4 * 4096 + 1, 4096), None);
        assert_eq!(last_pages(4, 0, 4096), None);
        // The largest there is.
        assert_eq!(last_pages(1 << 20, 8, 4096), Some(u32::MAX - 4095));
        assert_eq!(last_pages(u32::MAX, 8, 4096), None);
    }
}
