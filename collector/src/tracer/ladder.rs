//! Ladders: the ways to get at something, best first. The first that the kernel takes is used.

use std::fmt;

use bpf_loader::kernel::RunningKernel;
use bpf_loader::link::Link;
use bpf_loader::load::Object;
use bpf_loader::machine::Machine;
use bpf_loader::object::ObjectSpec;
use bpf_loader::target::RunningTarget;
use bpf_sys::MapType;

use super::windows;
use crate::error::{Error, Result};
use crate::sorted::SortedMap;

/// What is wanted, and the ways to get it.
#[derive(Debug, PartialEq, Eq)]
pub struct Ladder {
    /// What it is for: `system calls`, `TCP states`.
    pub what: &'static str,
    /// Best first.
    pub rungs: &'static [Rung],
    /// Whether the tracer can do nothing without.
    pub required: bool,
}

/// One way.
#[derive(Debug, PartialEq, Eq)]
pub struct Rung {
    /// Its name: `tp_btf`, `raw_tp`, `kprobe`, `sock_diag`.
    pub name: &'static str,
    /// The programs that it attaches, by name, in this order; none where no program is needed.
    pub programs: &'static [&'static str],
    /// First kernel that has it, as a person reads it: `5.8`, `6.0 on arm64`.
    pub since: &'static str,
    /// What it costs or misses against the best one; empty if nothing.
    pub drawback: &'static str,
}

/// What became of a ladder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// [`Ladder::what`].
    pub what: &'static str,
    /// The rung in use; `None`: nothing that the kernel has serves, or, if nothing was refused, nobody asked for it.
    pub rung: Option<&'static str>,
    /// The better ones, and why the kernel did not take them.
    pub refused: Vec<Refused>,
}

/// A rung that the kernel did not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its name.
    pub rung: &'static str,
    /// Why.
    pub reason: String,
}

/// Rungs to use whatever is better, by [`Ladder::what`]; an empty name stands for none, as on a kernel that has nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forced(pub SortedMap<String, String>);

impl Forced {
    /// For tracers that do not [`climb`]: that the rung asked for, if any, is one of the ladder's.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchRung`]; [`Error::NoRung`] where a ladder that is required is to have none.
    pub fn check(&self, ladder: &Ladder) -> Result<()> {
        let (at, _) = self.of(ladder)?;
        if ladder.required && at >= ladder.rungs.len() {
            return Err(Box::new(Error::NoRung { what: ladder.what, refused: Vec::new() }));
        }
        Ok(())
    }

    /// The rung that is asked for; `None`: none is.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchRung`].
    #[cfg(feature = "unwind")]
    pub fn rung(&self, ladder: &Ladder) -> Result<Option<&'static Rung>> {
        let (at, only) = self.of(ladder)?;
        Ok(ladder.rungs.get(at).filter(|_| only))
    }

    /// Uses from now on the rung that was chosen of a ladder.
    #[cfg(feature = "unwind")]
    pub(crate) fn set(&mut self, chosen: &[Chosen], ladder: &Ladder) {
        let own = chosen.iter().find(|chosen| chosen.what == ladder.what);
        if let Some(rung) = own.and_then(|own| own.rung) {
            self.0.insert(ladder.what.to_owned(), rung.to_owned());
        }
    }

    /// The first rung to try, and whether it is the only one.
    fn of(&self, ladder: &Ladder) -> Result<(usize, bool)> {
        let Some(name) = self.0.get(ladder.what) else { return Ok((0, false)) };
        if name.is_empty() {
            return Ok((ladder.rungs.len(), true));
        }
        let at = ladder.rungs.iter().position(|rung| rung.name == name);
        let at = at.ok_or_else(|| Error::NoSuchRung { what: ladder.what, rung: name.clone() })?;
        Ok((at, true))
    }
}

/// An object in the kernel with the best rung of each ladder attached.
#[derive(Debug)]
pub struct Climbed {
    /// The object: its maps, and the programs of the chosen rungs.
    pub object: Object,
    /// What became of each ladder, in their order.
    pub chosen: Vec<Chosen>,
    /// What is attached.
    pub links: Vec<Link>,
}

/// Where on its ladder a search stands.
struct Position {
    at: usize,
    only: bool,
    refused: Vec<Refused>,
}

impl Position {
    fn rung(&self, ladder: &Ladder) -> Option<&'static Rung> {
        ladder.rungs.get(self.at)
    }

    fn refuse(&mut self, ladder: &Ladder, reason: String) {
        if let Some(rung) = self.rung(ladder) {
            self.refused.push(Refused { rung: rung.name, reason });
        }
        self.at = if self.only { ladder.rungs.len() } else { self.at + 1 };
    }
}

/// Sets sizes and constants of an object. The rungs' names are by [`Ladder::what`].
pub type Prepare<'p> =
    dyn FnMut(&mut ObjectSpec<'_>, &dyn Fn(&str) -> Option<&'static str>) -> Result<()> + 'p;

/// Attaches the program of that name.
pub type Attach<'a> = dyn FnMut(&Object, &str) -> Result<Vec<Link>> + 'a;

