//! Durations counted by `exponential.h` in the kernel, in the buckets of OTLP's exponential histograms.

/// Octaves that the kernel counts, from 2^-30 s on.
pub const OCTAVES: usize = 44;
/// Bucket index of the first slot at scale 0: it ends at 2^-29 s.
const FIRST_INDEX: i32 = -30;

/// Where the parts of an octave end, for a number between 1 and 2 with 63 fractional bits: 2^(j / 8).
const OCTAVE_PARTS: [u64; 8] = [
    0x8000_0000_0000_0000,
    0x8b95_c1e3_ea8b_d6e7,
    0x9837_f051_8db8_a96f,
    0xa5fe_d6a9_b151_38ea,
    0xb504_f333_f9de_6484,
    0xc567_2a11_5506_dadd,
    0xd744_fcca_d69d_6af4,
    0xeac0_c6e7_dd24_392f,
];

/// An exponential histogram of durations. Adding two is exact.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Exponential {
    /// OTLP's scale, 0 to 3: an octave has 2^scale buckets.
    pub scale: u8,
    /// Durations of 2^-30 s or less.
    pub zero: u64,
    /// Number of the first of `buckets`, counted from the bucket that begins at 2^-30 s.
    pub first_slot: u32,
    /// Counts of consecutive buckets, without empty ones at either end.
    pub buckets: Vec<u64>,
    /// Sum of all durations in nanoseconds.
    pub sum_nanos: u64,
    /// The longest, where it is known; 0 otherwise.
    pub max_nanos: u64,
}

impl Exponential {
    /// An empty one.
    pub fn new(scale: u8) -> Self {
        Self { scale, ..Self::default() }
    }

    /// From the kernel's slots: `slots[i]` is slot `i`.
    pub fn from_slots(scale: u8, zero: u64, slots: &[u64], sum_nanos: u64) -> Self {
        let mut all = Self { zero, sum_nanos, ..Self::new(scale) };
        slots.iter().enumerate().filter(|(_, n)| **n > 0).for_each(|(i, n)| all.add_slot(i as u32, *n));
        all
    }

    /// Adds to one slot. Those past the last are counted in it.
    pub fn add_slot(&mut self, slot: u32, count: u64) {
        if count == 0 {
            return;
        }
        let slot = slot.min(((OCTAVES as u32) << self.scale) - 1);
        if self.buckets.is_empty() {
            self.first_slot = slot;
        }
        if slot < self.first_slot {
            let missing = (self.first_slot - slot) as usize;
            self.buckets.resize(self.buckets.len() + missing, 0);
            self.buckets.rotate_right(missing);
            self.first_slot = slot;
        }
        let at = (slot - self.first_slot) as usize;
        if at >= self.buckets.len() {
            self.buckets.resize(at + 1, 0);
        }
        if let Some(bucket) = self.buckets.get_mut(at) {
            *bucket += count;
        }
    }

    /// Adds one duration, to the bucket in which the kernel would count it. (Its rounding, too: `duration_slot`.)
    pub fn add_nanos(&mut self, nanos: u64) {
        self.sum_nanos = self.sum_nanos.saturating_add(nanos);
        let units = nanos.saturating_add(((u128::from(nanos) * 77324) >> 20) as u64);
        let Some(below) = units.checked_sub(1).filter(|below| *below > 0) else {
            self.zero += 1;
            return;
        };
        let octave = below.ilog2();
        let step = OCTAVE_PARTS.len() >> self.scale;
        let parts = OCTAVE_PARTS.iter().step_by(step.max(1)).skip(1);
        let passed = parts.filter(|part| below >= **part >> (63 - octave)).count();
        self.add_slot((octave << self.scale) + passed as u32, 1);
    }

    /// Adds another. Of two scales, the coarser one counts; an empty one has none.
    pub fn merge(&mut self, other: &Self) {
        if self.scale != other.scale {
            if self.count() == 0 {
                self.clear();
                self.scale = other.scale;
            } else if other.count() > 0 {
                let scale = self.scale.min(other.scale);
                self.coarsen(scale);
                let mut other = other.clone();
                other.coarsen(scale);
                return self.merge(&other);
            }
        }
        self.zero += other.zero;
        self.sum_nanos += other.sum_nanos;
        self.max_nanos = self.max_nanos.max(other.max_nanos);
        other.buckets.iter().zip(other.first_slot..).for_each(|(n, slot)| self.add_slot(slot, *n));
    }

    /// Takes a smaller scale: 2^n neighbouring buckets become one, exactly.
    fn coarsen(&mut self, scale: u8) {
        let by = self.scale.saturating_sub(scale);
        if by == 0 {
            return;
        }
        let fine = std::mem::take(&mut self.buckets);
        self.scale = scale;
        // The first slot of all begins at 2^-30 s in every scale.
        fine.iter().zip(self.first_slot..).for_each(|(n, slot)| self.add_slot(slot >> by, *n));
    }

