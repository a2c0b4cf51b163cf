use std::collections::BTreeMap;
use std::io::Write;

use super::*;
use crate::convert::fixture;
use crate::convert::profiles::{DEFAULT_MAX_REQUEST, ProfilesEncoder};
use crate::model::{FrameKind, Losses};
use crate::output::names::{Names, samples};
use crate::output::{fixture as pictured, folded};

fn seed(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/read_profile").join(name))
        .unwrap()
}

fn lines(profile: &Profile) -> BTreeMap<String, u64> {
    let mut out = Vec::new();
    folded::write(profile, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let split = text.lines().map(|line| line.rsplit_once(' ').unwrap());
    split.map(|(stack, count)| (stack.to_owned(), count.parse().unwrap())).collect()
}

/// Without the names of processes, which formats have from elsewhere.
fn stacks(profile: &Profile) -> BTreeMap<String, u64> {
    let mut stacks = BTreeMap::new();
    for (line, count) in lines(profile) {
        *stacks.entry(line.split_once(';').unwrap().1.to_owned()).or_default() += count;
    }
    stacks
}

fn pprof(profile: &Profile) -> Vec<u8> {
    let mut file = Vec::new();
    crate::convert::pprof::write(profile, &mut file).unwrap();
    file
}

fn requests(profile: &Profile, limit: usize) -> Vec<Vec<u8>> {
    let mut requests = Vec::new();
    ProfilesEncoder::new(1, limit)
        .encode(profile, [7; 16], |request, _| requests.push(request.to_vec()))
        .unwrap();
    requests
}

fn json_lines(requests: &[Vec<u8>]) -> String {
    let descriptor = otlp_encode::profiles::ExportProfilesServiceRequest::descriptor();
    let mut text = String::new();
    for request in requests {
        otlp_encode::json::transcode(descriptor, request, &mut text).unwrap();
        text.push('\n');
    }
    text
}

fn parse(bytes: &[u8], source: Source) -> Recording {
    Recording::parse(bytes, source, None).unwrap()
}

fn fail(bytes: &[u8], source: Source) -> String {
    Recording::parse(bytes, source, None).unwrap_err().to_string()
}

#[test]
fn endings_tell_what_a_file_is() {
    let of = |path: &str| Source::from_path(Path::new(path));
    assert_eq!(of("/a.b/cpu.pb.gz"), Some(Source::Pprof));
    assert_eq!(of("cpu.pprof"), Some(Source::Pprof));
    assert_eq!(of("x.profiles.otlp"), Some(Source::Otlp));
    assert_eq!(of("x.jsonl"), Some(Source::OtlpJsonLines));
    assert_eq!(of("x.folded"), Some(Source::Folded));
    assert_eq!([of("x.svg"), of("folded"), of("/"), of("")], [None; 4]);
}

#[test]
fn what_is_written_is_read() {
    for profile in [fixture::profile(), pictured::server(), fixture::large(3000)] {
        let mut expected = stacks(&profile);
        let request = requests(&profile, usize::MAX).concat();
        let json = json_lines(&requests(&profile, 100_000));
        for (bytes, source) in [(&*request, Source::Otlp), (json.as_bytes(), Source::OtlpJsonLines)] {
            let read = parse(bytes, source);
            assert_eq!(stacks(&read.profile), expected);
            let (mine, its) = (&read.profile, &profile);
            assert_eq!(mine.losses, its.losses);
            assert_eq!(
                (mine.start_unix_nanos, mine.duration_nanos),
                (its.start_unix_nanos, its.duration_nanos)
            );
            assert_eq!(
                (mine.period_nanos, read.value.to_string()),
                (its.period_nanos, "samples of cpu".into())
            );
        }
        let mut text = Vec::new();
        folded::write(&profile, &mut text).unwrap();
        assert_eq!(lines(&parse(&text, Source::Folded).profile), lines(&profile));
        // pprof does not say which code was made at run time.
        expected = expected.into_iter().map(|(stack, count)| (stack.replace("_[j]", ""), count)).collect();
        let read = parse(&pprof(&profile), Source::Pprof);
        assert_eq!(stacks(&read.profile), expected);
        assert_eq!(read.profile.losses, profile.losses);
        assert_eq!(read.profile.period_nanos, profile.period_nanos);
        assert_eq!(read.others.iter().map(|value| &*value.kind).collect::<Vec<_>>(), ["cpu"]);
    }
}

#[test]
fn values_are_samples_or_the_time_that_they_stand_for() {
    let profile = pictured::server();
    let file = pprof(&profile);
    let time = Recording::parse(&file, Source::Pprof, Some("cpu")).unwrap();
    assert_eq!(time.profile.period_nanos, 1);
    let sum = |profile: &Profile| samples(profile).map(|sample| sample.count).sum::<u64>();
    assert_eq!(sum(&time.profile), sum(&profile) * profile.period_nanos);
    let error = Recording::parse(&file, Source::Pprof, Some("wall")).unwrap_err().to_string();
    assert_eq!(error, "has no sample type \"wall\", but samples of cpu, cpu (nanoseconds)");
}

/// As `run` writes them: one after the other, each behind its length.
#[test]
fn requests_behind_their_lengths_are_one_profile() {
    let profile = fixture::large(3000);
    let requests = requests(&profile, 100_000);
    assert!(requests.len() > 3);
    let mut file = Vec::new();
    for request in &requests {
        prost::encoding::encode_varint(request.len() as u64, &mut file);
        file.extend(request);
    }
    assert_eq!(stacks(&parse(&file, Source::Otlp).profile), stacks(&profile));
    assert!(requests.concat().len() > DEFAULT_MAX_REQUEST / 100);
}

#[test]
fn processes_have_the_names_of_their_first_threads() {
    let read = parse(&requests(&pictured::server(), usize::MAX).concat(), Source::Otlp);
    assert_eq!(lines(&read.profile), {
        let mut expected = pictured::server();
        for process in &mut expected.processes {
            process.comm = process.comm.as_deref().map(|comm| crate::output::names::clean(comm).into());
        }
        lines(&expected)
    });
}

/// What `go tool pprof -top` says of the same files (go 1.19).
#[test]
fn files_of_go_are_read_as_its_own_tool_does() {
    let tops = |name: &str, wanted| {
        let read = Recording::parse(&seed(name), Source::Pprof, wanted).unwrap();
        let names = Names::new(&read.profile);
        let (mut own, mut total) = (BTreeMap::<String, u64>::new(), BTreeMap::<String, u64>::new());
        for sample in samples(&read.profile) {
            let calls: Vec<_> = names.leaf_first(sample.stack).map(|call| call.name.to_string()).collect();
            *own.entry(calls[0].clone()).or_default() += sample.count;
            for call in calls.iter().collect::<std::collections::BTreeSet<_>>() {
                *total.entry(call.clone()).or_default() += sample.count;
            }
        }
        (read, own, total)
    };
    let (read, own, total) = tops("go-cpu.pb.gz", None);
    assert_eq!((own["crypto/sha256.block"], own["sort.partition"], own["runtime.getMCache"]), (138, 4, 1));
    assert_eq!((total["sort.partition"], total["sort.StringSlice.Less"]), (6, 3));
    assert_eq!((read.profile.period_nanos, own.values().sum::<u64>()), (10_000_000, 148));
    assert_eq!(&*Names::new(&read.profile).process(crate::model::ProcessIdx(0)), "work");
    let (read, own, _) = tops("go-heap.pb.gz", None);
    assert_eq!((read.value.to_string(), read.profile.period_nanos), ("inuse_space (bytes)".into(), 0));
    assert_eq!(own["main.main"] / 1024, 12147);
    assert_eq!(read.others.len(), 3);
    let (_, own, _) = tops("go-cpu-2.pb.gz", Some("cpu"));
    assert_eq!(own["crypto/sha256.block"], 870_000_000);
}

/// A message of fields: numbers, and what has a length.
#[derive(Default)]
struct Proto(Vec<u8>);

impl Proto {
    fn number(mut self, field: u8, value: i64) -> Self {
        self.0.push(field << 3);
        prost::encoding::encode_varint(value as u64, &mut self.0);
        self
    }

    fn bytes(mut self, field: u8, content: &[u8]) -> Self {
        self.0.push(field << 3 | 2);
        prost::encoding::encode_varint(content.len() as u64, &mut self.0);
        self.0.extend(content);
        self
    }

    fn of(self, field: u8, content: Self) -> Self {
        self.bytes(field, &content.0)
    }
}

fn proto() -> Proto {
    Proto::default()
}

/// No mappings, no period, an unknown field of every wire type, tables in any order.
fn unusual(sample: Proto) -> Vec<u8> {
    let texts = ["", "wall", "milliseconds", "samples", "count", "main", "leaf\u{1b}", "inlined"];
    let function = |id, name| proto().number(1, id).number(2, name);
    let line = |function| proto().number(1, function).number(2, 12);
    let mut message = proto()
        .of(4, proto().number(1, 900).of(4, line(3)).of(4, line(2)))
        .of(2, sample)
        .of(4, proto().number(1, 7).number(3, 0x40).of(4, line(1)));
    for (id, name) in [(1, 5), (2, 6), (3, 7)] {
        message = message.of(5, function(id, name));
    }
    for text in texts {
        message = message.bytes(6, text.as_bytes());
    }
    message = message.of(1, proto().number(1, 3).number(2, 4)).of(1, proto().number(1, 1).number(2, 2));
    message.0.extend(b"\x79........\x7d....\x7a\x03abc\x78\x05");
    message.0
}

#[test]
fn unusual_pprof_is_read() {
    let packed = proto().bytes(1, b"\x84\x07\x07").bytes(2, b"\x03\x1e");
    let unpacked = proto().number(2, 3).number(1, 900).number(2, 30).number(1, 7);
    for sample in [packed, unpacked] {
        let file = unusual(sample);
        let read = parse(&file, Source::Pprof);
        assert_eq!(lines(&read.profile), BTreeMap::from([("[unknown];main;leaf?;inlined".to_owned(), 3)]));
        assert_eq!(read.profile.period_nanos, 0);
        let wall = Recording::parse(&file, Source::Pprof, Some("wall")).unwrap();
        assert_eq!((wall.profile.samples[0].count, wall.profile.period_nanos), (30, 1_000_000));
        assert_eq!(wall.value.to_string(), "wall (milliseconds)");
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&file).unwrap();
        assert_eq!(parse(&gzip.finish().unwrap(), Source::Pprof), read);
    }
}

