//! Maps of operations in the layout of a kernel, and which operation each program implements.

use bpf_sys::ProgType;

use super::spec::{StructOps, fault, points_to_function};
use crate::ALL_OBJECTS;
use crate::attach_to::{AttachPoint, AttachTo};
use crate::btf::index::essential_name;
use crate::btf::{Btf, BtfId, Kind, Member, Type};
use crate::error::{Error, Result, excerpt};
use crate::fuel::Fuel;
use crate::kernel_names::KernelNames;
use crate::map_def::MapSpec;
use crate::object::{FunctionIdx, MapIdx, ObjectSpec, ProgramSpec};
use crate::sorted::{SortedMap, SortedSet};

/// The kernel calls the map's value this and the name of the operations.
const VALUE_PREFIX: &str = "bpf_struct_ops_";

/// Names of types are shorter: the prefix makes symbols of them (KSYM_NAME_LEN is 512).
const MAX_NAME: usize = 256;

/// Bytes that the values of a plan may have together: the kernel's structure, and so each value, may be much larger than
/// what declares it.
const MAX_VALUES: usize = 1 << 20;

/// A map of operations as a kernel has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelOps {
    /// Type of the map's value, `bpf_struct_ops_NAME`.
    pub value_type: BtfId,
    /// Type of the operations in it, `NAME`.
    pub ops_type: BtfId,
    /// The module whose BTF has them; `None` for the kernel's own.
    pub module: Option<String>,
    /// The initial value in the kernel's layout, with zeros for functions.
    pub value: Vec<u8>,
    /// Function pointers to set.
    pub functions: Vec<FunctionSlot>,
}

/// A function pointer in the kernel's layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionSlot {
    /// Where it is in the map's value, in bytes.
    pub offset: u32,
    /// Number of the member among the operations.
    pub member: u32,
    /// What it is set to.
    pub program: FunctionIdx,
}

/// All maps of operations that matter to a plan.
#[derive(Debug)]
pub struct Resolved {
    /// Those to be created, and those that chosen programs are in.
    maps: SortedMap<MapIdx, Result<KernelOps>>,
    /// Which operation each program implements.
    uses: SortedMap<FunctionIdx, AttachPoint>,
    /// Programs of maps that don't fit, with the first such map.
    broken: SortedMap<FunctionIdx, MapIdx>,
}

/// Names in the kernel's BTF that [`Resolved::new`] needs, once each.
pub(crate) fn wanted_names(spec: &ObjectSpec<'_>, chosen: &[&ProgramSpec<'_>]) -> SortedSet<String> {
    if !ALL_OBJECTS {
        return SortedSet::new();
    }
    let names = wanted_maps(spec, chosen).filter_map(|(_, map, _)| ops_name(spec, map).ok());
    names.map(|name| format!("{VALUE_PREFIX}{name}")).collect()
}

/// The maps to be created, then others that chosen programs are in.
fn wanted_maps<'s, 'a>(
    spec: &'s ObjectSpec<'a>,
    chosen: &[&ProgramSpec<'_>],
) -> impl Iterator<Item = (MapIdx, &'s MapSpec<'a>, &'s StructOps<'a>)> {
    let chosen: SortedSet<FunctionIdx> = chosen.iter().map(|p| p.function).collect();
    let all = || (0..).map(MapIdx).zip(&spec.maps).filter_map(|(i, m)| Some((i, m, StructOps::of(m)?)));
    let created = all().filter(|(_, map, _)| map.autocreate);
    created.chain(all().filter(move |(_, map, ops)| {
        !map.autocreate && ops.functions.iter().any(|(_, function)| chosen.contains(function))
    }))
}

/// The name of a map's operations in the kernel: that of its type, without flavour.
fn ops_name<'s>(spec: &'s ObjectSpec<'_>, map: &MapSpec<'_>) -> Result<&'s str> {
    let btf = spec.btf.as_ref().ok_or_else(|| Error::MapWithoutBtf { map: excerpt(&map.name) })?;
    let name = essential_name(btf.type_by_id(map.value_type)?.name_bytes()?);
    let name = core::str::from_utf8(name).ok().filter(|name| name.len() <= MAX_NAME);
    name.ok_or_else(|| fault(&map.name, "", "its struct's name is none of a kernel's"))
}

