use super::*;
use crate::output::fixture::{self, Fixture};
use crate::output::terminal::Style;
use crate::read::ValueType;

fn recording(profile: Profile) -> Recording {
    let text = |text: &str| text.to_owned();
    let value = ValueType { kind: text("samples"), unit: text("count"), per: text("cpu") };
    Recording { profile, value, ..Recording::default() }
}

fn of(comm: &str, stacks: &[(&str, u64)]) -> Recording {
    let mut fixture = Fixture::default();
    let process = fixture.process(1, comm, &format!("/bin/{comm}"));
    stacks.iter().for_each(|(stack, count)| fixture.sample(process, stack, *count));
    recording(fixture.finish())
}

fn compared<T>(before: &Recording, after: &Recording, look: impl FnOnce(&Comparison<'_>) -> T) -> T {
    look(&Comparison::new(
        Named { name: "old.otlp", recording: before },
        Named { name: "new.otlp", recording: after },
    ))
}

fn table(before: &Recording, after: &Recording, width: usize) -> String {
    let mut out = Vec::new();
    compared(before, after, |both| write(both, 30, Style { width, color: false }, &mut out)).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn runs_of_different_length_compare() {
    let before = of("app", &[("main;a", 700), ("main;b", 300)]);
    let after = of("app", &[("main;a", 70), ("main;b", 30)]);
    compared(&before, &after, |both| {
        assert!(both.functions.iter().all(|change| change.own() == 0.0 && change.own_may_be_chance));
    });
}

#[test]
fn the_greatest_change_comes_first() {
    let before = of("app", &[("main;a;leaf", 500), ("main;b", 400), ("main;gone", 100)]);
    let after = of("app", &[("main;a;leaf", 500), ("main;b", 1400), ("main;new", 100)]);
    compared(&before, &after, |both| {
        let names: Vec<_> = both.functions.iter().map(|change| &*change.name).collect();
        assert_eq!(names, ["b", "leaf", "gone", "new"], "main and a have no time of their own");
        let gone = &both.functions[2];
        assert_eq!((gone.before.own, gone.after), (100, Part::default()));
        assert_eq!((gone.own(), gone.own_may_be_chance), (-0.1, false));
        assert!((both.functions[0].own() - 0.3).abs() < 1e-9);
    });
    let text = table(&before, &after, 80);
    assert!(text.contains("  40.0   70.0  +30.0    40.0   70.0  +30.0  b\n"), "{text}");
    assert!(text.starts_with("before: old.otlp: 1000 samples, 10.10 s of CPU time in 10.0 s\n"), "{text}");
}

#[test]
fn what_chance_may_do_is_marked() {
    let before = of("app", &[("main;a", 10), ("main;b", 90)]);
    let after = of("app", &[("main;a", 13), ("main;b", 87)]);
    assert!(table(&before, &after, 80).contains("  10.0   13.0   +3.0~   10.0   13.0   +3.0~ a\n"));
    let before = of("app", &[("main;a", 1000), ("main;b", 9000)]);
    let after = of("app", &[("main;a", 1300), ("main;b", 8700)]);
    assert!(table(&before, &after, 80).contains("  10.0   13.0   +3.0    10.0   13.0   +3.0  a\n"));
    assert!(table(&before, &before, 80).contains("  90.0   90.0    0.0    90.0   90.0    0.0  b\n"));
    // Bytes are no samples that were drawn.
    let mut bytes = before.clone();
    bytes.value.kind = "inuse_space".to_owned();
    compared(&bytes, &bytes, |both| assert!(both.functions.iter().all(|change| !change.own_may_be_chance)));
}

/// At most 5 % of pairs without a difference are told as different, as the limit says.
#[test]
fn chance_is_what_it_is_said_to_be() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 40
    };
    let chance = Chance { before: 400.0, after: 900.0, is_known: true };
    let mut drawn = |n: u32| (0..n).filter(|_| next() % 10 < 2).count() as u64;
    let told = (0..2000).filter(|_| !chance.is_enough_for(drawn(400), drawn(900))).count();
    assert!((40..=100).contains(&told), "{told} of 2000");
    let few = Chance { before: 150.0, after: 150.0, is_known: true };
    assert!(few.is_enough_for(4, 0) && !few.is_enough_for(9, 0));
}

#[test]
fn fits_every_width() {
    let (before, after) = (recording(fixture::server()), of("postgres", &[("main;x", 3), ("main;k:y", 9)]));
    for width in [40, 60, 72, 80, 100, 132, 200] {
        let text = table(&before, &after, width);
        let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= width, "{widest} > {width}:\n{text}");
        assert!(text.lines().all(|line| line == line.trim_end()), "{text}");
        assert!(text.contains("4 samples"), "{text}");
    }
}

#[test]
fn two_names_of_one_program_are_one_process() {
    let before = of("app-v1", &[("main;a", 7)]);
    let after = of("app-v2", &[("main;a", 3), ("main;b", 1)]);
    let tree = compared(&before, &after, |both| both.tree());
    let process = tree.get(tree.nodes[0].children[0]).unwrap();
    assert_eq!((&*process.name, process.before, process.total), ("app-v2", 7, 4));
    let main = tree.get(process.children[0]).unwrap();
    let calls = main.children.iter().map(|call| &tree.nodes[*call]);
    let calls: Vec<_> = calls.map(|call| (&*call.name, call.before, call.total)).collect();
    assert_eq!(calls, [("a", 7, 3), ("b", 0, 1)]);
}

#[test]
fn different_things_are_not_compared_in_silence() {
    let cpu = of("app", &[("main", 7)]);
    let mut heap = cpu.clone();
    heap.value = ValueType { kind: "inuse_space".into(), unit: "bytes".into(), per: "space".into() };
    heap.profile.period_nanos = 0;
    assert!(table(&cpu, &heap, 200).contains("samples of cpu and inuse_space (bytes): see --sample-type"));
    let mut time = cpu.clone();
    time.value = ValueType { kind: "cpu".into(), unit: "nanoseconds".into(), per: "cpu".into() };
    time.profile.period_nanos = 1;
    let mut folded = cpu.clone();
    folded.value.per.clear();
    for (before, after) in [(&cpu, &time), (&cpu, &folded), (&folded, &time)] {
        assert!(compared(before, after, |both| both.is_alike()));
    }
    assert!(!compared(&folded, &heap, |both| both.is_alike()));
}

#[test]
fn folded_stacks_have_both_counts() {
    let before = of("app", &[("main;a", 7), ("main;b", 1)]);
    let after = of("app", &[("main;a", 3), ("main;k:c", 2)]);
    let mut out = Vec::new();
    compared(&before, &after, |both| write_folded(both, &mut out)).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), "app;main;a 7 3\napp;main;b 1 0\napp;main;c_[k] 0 2\n");
}

#[test]
fn nothing_compares_with_nothing() {
    let nothing = recording(Profile::default());
    assert!(table(&nothing, &nothing, 80).ends_with("Neither has any samples.\n"));
    let some = of("app", &[("main", 7)]);
    assert!(table(&nothing, &some, 80).contains("   0.0  100.0 +100.0 "));
}