    /// Forgets all durations, and keeps scale and memory.
    pub fn clear(&mut self) {
        self.buckets.clear();
        (self.zero, self.first_slot, self.sum_nanos, self.max_nanos) = (0, 0, 0, 0);
    }

    /// How many durations.
    pub fn count(&self) -> u64 {
        self.zero + self.buckets.iter().sum::<u64>()
    }

    /// OTLP's `offset`: the bucket index of the first of `buckets`.
    pub fn offset(&self) -> i32 {
        (FIRST_INDEX << self.scale) + self.first_slot as i32
    }

    /// Sum in seconds.
    pub fn sum_seconds(&self) -> f64 {
        self.sum_nanos as f64 / 1e9
    }

    /// The upper end, in seconds, of the bucket in which the given share of the durations is reached; 0 if there are none.
    pub fn quantile(&self, share: f64) -> f64 {
        let wanted = (self.count() as f64 * share.clamp(0.0, 1.0)).ceil().max(1.0) as u64;
        let mut seen = self.zero;
        if self.count() == 0 || seen >= wanted {
            return 0.0;
        }
        for (n, index) in self.buckets.iter().zip(self.offset()..) {
            seen += n;
            if seen >= wanted {
                return 2f64.powf(f64::from(index + 1) / f64::from(1 << self.scale));
            }
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_in_any_order_make_the_same_histogram() {
        let mut a = Exponential::new(2);
        for slot in [90, 80, 100, 90] {
            a.add_slot(slot, 2);
        }
        let mut slots = vec![0; OCTAVES << 2];
        (slots[80], slots[90], slots[100]) = (2, 4, 2);
        assert_eq!(a, Exponential::from_slots(2, 0, &slots, 0));
        assert_eq!((a.offset(), a.buckets.len(), a.count()), (80 - 120, 21, 8));
        let mut twice = a.clone();
        twice.merge(&a);
        assert_eq!((twice.count(), twice.offset()), (16, a.offset()));
    }

    #[test]
    fn a_quantile_is_its_buckets_upper_end() {
        // Slot 20 of scale 0 is (2^-10, 2^-9] s.
        let mut a = Exponential::new(0);
        a.add_slot(20, 9);
        a.add_slot(30, 1);
        assert_eq!(a.quantile(0.5), 2f64.powi(-9));
        assert_eq!(a.quantile(0.99), 2.0);
        assert_eq!(Exponential::new(0).quantile(0.5), 0.0);
    }

    #[test]
    fn durations_are_in_the_bucket_that_holds_them() {
        for scale in 0..=3 {
            // Of a few nanoseconds, the kernel's rounding is more than a bucket.
            for nanos in [999, 1_000, 1_234_567, 1_000_000_000, 1 << 40] {
                let mut one = Exponential::new(scale);
                one.add_nanos(nanos);
                let upper = 2f64.powf(f64::from(one.offset() + 1) / f64::from(1 << scale));
                let lower = 2f64.powf(f64::from(one.offset()) / f64::from(1 << scale));
                let seconds = nanos as f64 / 1e9;
                assert!(lower < seconds * 1.001 && seconds <= upper * 1.001, "{nanos} ns at scale {scale}");
                assert_eq!((one.buckets.as_slice(), one.sum_nanos), ([1].as_slice(), nanos));
            }
        }
        let mut all = Exponential::new(1);
        [0, 1, u64::MAX].into_iter().for_each(|nanos| all.add_nanos(nanos));
        assert_eq!((all.zero, all.count()), (2, 3));
    }

    #[test]
    fn of_two_scales_the_coarser_counts() {
        let mut fine = Exponential { sum_nanos: 5, max_nanos: 5, ..Exponential::new(3) };
        fine.add_slot(83, 1);
        fine.add_slot(88, 2);
        let mut coarse = Exponential::new(1);
        coarse.add_slot(21, 4);
        let expected = Exponential {
            first_slot: 20,
            buckets: vec![1, 4, 2],
            sum_nanos: 5,
            max_nanos: 5,
            ..Exponential::new(1)
        };
        let mut a = coarse.clone();
        a.merge(&fine);
        let mut b = fine.clone();
        b.merge(&coarse);
        assert_eq!((a, b), (expected.clone(), expected));
        let mut empty = Exponential::new(0);
        empty.merge(&fine);
        assert_eq!(empty, fine);
        empty.merge(&Exponential::new(0));
        assert_eq!(empty, fine);
    }

    #[test]
    fn slots_past_the_last_are_counted_in_it() {
        let mut a = Exponential::new(0);
        a.add_slot(u32::MAX, 1);
        assert_eq!((a.first_slot, a.buckets.as_slice()), (OCTAVES as u32 - 1, [1].as_slice()));
    }
}
