//! Timing of several ways to do the same.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// A way takes its turn for so many runs, so that they find their own data in the caches.
const BURST: usize = 8;
/// How long all runs of a signal take.
const TOTAL: Duration = Duration::from_secs(4);
const MIN_ROUNDS: usize = 20;

type Run<'a> = Box<dyn FnMut() -> Duration + 'a>;

/// Ways to encode the same items.
pub struct Variants<'a> {
    what: &'a str,
    items: usize,
    bytes: usize,
    variants: Vec<(&'a str, Run<'a>)>,
}

impl<'a> Variants<'a> {
    /// `items` items of a kind, which take `bytes` bytes.
    pub fn new(what: &'a str, items: usize, bytes: usize) -> Self {
        Self { what, items, bytes, variants: Vec::new() }
    }

    /// A way that starts from what `setup` makes anew for each run, not timed.
    pub fn add_with<S, R>(
        &mut self,
        name: &'a str,
        mut setup: impl FnMut() -> S + 'a,
        mut run: impl FnMut(S) -> R + 'a,
    ) {
        self.variants.push((
            name,
            Box::new(move || {
                let input = setup();
                let start = Instant::now();
                let output = black_box(run(input));
                let took = start.elapsed();
                drop(output);
                took
            }),
        ));
    }

    /// A way that starts from the shared data.
    pub fn add<R>(&mut self, name: &'a str, mut run: impl FnMut() -> R + 'a) {
        self.add_with(name, || (), move |()| run());
    }

    /// Copying bytes, the least that anything takes which makes a message.
    pub fn add_memcpy(&mut self, bytes: &'a [u8]) {
        let mut copy = vec![0; bytes.len()];
        self.add("memcpy of the same bytes", move || {
            copy.copy_from_slice(black_box(bytes));
            black_box(&mut copy);
        });
    }

    /// Runs all, and prints a table. Ratios are of medians, against the first way.
    pub fn report(mut self) {
        let mut times: Vec<Vec<Duration>> = vec![Vec::new(); self.variants.len()];
        let start = Instant::now();
        let mut rounds = 0;
        while rounds < MIN_ROUNDS || start.elapsed() < TOTAL {
            for ((_, run), times) in self.variants.iter_mut().zip(&mut times) {
                times.extend((0..BURST).map(|_| run()));
            }
            rounds += 1;
        }
        let Self { what, items, bytes, .. } = self;
        println!(
            "{items} {what}, {bytes} bytes, {:.0} each; ns each, of {} runs",
            bytes as f64 / items as f64,
            rounds * BURST
        );
        println!("{:36}{:>10}{:>10}{:>10}{:>10}", "", "median", "minimum", "MB/s", "times");
        let mut first = None;
        for ((name, _), mut times) in self.variants.into_iter().zip(times) {
            times.sort_unstable();
            let each = |time: Duration| time.as_nanos() as f64 / items as f64;
            let (median, minimum) = (each(times[times.len() / 2]), each(times[0]));
            let first = *first.get_or_insert(median);
            let rate = bytes as f64 * 1e3 / (median * items as f64);
            println!("{name:36}{median:>10.1}{minimum:>10.1}{rate:>10.0}{:>10.1}", first / median);
        }
        println!();
    }
}
