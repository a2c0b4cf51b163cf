//! The profiler as a tracer: its frequency is lowered while it runs, and its profiles say so.

use std::time::{Duration, Instant};

use collector::telemetry::Recorder;
use collector::tracer::{Settings, profile};

use super::start;

#[test]
fn a_lower_frequency_counts_at_once_and_profiles_say_which() {
    let Some(started) = start(&profile::INFO, std::process::id(), &Settings::default(), &[]) else { return };
    let mut tracer = started.unwrap();
    let mut window = |one_in: Option<u32>| {
        let mut recorder = Recorder::default();
        if let Some(one_in) = one_in {
            tracer.set_sampling(one_in).unwrap();
            tracer.collect(&mut recorder).unwrap();
            recorder.profiles.extend(tracer.settle(None).unwrap());
        }
        recorder = Recorder::default();
        let end = Instant::now() + Duration::from_secs(3);
        while Instant::now() < end {
            std::hint::black_box(0u64);
        }
        tracer.drain(&mut recorder).unwrap();
        tracer.collect(&mut recorder).unwrap();
        recorder.profiles.extend(tracer.settle(None).unwrap());
        let profile = recorder.profiles.pop().unwrap();
        let samples: u64 = profile.samples.iter().map(|sample| sample.count).sum();
        let ends = recorder.numbers.iter().filter(|(series, _)| series.metric == "ebpf.profile.stacks");
        let walked: f64 = ends.map(|(_, count)| count).sum();
        let is_walked = cfg!(all(feature = "unwind", any(target_arch = "x86_64", target_arch = "aarch64")));
        assert!(walked > 0.0 || !is_walked, "no stack has ended");
        let lost = profile.losses.skipped;
        (samples, profile.period_nanos, lost)
    };
    // This thread is busy; on a busy machine it gets a part of a CPU.
    let (samples, period, _) = window(None);
    assert_eq!(period, 1_000_000_000 / 19);
    let (fewer, longer, lost) = window(Some(4));
    assert_eq!(longer, period * 4);
    // Threads of other tests count too, on every CPU.
    let most = 15 * std::thread::available_parallelism().unwrap().get() as u64;
    assert!((1..=most).contains(&fewer) && fewer < samples, "{fewer} of {samples}");
    assert!(lost <= 6, "{lost} periods skipped");
    let (_, period_again, _) = window(Some(1));
    assert_eq!(period_again, period);

    // Within a window: what was sampled before stays, with the period that it had.
    let mut recorder = Recorder::default();
    let busy = || {
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end {
            std::hint::black_box(0u64);
        }
    };
    busy();
    assert_eq!(tracer.set_sampling(4).unwrap(), 4);
    busy();
    assert_eq!(tracer.set_sampling(1 << 20).unwrap(), 19, "one a second is the least");
    tracer.collect(&mut recorder).unwrap();
    recorder.profiles.extend(tracer.settle(None).unwrap());
    let periods: Vec<u64> = recorder.profiles.iter().map(|profile| profile.period_nanos).collect();
    assert_eq!(periods[..2], [period, 4 * period]);
}
