//! LZMA as `build.rs` writes it: what is inside of .xz and .lzma files, bare. Pure.
//!
//! The format: <https://7-zip.org/sdk.html>, `lzma-specification.txt`. What is decompressed is the dictionary, too, so that
//! nothing else is allocated, and there is no limit to how far back it reaches.

/// Its parameters, which `build.rs` compresses with: bits of the previous byte, and of the position, that choose how a literal
/// is coded. Programs and types are made of words, not of letters.
const LITERAL_POSITION_BITS: u32 = 2;
const POSITION_BITS: u32 = 2;
const POSITIONS: usize = 1 << POSITION_BITS;

const STATES: usize = 12;
const LENGTHS: usize = 2 + 2 * POSITIONS * 8 + 256;
const LITERAL: usize = 0x300;

// Where the probabilities of each kind begin.
const IS_MATCH: usize = 0;
const IS_REPEATED: usize = IS_MATCH + STATES * POSITIONS;
const IS_OLDER: usize = IS_REPEATED + STATES;
const IS_SHORT: usize = IS_OLDER + 3 * STATES;
const SLOTS: usize = IS_SHORT + STATES * POSITIONS;
const DISTANCES: usize = SLOTS + 4 * 64;
const ALIGNED: usize = DISTANCES + 115;
const MATCH_LENGTHS: usize = ALIGNED + 16;
const REPEATED_LENGTHS: usize = MATCH_LENGTHS + LENGTHS;
const LITERALS: usize = REPEATED_LENGTHS + LENGTHS;
const ALL: usize = LITERALS + (LITERAL << LITERAL_POSITION_BITS);

/// The range decoder with its probabilities, of 2048.
struct Decoder<'i> {
    input: &'i [u8],
    range: u32,
    code: u32,
    probabilities: Vec<u16>,
}

impl Decoder<'_> {
    /// What is missing at the end reads as zeros.
    fn normalize(&mut self) {
        if self.range < 1 << 24 {
            let (first, rest) = self.input.split_first().unwrap_or((&0, &[]));
            self.input = rest;
            self.range <<= 8;
            self.code = self.code << 8 | u32::from(*first);
        }
    }

    fn bit(&mut self, at: usize) -> usize {
        // All are there.
        let Some(probability) = self.probabilities.get_mut(at) else { return 0 };
        let bound = (self.range >> 11) * u32::from(*probability);
        let bit = self.code >= bound;
        if bit {
            self.range -= bound;
            self.code -= bound;
            *probability -= *probability >> 5;
        } else {
            self.range = bound;
            *probability += (2048 - *probability) >> 5;
        }
        self.normalize();
        bit.into()
    }

    /// Bits that are as likely to be 1 as 0.
    fn direct(&mut self, count: usize) -> usize {
        let mut bits = 0;
        for _ in 0..count {
            self.range >>= 1;
            let bit = self.code >= self.range;
            if bit {
                self.code -= self.range;
            }
            self.normalize();
            bits = bits << 1 | usize::from(bit);
        }
        bits
    }

    /// A number of that many bits, highest first.
    fn tree(&mut self, at: usize, count: u32) -> usize {
        let mut node = 1;
        for _ in 0..count {
            node = node << 1 | self.bit(at + node);
        }
        node - (1 << count)
    }

    /// A number of that many bits, lowest first.
    fn reversed(&mut self, at: usize, count: usize) -> usize {
        let (mut node, mut bits) = (1, 0);
        for shift in 0..count {
            let bit = self.bit(at + node);
            node = node << 1 | bit;
            bits |= bit << shift;
        }
        bits
    }

    /// A length less two.
    fn length(&mut self, at: usize, position: usize) -> usize {
        if self.bit(at) == 0 {
            self.tree(at + 2 + position * 8, 3)
        } else if self.bit(at + 1) == 0 {
            8 + self.tree(at + 2 + (POSITIONS + position) * 8, 3)
        } else {
            16 + self.tree(at + 2 + 2 * POSITIONS * 8, 8)
        }
    }

    /// How far back a match is, less one.
    fn distance(&mut self, length: usize) -> usize {
        let slot = self.tree(SLOTS + length.min(3) * 64, 6);
        if slot < 4 {
            return slot;
        }
        let bits = (slot >> 1) - 1;
        let base = (2 | slot & 1) << bits;
        if slot < 14 {
            base + self.reversed(DISTANCES + base - slot, bits)
        } else {
            let high = self.direct(bits - 4) << 4;
            base + high + self.reversed(ALIGNED, 4)
        }
    }

    /// A byte; `matched` is what was there last time, where the last match has just ended.
    fn literal(&mut self, at: usize, matched: Option<u8>) -> u8 {
        let mut symbol = 1;
        if let Some(matched) = matched {
            for shift in (0..8).rev() {
                let expected = usize::from(matched >> shift & 1);
                let bit = self.bit(at + ((1 + expected) << 8) + symbol);
                symbol = symbol << 1 | bit;
                if bit != expected {
                    break;
                }
            }
        }
        while symbol < 0x100 {
            symbol = symbol << 1 | self.bit(at + symbol);
        }
        symbol as u8
    }
}

/// Decompresses that many bytes. `None`: the input is damaged, so that a match reaches back beyond the beginning. That is not
/// always so: a checksum says more.
pub(crate) fn decompress(input: &[u8], len: usize) -> Option<Vec<u8>> {
    let (start, input) = input.split_at_checked(5)?;
    let code = start.iter().fold(0, |code, byte| code << 8 | u32::from(*byte));
    let mut decoder = Decoder { input, range: u32::MAX, code, probabilities: vec![1024; ALL] };
    let mut state = 0;
    let mut distances = [0; 4];
    let mut out = Vec::with_capacity(len);
    while out.len() < len {
        let position = out.len() % POSITIONS;
        if decoder.bit(IS_MATCH + state * POSITIONS + position) == 0 {
            let at = LITERALS + LITERAL * (out.len() % (1 << LITERAL_POSITION_BITS));
            let back = out.len().checked_sub(distances[0]).and_then(|back| back.checked_sub(1));
            let matched = if state < 7 { None } else { Some(*out.get(back?)?) };
            out.push(decoder.literal(at, matched));
            state = if state < 4 { 0 } else { state - if state < 10 { 3 } else { 6 } };
            continue;
        }
        let after_literal = state < 7;
        let length = if decoder.bit(IS_REPEATED + state) == 0 {
            state = if after_literal { 7 } else { 10 };
            let length = decoder.length(MATCH_LENGTHS, position);
            distances.rotate_right(1);
            distances[0] = decoder.distance(length);
            length + 2
        } else {
            // How old the distance is among those used last, and whether one byte comes from the newest.
            let mut age = 0;
            while age < 3 && decoder.bit(IS_OLDER + age * STATES + state) == 1 {
                age += 1;
            }
            if age == 0 && decoder.bit(IS_SHORT + state * POSITIONS + position) == 0 {
                state = if after_literal { 9 } else { 11 };
                1
            } else {
                distances.get_mut(..=age)?.rotate_right(1);
                state = if after_literal { 8 } else { 11 };
                decoder.length(REPEATED_LENGTHS, position) + 2
            }
        };
        let from = out.len().checked_sub(distances[0])?.checked_sub(1)?;
        for at in from..from + length.min(len - out.len()) {
            let byte = *out.get(at)?;
            out.push(byte);
        }
    }
    Some(out)
}
