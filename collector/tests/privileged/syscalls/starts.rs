//! Beginnings of calls whose ends are missed, and ends whose beginnings are: the programs are run by request, on this thread.

use bpf_loader::kernel::RunningKernel;
use bpf_loader::load::Object;
use bpf_loader::map::{Hash, Map, MapOfMaps, MappedArray};
use bpf_loader::object::ObjectSpec;
use bpf_loader::target::RunningTarget;
use bpf_loader::test_run::TestRun;
use bpf_programs::events::syscalls::{CellCount, CellKey, Cells, CpuState, Place, Start, What};

use crate::{is_root, kernel_has, skip};

/// More than a test machine has.
const CPUS: u32 = 1024;
const READ: u64 = 0;
const WRITE: u64 = 1;
const SIGRETURN: u64 = 15;
const EXECVE: u64 = 59;
const EXECVEAT: u64 = 322;

/// The programs, and the table that has what finds no room in their cells, as happens by how long calls took.
struct Programs(Object, Hash<[u8; CellKey::SIZE], [u8; CellCount::SIZE]>);

impl Programs {
    /// Loaded, and attached nowhere. Calls are made of this machine's 64-bit programs.
    fn load() -> Option<Self> {
        if !is_root() {
            return skip("needs root");
        }
        if !kernel_has((5, 10)) {
            return skip("test runs of raw tracepoints need Linux 5.10");
        }
        let mut spec = ObjectSpec::parse(bpf_programs::SYSCALLS).unwrap();
        spec.set_global("cpus", &CPUS.to_ne_bytes()).unwrap();
        spec.set_global("sample_interval", &0u64.to_ne_bytes()).unwrap();
        for (name, calls) in [
            ("entry_calls", &[SIGRETURN][..]),
            ("sigreturn_calls", &[SIGRETURN]),
            // `read` stands for execve, as that is what the programs see to return.
            ("exec_calls", &[READ, EXECVEAT]),
        ] {
            let mut set = [0u64; 32];
            calls.iter().for_each(|call| set[*call as usize / 64] |= 1 << (call % 64));
            let bytes: Vec<u8> = set.iter().flat_map(|word| word.to_ne_bytes()).collect();
            spec.set_global(name, &bytes).unwrap();
        }
        spec.map_mut("cells").unwrap().max_entries = 2 * CPUS;
        spec.map_mut("cpu_states").unwrap().max_entries = CPUS;
        let plan = spec.plan_programs(&RunningTarget::new(), |p| p.name.ends_with("_raw")).unwrap();
        // Which calls are timed is found out for each CPU.
        let mut cpu = rustix::thread::CpuSet::new();
        cpu.set(rustix::thread::sched_getcpu());
        rustix::thread::sched_setaffinity(None, &cpu).unwrap();
        let object = plan.load(&RunningKernel::default()).unwrap().into_object().unwrap();
        let table = spec.map("counts").unwrap().inner.as_deref().unwrap();
        let table = Map::new("counts".to_owned(), table.create(&RunningKernel::default()).unwrap());
        MapOfMaps::new(object.map("counts").unwrap()).unwrap().set(&0u32, &table, 0).unwrap();
        Some(Self(object, Hash::new(&table).unwrap()))
    }

    fn run(&self, program: &str, arguments: [u64; 2]) {
        let context: Vec<u8> = arguments.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let program = self.0.program(program).unwrap();
        program.test_run(&TestRun { context: &context, ..TestRun::default() }).unwrap();
    }

    fn begins(&self, number: u64) {
        self.run("begins_raw", [0, number]);
    }

    /// Registers that cannot be read are those of call number 0.
    fn read_returns(&self) {
        self.run("returns_raw", [0, 0]);
    }

    /// How many calls were counted with a duration and without, and how many beginnings were missed.
    fn counted(&self) -> (u64, u64, u64) {
        let cells: MappedArray<[u8; Cells::SIZE]> =
            MappedArray::new(self.0.map("cells").unwrap(), false).unwrap();
        let (mut timed, mut not_timed) = (0, 0);
        let mut add = |key: CellKey, count: CellCount| {
            let place = What::unpack(key.what).place;
            *if place == Place::NotTimed { &mut not_timed } else { &mut timed } += count.calls;
        };
        for of_cpu in (0..cells.len()).filter_map(|at| cells.get(at)) {
            Cells::used(&of_cpu).for_each(|(key, count)| add(key, count));
        }
        for entry in self.1.entries() {
            let (key, count) = entry.unwrap();
            add(CellKey::decode(&key).unwrap(), CellCount::decode(&count).unwrap());
        }
        let states: MappedArray<[u8; CpuState::SIZE]> =
            MappedArray::new(self.0.map("cpu_states").unwrap(), false).unwrap();
        let missed = (0..states.len()).filter_map(|at| CpuState::decode(&states.get(at)?));
        (timed, not_timed, missed.map(|state| state.no_start).sum())
    }

    /// Places that are taken.
    fn taken(&self) -> usize {
        let starts: MappedArray<[u8; Start::SIZE]> =
            MappedArray::new(self.0.map("starts").unwrap(), false).unwrap();
        let starts = (0..starts.len()).filter_map(|at| Start::decode(&starts.get(at)?));
        starts.filter(|start| start.word != 0 || start.threads != 0).count()
    }

    /// Checks what was counted, and how many places are taken.
    fn are(&self, counted: (u64, u64, u64), taken: usize) {
        assert_eq!((self.counted(), self.taken()), (counted, taken));
    }
}

#[test]
fn a_beginning_is_taken_by_its_own_call_alone() {
    let Some(programs) = Programs::load() else { return };
    programs.begins(READ);
    assert_eq!(programs.taken(), 1);
    programs.read_returns();
    programs.are((1, 0, 0), 0);
    // Both the return of this and the beginning of the next were missed.
    programs.begins(WRITE);
    programs.read_returns();
    programs.are((1, 1, 1), 0);
    // The return alone.
    programs.begins(WRITE);
    programs.begins(READ);
    programs.read_returns();
    programs.are((2, 1, 1), 0);
    // A call that starts another program returns as execve.
    programs.begins(EXECVEAT);
    programs.read_returns();
    programs.are((3, 1, 1), 0);
    programs.begins(EXECVE);
    programs.read_returns();
    programs.are((3, 2, 2), 0);
}

#[test]
fn what_a_missed_return_leaves_is_forgotten_by_the_next_call() {
    let Some(programs) = Programs::load() else { return };
    // The first call is timed, and the next after about as many as this; all calls are the same.
    programs.0.global("one_in").unwrap().set(&65536u32).unwrap();
    programs.begins(READ);
    programs.begins(READ);
    assert_eq!(programs.taken(), 0);
    programs.read_returns();
    programs.are((0, 1, 0), 0);
}

#[test]
fn the_end_of_a_signals_handler_is_no_return() {
    let Some(programs) = Programs::load() else { return };
    programs.begins(READ);
    programs.begins(SIGRETURN);
    programs.read_returns();
    // What never returns is counted when it begins.
    programs.are((0, 1, 0), 0);
}
