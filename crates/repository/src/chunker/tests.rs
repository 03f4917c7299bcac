use super::*;
use crate::hash::sha256;
use aws_lc_rs::rand;

/// The polynomial of restic/chunker's own tests.
fn polynomial() -> Polynomial {
    "3DA3358B4DC173".parse().unwrap()
}

/// The data of restic/chunker's own tests: Uint32() of Go's math/rand, seeded with 23. That generator adds two of its
/// earlier numbers of 63 bits; the file has the first 607, from which all the others follow.
fn restics_data() -> Vec<u8> {
    const SEEDED: &[u8] = include_bytes!("testdata/go_rand_seed_23.bin");
    let mut numbers: Vec<u64> = SEEDED.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
    for next in numbers.len()..32 * 1024 * 1024 / 4 {
        numbers.push(numbers[next - 607].wrapping_add(numbers[next - 273]) & (u64::MAX >> 1));
    }
    numbers.iter().flat_map(|number| ((number >> 31) as u32).to_le_bytes()).collect()
}

fn random(length: usize) -> Vec<u8> {
    let mut data = vec![0; length];
    rand::fill(&mut data).unwrap();
    data
}

/// Data of which the fingerprint is zero over and over: zeros, between random bytes.
fn with_holes(length: usize) -> Vec<u8> {
    let mut data = random(length);
    for hole in data.chunks_mut(700_000) {
        let length = hole.len().min(600_000);
        hole[..length].fill(0);
    }
    data
}

/// restic's algorithm as it is defined: one byte after the other through a window, without any table.
fn reference_cut(polynomial: Polynomial, data: &[u8]) -> Option<usize> {
    let append = |digest: u64, byte: u8| polynomial.reduce(u128::from(digest) << 8 | u128::from(byte));
    let leaving: Vec<u64> =
        (0..=255u8).map(|byte| (1..WINDOW_BYTES).fold(u64::from(byte), |digest, _| append(digest, 0))).collect();
    let mut window = [0; WINDOW_BYTES];
    let mut position = 0;
    let mut digest = 0;
    let mut slide = |byte: u8| {
        digest = append(digest ^ leaving[usize::from(window[position])], byte);
        window[position] = byte;
        position = (position + 1) % WINDOW_BYTES;
        digest
    };
    slide(1);
    for (index, byte) in data.iter().enumerate().skip(MIN_BYTES - WINDOW_BYTES) {
        let digest = slide(*byte);
        let count = index + 1;
        if count >= MIN_BYTES && (digest & CUT_MASK == 0 || count >= MAX_BYTES) {
            return Some(count);
        }
    }
    None
}

/// The vector code where the processor has the instructions, and what all others use.
fn chunkers(polynomial: Polynomial) -> [Chunker; 2] {
    [Chunker::new(polynomial), Chunker::portable(polynomial)]
}

/// Cuts all of `data`, fed in pieces of `piece` bytes.
fn chunk_lengths(chunker: &Chunker, data: &[u8], piece: usize) -> Vec<usize> {
    let mut lengths = Vec::new();
    let (mut start, mut scanned, mut gathered) = (0, 0, 0);
    while start < data.len() {
        gathered = (gathered + piece).min(data.len() - start);
        match chunker.find_cut(&data[start..start + gathered], scanned) {
            Some(length) => {
                lengths.push(length);
                start += length;
                gathered -= length;
                scanned = 0;
            }
            None if start + gathered == data.len() => {
                lengths.push(gathered);
                start = data.len();
            }
            None => scanned = gathered,
        }
    }
    lengths
}

fn reference_lengths(polynomial: Polynomial, mut data: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while !data.is_empty() {
        let length = reference_cut(polynomial, data).unwrap_or(data.len());
        lengths.push(length);
        data = &data[length..];
    }
    lengths
}

/// The lengths and hashes of the chunks of [`restics_data`], from restic/chunker's own test.
#[rustfmt::skip]
const RESTICS_CHUNKS: [(usize, &str); 23] = [
    (2163460, "4b94cb2cf293855ea43bf766731c74969b91aa6bf3c078719aabdd19860d590d"),
    (643703, "5727a63c0964f365ab8ed2ccf604912f2ea7be29759a2b53ede4d6841e397407"),
    (1528956, "a73759636a1e7a2758767791c69e81b69fb49236c6929e5d1b654e06e37674ba"),
    (1955808, "c955fb059409b25f07e5ae09defbbc2aadf117c97a3724e06ad4abd2787e6824"),
    (2222372, "6ba5e9f7e1b310722be3627716cf469be941f7f3e39a4c3bcefea492ec31ee56"),
    (2538687, "8687937412f654b5cfe4a82b08f28393a0c040f77c6f95e26742c2fc4254bfde"),
    (609606, "5da820742ff5feb3369112938d3095785487456f65a8efc4b96dac4be7ebb259"),
    (1205738, "cc70d8fad5472beb031b1aca356bcab86c7368f40faa24fe5f8922c6c268c299"),
    (959742, "4065bdd778f95676c92b38ac265d361f81bff17d76e5d9452cf985a2ea5a4e39"),
    (4036109, "b9cf166e75200eb4993fc9b6e22300a6790c75e6b0fc8f3f29b68a752d42f275"),
    (1525894, "2f238180e4ca1f7520a05f3d6059233926341090f9236ce677690c1823eccab3"),
    (1352720, "afd12f13286a3901430de816e62b85cc62468c059295ce5888b76b3af9028d84"),
    (811884, "42d0cdb1ee7c48e552705d18e061abb70ae7957027db8ae8db37ec756472a70a"),
    (1282314, "819721c2457426eb4f4c7565050c44c32076a56fa9b4515a1c7796441730eb58"),
    (1318021, "842eb53543db55bacac5e25cb91e43cc2e310fe5f9acc1aee86bdf5e91389374"),
    (948640, "b8e36bf7019bb96ac3fb7867659d2167d9d3b3148c09fe0de45850b8fe577185"),
    (645464, "5584bd27982191c3329f01ed846bfd266e96548dfa87018f745c33cfc240211d"),
    (533758, "4da778a25b72a9a0d53529eccfe2e5865a789116cb1800f470d8df685a8ab05d"),
    (1128303, "08c6b0b38095b348d80300f0be4c5184d2744a17147c2cba5cc4315abf4c048f"),
    (800374, "820284d2c8fd243429674c996d8eb8d3450cbc32421f43113e980f516282c7bf"),
    (2453512, "5fa870ed107c67704258e5e50abe67509fb73562caf77caa843b5f243425d853"),
    (2651975, "181347d2bbec32bef77ad5e9001e6af80f6abcf3576549384d334ee00c1988d8"),
    (237392, "fcd567f5d866357a8e299fd5b2359bb2c8157c30395229c4e9b0a353944a7978"),
];