/// Fits an object to the kernel's machine: says where its programs must add to counters in plain steps (`bpf-programs/bpf/add.h`), and
/// makes room in its maps of maps where they need more.
///
/// # Errors
///
/// The object does not ask for it.
pub fn fit_machine(spec: &mut ObjectSpec<'_>) -> Result<()> {
    for map in spec.maps.iter_mut().filter(|map| map.map_type == MapType::ARRAY_OF_MAPS) {
        map.max_entries = windows::entries();
    }
    let plain_adds = u32::from(Machine::running() == Some(Machine::Arm));
    spec.set_global("plain_adds", &plain_adds.to_ne_bytes()).map_err(Error::load)
}

/// Loads an object with the best rung of each ladder, and attaches it.
///
/// Programs of ladders have sections that begin with `?`, so that they are loaded only when their rung is tried. `prepare`
/// sets sizes and constants, and is called again for each try, with the rungs' names by [`Ladder::what`]. `attach` attaches
/// one program: usually `Program::attach`, which does what the section says.
///
/// # Errors
///
/// [`Error::NoRung`] where a ladder that the tracer cannot do without has no rung left; [`Error::NoSuchRung`]; whatever
/// `prepare` meets; a map or a program outside all ladders that the kernel refuses.
pub fn climb(
    bytes: &[u8],
    ladders: &[&'static Ladder],
    forced: &Forced,
    target: &RunningTarget,
    prepare: &mut Prepare<'_>,
    attach: &mut Attach<'_>,
) -> Result<Climbed> {
    let mut positions = Vec::with_capacity(ladders.len());
    for ladder in ladders {
        let (at, only) = forced.of(ladder)?;
        positions.push(Position { at, only, refused: Vec::new() });
    }
    loop {
        for (ladder, position) in ladders.iter().zip(&positions) {
            if ladder.required && position.rung(ladder).is_none() {
                let refused = position.refused.clone();
                return Err(Box::new(Error::NoRung { what: ladder.what, refused }));
            }
        }
        let mut spec = ObjectSpec::parse(bytes).map_err(Error::load)?;
        let chosen_rung = |what: &str| {
            let at = ladders.iter().position(|ladder| ladder.what == what)?;
            Some(positions.get(at)?.rung(ladders.get(at)?)?.name)
        };
        fit_machine(&mut spec)?;
        prepare(&mut spec, &chosen_rung)?;
        for (ladder, position) in ladders.iter().zip(&positions) {
            for name in position.rung(ladder).iter().flat_map(|rung| rung.programs) {
                let program = spec.program_mut(name);
                let missing = || Error::no_program(name);
                program.ok_or_else(missing)?.autoload = true;
            }
        }
        let plan = spec.plan(target).map_err(Error::load)?;
        let mut loaded = plan.load(&RunningKernel::default()).map_err(Error::load)?;
        // What a program was refused for sends its ladder to the next rung; all ladders move at once.
        let mut moved = false;
        for (ladder, position) in ladders.iter().zip(&mut positions) {
            let Some(rung) = position.rung(ladder) else { continue };
            let refusal = loaded.programs.iter().find_map(|(name, result)| {
                let error = result.as_ref().err()?;
                rung.programs.contains(&name.as_str()).then(|| one_line(error))
            });
            if let Some(reason) = refusal {
                position.refuse(ladder, reason);
                moved = true;
            }
        }
        if moved {
            continue;
        }
        loaded.programs.shrink_to_fit();
        let object = loaded.into_object().map_err(Error::load)?;
        let mut links = Vec::new();
        for (ladder, position) in ladders.iter().zip(&mut positions) {
            let Some(rung) = position.rung(ladder) else { continue };
            let attached = rung.programs.iter().map(|name| attach(&object, name)).collect::<Result<Vec<_>>>();
            match attached {
                Ok(attached) => attached.into_iter().for_each(|attached| links.extend(attached)),
                Err(error) => {
                    position.refuse(ladder, one_line(&error));
                    moved = true;
                }
            }
        }
        if moved {
            continue;
        }
        let chosen = ladders.iter().zip(positions).map(|(ladder, position)| Chosen {
            what: ladder.what,
            rung: position.rung(ladder).map(|rung| rung.name),
            refused: position.refused,
        });
        return Ok(Climbed { chosen: chosen.collect(), object, links });
    }
}

/// An error in one line, for reports: with why the verifier refused a program, where that is picked from its log.
fn one_line(error: &dyn fmt::Display) -> String {
    let text = error.to_string();
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    match lines.next().and_then(|line| line.trim_start().strip_prefix("reason: ")) {
        Some(reason) => [first, ": ", reason].concat(),
        None => first.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn a_refusal_in_one_line_says_why() {
        let refusal = "program p: bpf(BPF_PROG_LOAD): EINVAL\n  reason: unknown func f#200\n  at: instruction 3\n  3: (85) call f#200";
        assert_eq!(one_line(&refusal), "program p: bpf(BPF_PROG_LOAD): EINVAL: unknown func f#200");
        assert_eq!(one_line(&"no such file\n  here"), "no such file");
        assert_eq!(one_line(&""), "");
    }
}