#[test]
fn negative_values_are_left_out_and_counted() {
    let read = parse(&unusual(proto().number(2, -5).number(2, 1).number(1, 7)), Source::Pprof);
    assert_eq!((read.negative, read.profile.samples.len()), (1, 0));
}

#[test]
fn what_leads_nowhere_is_named() {
    let of = |sample| fail(&unusual(sample), Source::Pprof);
    assert_eq!(
        of(proto().number(1, 8).number(2, 1).number(2, 1)),
        "refers to 8 of its locations, which is not there"
    );
    assert_eq!(of(proto().number(1, 7).number(3, 1)), "the label at byte 0 is malformed");
    assert_eq!(of(proto().number(1, 7)), "refers to 0 of its values, which is not there");
    assert_eq!(fail(b"", Source::Pprof), "holds no profile");
    assert_eq!(fail(b"", Source::Otlp), "holds no profile");
    assert_eq!(fail(b"\x0a\x7f", Source::Pprof), "the pprof message at byte 2 is malformed");
    assert_eq!(fail(b"\x1f\x8b\x08", Source::Pprof), "cannot be unpacked");
    assert_eq!(fail(b"a;b 3\n\na;b x\n", Source::Folded), "line 3 is not a stack with a count behind it");
    assert_eq!(fail(b"{\"resourceProfiles\":3}", Source::OtlpJsonLines), {
        "line 1 is not a request of profiles in OTLP JSON"
    });
    assert_eq!(fail(b"\n{", Source::OtlpJsonLines), "line 2 is no profile in OTLP JSON");
}

