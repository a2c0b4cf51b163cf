//! Declarations of maps and of struct_ops, made from the input so that most of them nearly make sense.

use super::input::Input;
use super::object::{Kernel, plan_object};
use crate::elf::{CODE, DATA, FUNCTION, OBJECT, Object};
use bpf_loader::btf::encode::{Builder, Field, SIGNED};
use bpf_loader::btf::{BtfId, Linkage};
use bpf_loader::bytes::Endian;

/// Members of a map's declaration, and of maps of operations.
const MEMBERS: [&str; 14] = [
    "type",
    "max_entries",
    "map_flags",
    "map_extra",
    "numa_node",
    "pinning",
    "key_size",
    "value_size",
    "key",
    "value",
    "values",
    "",
    "exit",
    "other",
];
const SECTIONS: [&str; 4] = [".maps", ".struct_ops", ".struct_ops.link", "maps"];
/// Bytes of a variable.
const SIZE: u32 = 64;

/// One section of variables whose types, places, contents and relocations the input says, beside a program.
pub fn loader_maps(data: &[u8]) {
    let mut input = Input::new(data);
    let section_name = SECTIONS[usize::from(input.u8()) % SECTIONS.len()];
    let mut btf = Builder::new(Endian::HOST);
    let int = btf.int("int", 4, SIGNED);
    let prototype = btf.prototype(int, &[("context", int)]);
    let callback = btf.ptr(prototype);
    let callbacks = btf.array(callback, int, 0);
    let mut types = vec![int, prototype, callback, callbacks];
    let mut variables = Vec::new();
    for n in 0..1 + u32::from(input.u8() % 4) {
        let fields = usize::from(input.u8() % 12);
        let fields: Vec<(&str, BtfId, u32)> = (0..fields)
            .map(|place| {
                let name = MEMBERS[usize::from(input.u8()) % MEMBERS.len()];
                (name, member_type(&mut input, &mut btf, &mut types, int), place as u32 * 8)
            })
            .collect();
        let fields: Vec<Field<'_>> = fields.iter().map(|&(name, ty, at)| Field::at(name, ty, at)).collect();
        let declaration = btf.structure("test_ops", SIZE, &fields);
        types.push(declaration);
        let variable = btf.variable(&format!("variable{n}"), declaration, Linkage::Global);
        variables.push((variable, n * SIZE, SIZE));
    }
    btf.datasec(section_name, SIZE * variables.len() as u32, &variables);

    let mut object = Object::default();
    let exit = [0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
    let code = object.section("struct_ops/exit", CODE, exit.to_vec());
    object.section(".BTF", 0, btf.build());
    let name = object.string("exit");
    let mut symbols = vec![object.symbol(name, FUNCTION, code, 0, 16)];
    let relocations: Vec<(u64, u32, u32)> = (0..input.u8() % 8)
        .map(|_| (u64::from(input.u8()) * 4, u32::from(input.u8() % 8), 1 + u32::from(input.u8() % 2)))
        .collect();
    let mut content = input.rest().to_vec();
    content.resize((SIZE * variables.len() as u32) as usize, 0);
    let section = object.section(section_name, DATA, content);
    for n in 0..variables.len() as u64 {
        let name = object.string(&format!("variable{n}"));
        symbols.push(object.symbol(name, OBJECT, section, n * u64::from(SIZE), SIZE.into()));
    }
    object.relocations(section, relocations);
    let file = object.build();
    assert_eq!(plan_object(&file, Kernel::MadeUp), Some(1), "an object with a program");
    plan_object(&file, Kernel::OwnTypes);
}

/// A number as `__uint` and `__ulong` write it, a pointer, an array of pointers, or any type that exists or not.
fn member_type(input: &mut Input<'_>, btf: &mut Builder, types: &mut Vec<BtfId>, int: BtfId) -> BtfId {
    let choice = input.u8();
    let known = types[usize::from(choice >> 3) % types.len()];
    let id = match choice & 7 {
        0 | 1 => {
            let array = btf.array(int, int, input.u8().into());
            btf.ptr(array)
        }
        2 => {
            let array = btf.array(int, int, input.u32());
            btf.ptr(array)
        }
        3 => btf.enumeration64("", false, &[("", input.u64())]),
        4 => btf.ptr(known),
        5 => {
            let pointer = btf.ptr(known);
            btf.array(pointer, int, 0)
        }
        6 => known,
        _ => BtfId(input.u16().into()),
    };
    types.push(id);
    id
}