impl Resolved {
    /// Fits the object's maps of operations to the kernel.
    pub(crate) fn new(
        spec: &ObjectSpec<'_>,
        chosen: &[&ProgramSpec<'_>],
        names: &KernelNames<'_, '_>,
    ) -> Self {
        let mut resolver = Resolver {
            names,
            fuel: Fuel::OBJECT.clone(),
            bytes_left: MAX_VALUES,
            kernel_types: SortedMap::new(),
            uses: SortedMap::new(),
        };
        let (mut maps, mut broken) = (SortedMap::new(), SortedMap::new());
        if !ALL_OBJECTS {
            return Self { maps, uses: resolver.uses, broken };
        }
        for (idx, map, ops) in wanted_maps(spec, chosen) {
            let fitted = resolver.map(spec, map, ops);
            if fitted.is_err() {
                for (_, function) in &ops.functions {
                    broken.entry(*function).or_insert(idx);
                }
            }
            maps.insert(idx, fitted);
        }
        Self { maps, uses: resolver.uses, broken }
    }

    /// A map in the kernel's layout, or why it does not fit; `None` if it is no map of operations.
    pub fn map(&self, idx: MapIdx) -> Option<&Result<KernelOps>> {
        self.maps.get(&idx).filter(|_| ALL_OBJECTS)
    }

    /// The modules that have the operations.
    pub(crate) fn modules(&self) -> impl Iterator<Item = &str> {
        self.maps.values().filter_map(|map| map.as_ref().ok()?.module.as_deref())
    }

    /// The map as it is to be created.
    pub(crate) fn fit_map<'a>(&self, idx: MapIdx, mut map: MapSpec<'a>) -> MapSpec<'a> {
        if let Some(Ok(ops)) = self.map(idx) {
            map.value_size = ops.value.len() as u32;
        }
        map
    }

    /// Which operation a program implements.
    ///
    /// # Errors
    ///
    /// No map refers to it, or those that do don't fit the kernel.
    pub(crate) fn attach_point(&self, program: &ProgramSpec<'_>) -> Result<AttachPoint> {
        if !ALL_OBJECTS {
            return Err(Box::new(Error::NotBuiltIn { what: "struct_ops" }));
        }
        if let Some(found) = self.uses.get(&program.function) {
            return Ok(found.clone());
        }
        match self.broken.get(&program.function).and_then(|idx| self.maps.get(idx)) {
            Some(Err(error)) => Err(error.clone()),
            _ => Err(Box::new(Error::StructOpsUnused { program: excerpt(program.name) })),
        }
    }
}

impl ObjectSpec<'_> {
    /// The programs of maps of operations that are to be created: these maps, not their own `autoload`, decide whether
    /// they are loaded.
    pub(crate) fn struct_ops_programs(&self) -> SortedSet<FunctionIdx> {
        if !ALL_OBJECTS {
            return SortedSet::new();
        }
        let created = self.maps.iter().filter(|m| m.autocreate).filter_map(StructOps::of);
        created.flat_map(|ops| ops.functions.iter().map(|(_, function)| *function)).collect()
    }
}

impl ProgramSpec<'_> {
    pub(crate) fn is_struct_ops(&self) -> bool {
        self.kind.kind.is_some_and(|kind| kind.prog_type == ProgType::STRUCT_OPS)
    }
}

