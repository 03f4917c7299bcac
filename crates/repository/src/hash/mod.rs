//! SHA-256, the hash that names everything in a repository.
//!
//! One SHA-256 stream cannot fill a core: each round waits for the one before. Two independent streams computed in
//! lockstep ([`update_pair`], [`sha256_many`]) take turns in the processor's hash unit and come close to twice the rate.
//! Where the processor has no such unit, the library's implementation serves, one stream after the other.
//!
//! Knows only bytes and ids; not what they are in a repository.
#[cfg(target_arch = "x86_64")]
mod sha_ni;

use aws_lc_rs::digest;

use crate::id::Id;

/// A SHA-256 that is fed piece by piece.
pub struct Sha256(Implementation);

enum Implementation {
    #[cfg(target_arch = "x86_64")]
    ShaNi(sha_ni::Sha256),
    Library(digest::Context),
}

impl Default for Sha256 {
    fn default() -> Self {
        Sha256::new()
    }
}

impl Sha256 {
    /// The hash of nothing yet.
    pub fn new() -> Sha256 {
        #[cfg(target_arch = "x86_64")]
        if let Some(hasher) = sha_ni::Sha256::new() {
            return Sha256(Implementation::ShaNi(hasher));
        }
        Sha256::of_library()
    }

    fn of_library() -> Sha256 {
        Sha256(Implementation::Library(digest::Context::new(&digest::SHA256)))
    }

    /// Appends `data` to what is hashed.
    pub fn update(&mut self, data: &[u8]) {
        match &mut self.0 {
            #[cfg(target_arch = "x86_64")]
            Implementation::ShaNi(hasher) => hasher.update(data),
            Implementation::Library(context) => context.update(data),
        }
    }

    /// The hash of all that was appended.
    pub fn finish(self) -> Id {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Implementation::ShaNi(hasher) => Id(hasher.finish()),
            Implementation::Library(context) => id_of(context.finish()),
        }
    }
}

fn id_of(digest: digest::Digest) -> Id {
    Id(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
}

/// The hash of `data`.
pub fn sha256(data: &[u8]) -> Id {
    let mut hasher = Sha256::new();
    hasher.update(data);
    hasher.finish()
}

/// Appends to two independent hashes at once: nearly twice as fast as one after the other over the length both have.
pub fn update_pair(a: &mut Sha256, data_a: &[u8], b: &mut Sha256, data_b: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    if let (Implementation::ShaNi(a), Implementation::ShaNi(b)) = (&mut a.0, &mut b.0) {
        sha_ni::update_pair(a, data_a, b, data_b);
        return;
    }
    a.update(data_a);
    b.update(data_b);
}

/// The hashes of all `items`, in their order. Two at a time are in work; the next item follows in whichever place
/// becomes free, so that lengths may differ.
pub fn sha256_many(items: &[&[u8]]) -> Vec<Id> {
    #[cfg(target_arch = "x86_64")]
    if let Some(ids) = sha_ni::sha256_many(items) {
        return ids;
    }
    items.iter().map(|data| id_of(digest::digest(&digest::SHA256, data))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::rand;

    fn library(data: &[u8]) -> Id {
        id_of(digest::digest(&digest::SHA256, data))
    }

    fn random(length: usize) -> Vec<u8> {
        let mut data = vec![0; length];
        rand::fill(&mut data).unwrap();
        data
    }

    /// Around every length at which the padding or the number of blocks changes, then longer ones.
    fn lengths() -> impl Iterator<Item = usize> {
        (0..=200).chain([255, 256, 257, 1000, 4095, 4096, 4097, 65_537])
    }

    #[test]
    fn the_hash_of_abc_is_the_standards_example() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(b"abc").to_string(), expected);
        let mut portable = Sha256::of_library();
        portable.update(b"abc");
        assert_eq!(portable.finish().to_string(), expected);
    }

    #[test]
    fn hashes_equal_the_librarys_at_every_length_and_alignment() {
        let data = random(70_000);
        for length in lengths() {
            for offset in [0, 1, 7, 15, 33] {
                let part = &data[offset..offset + length];
                assert_eq!(sha256(part), library(part), "{length} bytes at {offset}");
            }
        }
    }

    #[test]
    fn pieces_of_any_size_hash_like_the_whole() {
        let data = random(5000);
        for piece in [1, 3, 55, 56, 63, 64, 65, 127, 128, 129, 1000] {
            let mut hasher = Sha256::new();
            data.chunks(piece).for_each(|part| hasher.update(part));
            assert_eq!(hasher.finish(), library(&data), "pieces of {piece}");
        }
    }

    #[test]
    fn a_pair_hashes_like_each_alone() {
        let data = random(70_000);
        for length_a in lengths() {
            for length_b in [0, 1, 55, 64, 65, 128, 1000, 65_536] {
                for before in [0, 1, 63, 64] {
                    let (mut a, mut b) = (Sha256::new(), Sha256::new());
                    a.update(&data[..before]);
                    let (data_a, data_b) = (&data[before..before + length_a], &data[1..1 + length_b]);
                    update_pair(&mut a, data_a, &mut b, data_b);
                    update_pair(&mut a, b"end", &mut b, b"");
                    let whole = [&data[..before + length_a], b"end"].concat();
                    assert_eq!(a.finish(), library(&whole), "{before} + {length_a} with {length_b}");
                    assert_eq!(b.finish(), library(data_b), "{length_b} with {length_a}");
                }
            }
        }
    }

    #[test]
    fn a_pair_of_which_one_cannot_interleave_hashes_like_each_alone() {
        let data = random(1000);
        let (mut a, mut b) = (Sha256::new(), Sha256::of_library());
        update_pair(&mut a, &data, &mut b, &data[1..]);
        assert_eq!(a.finish(), library(&data));
        assert_eq!(b.finish(), library(&data[1..]));
    }

    #[test]
    fn many_of_different_lengths_hash_like_each_alone() {
        let data = random(70_000);
        let mut items: Vec<&[u8]> = lengths().map(|length| &data[length % 61..length % 61 + length]).collect();
        items.extend(lengths().step_by(2).map(|length| &data[..length]));
        for count in [0, 1, 2, 3, 4, 5, items.len() - 1, items.len()] {
            let expected: Vec<Id> = items[..count].iter().map(|data| library(data)).collect();
            assert_eq!(sha256_many(&items[..count]), expected, "{count} items");
        }
        items.reverse();
        let expected: Vec<Id> = items.iter().map(|data| library(data)).collect();
        assert_eq!(sha256_many(&items), expected);
    }
}
