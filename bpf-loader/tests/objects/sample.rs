//! The same for rustc: no core library, so that none need be built. Maps are as aya declares them: 20 bytes in `maps`.
#![feature(no_core, lang_items, auto_traits, intrinsics)]
#![no_core]
#![no_std]
#![crate_type = "lib"]
#![allow(internal_features)]

#[lang = "pointee_sized"]
trait PointeeSized {}
#[lang = "meta_sized"]
trait MetaSized: PointeeSized {}
#[lang = "sized"]
trait Sized: MetaSized {}
#[lang = "copy"]
trait Copy {}
#[lang = "freeze"]
unsafe auto trait Freeze {}
#[lang = "sync"]
trait Sync {}
#[lang = "drop_in_place"]
unsafe fn drop_in_place<T: PointeeSized>(_: *mut T) {}
impl Copy for u32 {}
impl Copy for u64 {}
impl<T: PointeeSized> Copy for *const T {}

#[repr(C)]
pub struct MapDefinition {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}
impl Sync for MapDefinition {}
impl Sync for u64 {}
impl Sync for [u8; 4] {}

#[unsafe(no_mangle)]
#[unsafe(link_section = "maps")]
pub static COUNTS: MapDefinition =
    MapDefinition { kind: 1, key_size: 4, value_size: 8, max_entries: 64, flags: 0 };

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
pub static LICENSE: [u8; 4] = [b'G', b'P', b'L', 0];

#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
pub static ANSWER: u64 = 42;

#[rustc_intrinsic]
unsafe fn transmute<From, To>(from: From) -> To;

type Lookup = extern "C" fn(*const MapDefinition, *const u32) -> *const u64;

// The verifier takes pointers only of functions that are static to it, as those are that are not exported.
#[inline(never)]
extern "C" fn pick(key: *const u32) -> *const u64 {
    // The kernel's helper number 1, bpf_map_lookup_elem.
    let lookup: Lookup = unsafe { transmute(1u64) };
    lookup(&raw const COUNTS, key)
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/sys_enter")]
pub extern "C" fn count(_context: *const u64) -> u32 {
    let key = 7;
    pick(&raw const key);
    0
}