#[test]
fn cut_anywhere_nothing_panics() {
    let request = requests(&fixture::profile(), usize::MAX).concat();
    let json = json_lines(&requests(&fixture::profile(), usize::MAX));
    let sample = proto().number(2, 3).number(1, 900).number(2, 30).number(1, 7);
    let files = [
        (request, Source::Otlp),
        (json.into_bytes(), Source::OtlpJsonLines),
        (unusual(sample), Source::Pprof),
        (seed("go-cpu.pb.gz"), Source::Pprof),
    ];
    for (file, source) in files {
        for end in 0..file.len() {
            let _ = Recording::parse(&file[..end], source, None);
        }
    }
}

#[test]
fn long_texts_and_deep_stacks_are_cut() {
    let long = "x".repeat(MAX_TEXT + 1);
    let deep = vec!["f"; MAX_DEPTH + 5].join(";");
    let file = format!("p;main;{deep};leaf 1\np;{long} 1\n");
    let read = parse(file.as_bytes(), Source::Folded);
    assert_eq!(read.cut, 1);
    let names = Names::new(&read.profile);
    let mut stacks = (0..2).map(|n| names.leaf_first(crate::model::StackIdx(n)).collect::<Vec<_>>());
    let stack = stacks.next().unwrap();
    assert_eq!((stack.len(), &**stack[0].name), (MAX_DEPTH, "leaf"));
    let name = stacks.next().unwrap()[0].name.clone();
    assert_eq!((name.chars().count(), name.chars().last()), (MAX_TEXT + 1, Some('\u{2026}')));
}