/// The kernel's side of a kind of operations.
struct KernelTypes<'t> {
    value: Type<'t>,
    ops: Type<'t>,
    /// Where the operations are in the value, in bytes.
    offset: u32,
    module: Option<&'t str>,
    /// By name, with their numbers.
    members: SortedMap<&'t [u8], (u32, Member<'t>)>,
}

impl<'t> KernelTypes<'t> {
    fn find(name: &str, names: &KernelNames<'_, 't>) -> Result<Self> {
        let value_name = format!("{VALUE_PREFIX}{name}");
        match (names.get(&value_name, Kind::Struct), names.failure()) {
            (Some(found), _) => Self::new(found.btf, found.id, found.module, name),
            (None, Some(error)) => Err(error),
            (None, None) => {
                let name = format!("struct {value_name}");
                Err(if names.no_btf() {
                    Box::new(Error::NoKernelBtf { needed_by: name })
                } else {
                    Box::new(Error::NoSuchTarget { name })
                })
            }
        }
    }

    fn new(btf: &'t Btf<'t>, value: BtfId, module: Option<&'t str>, name: &str) -> Result<Self> {
        let value = btf.type_by_id(value)?;
        for member in value.members() {
            let ops = btf.type_by_id(member.type_id)?;
            if ops.kind() != Kind::Struct || ops.name() != Ok(name) {
                continue;
            }
            let mut members = SortedMap::new();
            for (number, member) in (0..).zip(ops.members()) {
                members.entry(ops.btf().string_bytes(member.name_offset)?).or_insert((number, member));
            }
            return Ok(Self { value, ops, offset: member.bit_offset / 8, module, members });
        }
        Err(Box::new(Error::NoSuchTarget { name: format!("struct {name} in struct {VALUE_PREFIX}{name}") }))
    }
}

struct Resolver<'k, 't> {
    names: &'k KernelNames<'k, 't>,
    fuel: Fuel,
    bytes_left: usize,
    /// By the name without flavour.
    kernel_types: SortedMap<String, Result<KernelTypes<'t>>>,
    uses: SortedMap<FunctionIdx, AttachPoint>,
}

impl Resolver<'_, '_> {
    fn map(&mut self, spec: &ObjectSpec<'_>, map: &MapSpec<'_>, ops: &StructOps<'_>) -> Result<KernelOps> {
        let in_map = |error| Box::new(Error::InMap { map: excerpt(&map.name), error });
        let btf = spec.btf.as_ref().ok_or_else(|| Error::MapWithoutBtf { map: excerpt(&map.name) })?;
        let local = btf.type_by_id(map.value_type).map_err(in_map)?;
        let name = ops_name(spec, map)?;
        if !self.kernel_types.contains_key(name) {
            self.kernel_types.insert(name.into(), KernelTypes::find(name, self.names));
        }
        let Some(kernel) = self.kernel_types.get(name) else {
            return Err(Box::new(Error::Internal("kernel types")));
        };
        let kernel = kernel.as_ref().map_err(|e| in_map(e.clone()))?;
        let size = kernel.value.size().unwrap_or_default() as usize;
        self.bytes_left = self.bytes_left.checked_sub(size).ok_or_else(|| {
            fault(&map.name, "", format!("maps of operations have more than {MAX_VALUES} bytes"))
        })?;
        let conversion = Conversion {
            map: &map.name,
            ops,
            kernel,
            value: vec![0; size],
            functions: Vec::new(),
            members_with_function: 0,
        };
        let done = conversion.run(&local, &mut self.fuel).map_err(|error| match *error {
            Error::StructOps { .. } => error,
            _ => in_map(error),
        })?;
        self.record_uses(spec, &map.name, &done)?;
        Ok(done)
    }