#[test]
fn chunks_are_those_of_restics_own_tests() {
    let data = restics_data();
    for chunker in chunkers(polynomial()) {
        let lengths = chunk_lengths(&chunker, &data, data.len());
        assert_eq!(lengths, RESTICS_CHUNKS.map(|(length, _)| length));
    }
    let mut start = 0;
    for (length, digest) in RESTICS_CHUNKS {
        assert_eq!(sha256(&data[start..start + length]).to_string(), digest);
        start += length;
    }
}

#[test]
fn zeros_are_cut_at_the_minimum() {
    let zeros = vec![0; 4 * MIN_BYTES];
    for chunker in chunkers(polynomial()) {
        let lengths = chunk_lengths(&chunker, &zeros, MIN_BYTES);
        assert_eq!(lengths, [MIN_BYTES; 4]);
    }
}

#[test]
fn data_without_a_cut_is_cut_at_the_maximum() {
    // Bytes of one value have the same fingerprint everywhere; that of ones is not zero.
    let ones = vec![1; 2 * MAX_BYTES + 1];
    for chunker in chunkers(polynomial()) {
        let lengths = chunk_lengths(&chunker, &ones, ones.len());
        assert_eq!(lengths, [MAX_BYTES, MAX_BYTES, 1]);
        assert_eq!(chunker.find_cut(&ones[..MAX_BYTES - 1], 0), None);
        let last_byte = chunker.find_cut(&ones[..MAX_BYTES], MAX_BYTES - 1);
        assert_eq!(last_byte, Some(MAX_BYTES));
    }
}

#[test]
fn chunks_equal_the_definitions_for_any_polynomial() {
    for polynomial in [polynomial(), Polynomial::random()] {
        for data in [random(12_345_678), with_holes(8_000_000)] {
            let reference = reference_lengths(polynomial, &data);
            for chunker in chunkers(polynomial) {
                let lengths = chunk_lengths(&chunker, &data, data.len());
                assert_eq!(lengths, reference, "{polynomial}");
            }
        }
    }
}

#[test]
fn chunks_do_not_depend_on_how_the_data_is_fed() {
    const PIECES: [usize; 7] = [61, 1009, 4096, 65_536, 131_071, 1 << 20, 3_000_001];
    let around_the_minimum = MIN_BYTES - 1..=MIN_BYTES + 1;
    let pieces: Vec<usize> = PIECES.into_iter().chain(around_the_minimum).collect();
    for chunker in chunkers(polynomial()) {
        for data in [random(6_000_000), with_holes(6_000_000)] {
            let whole = chunk_lengths(&chunker, &data, data.len());
            for piece in &pieces {
                let lengths = chunk_lengths(&chunker, &data, *piece);
                assert_eq!(lengths, whole, "pieces of {piece}");
            }
        }
    }
}

#[test]
fn a_cut_is_found_wherever_it_lies() {
    let cutting_window = {
        let (end, _) = RESTICS_CHUNKS[0];
        restics_data()[end - WINDOW_BYTES..end].to_vec()
    };
    // Ones have no cut; the first lies where the window is put, in whatever part of a block and of a lane.
    let mut data = vec![1; MIN_BYTES + 300_000];
    for chunker in chunkers(polynomial()) {
        let mut step = 1;
        let mut end = MIN_BYTES;
        while end <= data.len() {
            data[end - WINDOW_BYTES..end].copy_from_slice(&cutting_window);
            assert_eq!(chunker.find_cut(&data, 0), Some(end));
            assert_eq!(chunker.find_cut(&data[..end], 0), Some(end));
            assert_eq!(chunker.find_cut(&data[..end], end - 1), Some(end));
            assert_eq!(chunker.find_cut(&data[..end - 1], 0), None);
            data[end - WINDOW_BYTES..end].fill(1);
            end += step;
            step = step % 997 + 1;
        }
    }
}