/// A gzip of zeros is a thousandth of what it holds.
#[test]
fn what_unpacks_to_too_much_is_refused() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let zeros = vec![0; 1 << 20];
    for _ in 0..257 {
        gzip.write_all(&zeros).unwrap();
    }
    let file = gzip.finish().unwrap();
    assert!(file.len() < 4 << 20);
    assert_eq!(fail(&file, Source::Pprof), "has more than 268435456 bytes unpacked, which is too much");
}

/// A few stacks that very many processes share, which would be as many calls.
#[test]
fn calls_are_bounded() {
    let stack = vec!["f"; 1000].join(";");
    let mut file = String::new();
    for n in 0..70 {
        file.push_str(&format!("p{n};{stack} 1\n"));
    }
    assert!(Recording::parse(file.as_bytes(), Source::Folded, None).is_ok());
    let frames = vec![crate::model::FrameIdx(0); 1000];
    let mut builder = build::Builder::new();
    let line = crate::model::Line { function: "f".into(), system_name: None, file: None, line: 0 };
    let frame =
        crate::model::Frame { kind: FrameKind::Native, mapping: None, address: 0, lines: vec![line; 1000] };
    builder.frame(frame).unwrap();
    let stack = builder.stack(frames).unwrap();
    let added = (0..100).try_for_each(|pid| {
        let process = builder.process(crate::model::Process { pid, ..Default::default() })?;
        builder.sample(process, stack, 1)
    });
    assert!(matches!(added, Err(ReadError::TooLarge { what: "calls on different stacks", .. })));
}

#[test]
fn losses_of_one_window_count_once() {
    let profile = fixture::profile();
    assert_ne!(profile.losses, Losses::default());
    // Three processes are three profiles, each of which says what the machine lost.
    let read = parse(&requests(&profile, usize::MAX).concat(), Source::Otlp);
    assert_eq!((read.profile.processes.len(), read.profile.losses), (3, profile.losses));
}