    /// A program implements one operation, of however many maps.
    fn record_uses(&mut self, spec: &ObjectSpec<'_>, map: &str, ops: &KernelOps) -> Result<()> {
        let mut own: SortedMap<FunctionIdx, AttachPoint> = SortedMap::new();
        for slot in &ops.functions {
            let point = AttachPoint {
                btf_id: ops.ops_type,
                attach_type: bpf_sys::AttachType(slot.member),
                to: ops.module.as_ref().map_or(AttachTo::Kernel, |module| AttachTo::Module(module.clone())),
            };
            if let Some(other) = self.uses.get(&slot.program).or_else(|| own.get(&slot.program)) {
                if *other != point {
                    let name = spec.function(slot.program).map_or("", |f| f.name);
                    let reason = format!("program {} implements another operation already", excerpt(name));
                    return Err(fault(map, "", reason));
                }
            }
            own.insert(slot.program, point);
        }
        self.uses.extend(own);
        Ok(())
    }
}

/// A variable on its way into the kernel's layout.
struct Conversion<'s, 't> {
    map: &'s str,
    ops: &'s StructOps<'s>,
    kernel: &'s KernelTypes<'t>,
    value: Vec<u8>,
    functions: Vec<FunctionSlot>,
    members_with_function: usize,
}

impl Conversion<'_, '_> {
    fn run(mut self, local: &Type<'_>, fuel: &mut Fuel) -> Result<KernelOps> {
        for member in local.members() {
            fuel.spend(1)?;
            self.member(local, &member, fuel)?;
        }
        if self.members_with_function < self.ops.functions.len() {
            return Err(fault(self.map, "", "a function pointer is set where there is no such member"));
        }
        Ok(KernelOps {
            value_type: self.kernel.value.id(),
            ops_type: self.kernel.ops.id(),
            module: self.kernel.module.map(String::from),
            value: self.value,
            functions: self.functions,
        })
    }

    fn member(&mut self, local: &Type<'_>, member: &Member<'_>, fuel: &mut Fuel) -> Result<()> {
        let btf = local.btf();
        let name = fuel.name(btf, member.name_offset)?;
        let bad = |reason: &str| Err(fault(self.map, &String::from_utf8_lossy(name), reason));
        let offset = member.bit_offset / 8;
        let size = fuel.size(btf, member.type_id)? as usize;
        let start = offset as usize;
        let Some(data) = self.ops.data.get(start..start + size) else {
            return bad("it reaches past its variable");
        };
        let ty = fuel.skip(btf, member.type_id)?;
        let function = if ty.kind() == Kind::Ptr { self.ops.function_at(offset) } else { None };
        let Some((number, kernel_member)) = self.kernel.members.get(name) else {
            if function.is_some() || data.iter().any(|&byte| byte != 0) {
                return bad("the kernel has no such member, and it is not zero");
            }
            return Ok(());
        };
        if member.bitfield_size != 0 || kernel_member.bitfield_size != 0 {
            return bad("it is a bit-field");
        }
        let kernel_btf = self.kernel.ops.btf();
        let kernel_type = fuel.skip(kernel_btf, kernel_member.type_id)?;
        if ty.kind() != kernel_type.kind() {
            return bad("the kernel has a member of another kind");
        }
        let at = u64::from(self.kernel.offset) + u64::from(kernel_member.bit_offset / 8);
        let to = usize::try_from(at).ok().and_then(|at| self.value.get_mut(at..at.checked_add(size)?));
        let Some(to) = to else { return bad("it lies outside the kernel's structure") };
        if ty.kind() != Kind::Ptr {
            if fuel.size(kernel_btf, kernel_member.type_id)? as usize != size {
                return bad("it has another size in the kernel");
            }
            to.copy_from_slice(data);
            return Ok(());
        }
        let Some(program) = function else {
            if data.iter().any(|&byte| byte != 0) {
                return bad("it points to something that is no struct_ops program");
            }
            return Ok(());
        };
        if !points_to_function(&ty)? || !points_to_function(&kernel_type)? {
            return bad("it is no function pointer");
        }
        self.members_with_function += 1;
        self.functions.push(FunctionSlot { offset: at as u32, member: *number, program });
        Ok(())
    }
}
