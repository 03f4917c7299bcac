//! Random numbers and prose from a fixed seed: the same on every machine and in every run.

/// SplitMix64 (Steele, Lea, Flood 2014): 64 bits of state, no bad seeds, and fast enough to write data with.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `bound`. The bias is below one in a billion for the bounds in use here.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// From `low` up to and not including `high`.
    pub(crate) fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low)
    }

    /// Less than `bound`, small numbers more often: as words are used in a language.
    pub(crate) fn skewed_below(&mut self, bound: usize) -> usize {
        let unit = self.next() as f64 / u64::MAX as f64;
        ((unit * unit * unit * bound as f64) as usize).min(bound - 1)
    }

    /// Appends `count` bytes that nothing can compress.
    pub(crate) fn bytes(&mut self, out: &mut Vec<u8>, count: usize) {
        let end = out.len() + count;
        while out.len() < end {
            out.extend_from_slice(&self.next().to_le_bytes());
        }
        out.truncate(end);
    }
}

/// Made-up words, the common ones first.
pub(crate) struct Vocabulary(Vec<String>);

impl Vocabulary {
    pub(crate) fn new(count: usize) -> Vocabulary {
        const ONSETS: [&str; 20] =
            ["b", "br", "c", "d", "dr", "f", "g", "gl", "h", "k", "l", "m", "n", "p", "pr", "r", "s", "st", "t", "v"];
        const RIMES: [&str; 16] =
            ["a", "an", "ar", "e", "el", "en", "er", "i", "in", "is", "o", "on", "or", "u", "um", "us"];
        let mut random = Random::new(0x0076_6f63_6162);
        let word = |index: usize| {
            // Common words are short.
            let syllables = 1 + random.below(2) + usize::from(index > count / 8);
            (0..syllables).map(|_| [ONSETS[random.below(20)], RIMES[random.below(16)]].concat()).collect()
        };
        Vocabulary((0..count).map(word).collect())
    }

    /// A word, common ones more often.
    pub(crate) fn word(&self, random: &mut Random) -> &str {
        &self.0[random.skewed_below(self.0.len())]
    }

    /// Appends words, a blank between two.
    pub(crate) fn words(&self, random: &mut Random, out: &mut Vec<u8>, count: usize) {
        for index in 0..count {
            if index > 0 {
                out.push(b' ');
            }
            out.extend_from_slice(self.word(random).as_bytes());
        }
    }
}
