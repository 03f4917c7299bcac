//! Measures the primitives, each on one core: GB/s (10^9 bytes), the best of several rounds.
//!
//! `cargo run --release --example primitives -p repository`
#![expect(clippy::print_stdout, reason = "prints its figures")]
use std::hint::black_box;
use std::time::{Duration, Instant};

use repository::chunker::{Chunker, Polynomial};
use repository::crypto::{IV_BYTES, KeyCost, KeyFile, MasterKey, OVERHEAD};
use repository::hash;
use rustix::time::{ClockId, clock_gettime};

/// As long as an average chunk.
const CHUNK_BYTES: usize = 1 << 20;
/// More than the caches hold, to see what data that comes from memory costs.
const LARGE_BYTES: usize = 96 << 20;
const SMALL_BYTES: usize = 8 << 10;

fn main() {
    let large = random(LARGE_BYTES);
    let chunk = &large[..CHUNK_BYTES];

    report("sha256, one chunk", CHUNK_BYTES, || {
        black_box(hash::sha256(chunk));
    });
    report("sha256, pair of chunks", 2 * CHUNK_BYTES, || {
        let (mut a, mut b) = (hash::Sha256::new(), hash::Sha256::new());
        hash::update_pair(&mut a, chunk, &mut b, &large[CHUNK_BYTES..2 * CHUNK_BYTES]);
        black_box((a.finish(), b.finish()));
    });
    let small: Vec<&[u8]> = chunk.chunks(SMALL_BYTES).collect();
    report("sha256, many of 8 KiB", CHUNK_BYTES, || {
        black_box(hash::sha256_many(&small));
    });

    let chunker = Chunker::new(Polynomial::random());
    report("chunker, 96 MiB of random data", LARGE_BYTES, || {
        let mut rest = large.as_slice();
        while let Some(length) = chunker.find_cut(rest, 0) {
            rest = &rest[length..];
        }
        black_box(rest);
    });
    // Nothing is skipped here, as in the middle of a long chunk, and no cut ends the search.
    let ones = vec![1; repository::chunker::MAX_BYTES - 1];
    let scanned = repository::chunker::MIN_BYTES;
    report("chunker, searching alone", ones.len() - scanned, || {
        black_box(chunker.find_cut(&ones, scanned));
    });

    let key = MasterKey::random();
    for (name, length) in [("1 MiB", CHUNK_BYTES), ("8 KiB", SMALL_BYTES), ("256 B", 256)] {
        let mut buffer = Vec::with_capacity(length + OVERHEAD);
        buffer.resize(IV_BYTES + length, 7);
        report(&format!("seal, {name}"), length, || {
            buffer.truncate(IV_BYTES + length);
            key.seal_in_place(&mut buffer);
        });
        let sealed = buffer.clone();
        report(&format!("open, {name} (and copying it)"), length, || {
            buffer.copy_from_slice(&sealed);
            key.open_in_place(&mut buffer).expect("sealed with this key");
        });
    }

    let text = text(CHUNK_BYTES);
    let mut compressor = zstd::bulk::Compressor::new(3).expect("zstd has a level 3");
    let mut compressed = Vec::with_capacity(zstd::zstd_safe::compress_bound(CHUNK_BYTES));
    for (name, data) in [("text", text.as_slice()), ("random data", chunk)] {
        report(&format!("zstd 3, {name}"), CHUNK_BYTES, || {
            compressed.clear();
            black_box(compressor.compress_to_buffer(data, &mut compressed).expect("there is room"));
        });
    }

    let file = KeyFile::create(b"password", &key, KeyCost::default(), "2026-01-01T00:00:00Z", "user", "host");
    let (start, cpu_start) = (Instant::now(), cpu_seconds(ClockId::ProcessCPUTime));
    file.open(b"password").expect("the same password");
    let wall = start.elapsed().as_secs_f64() * 1e3;
    let cpu = (cpu_seconds(ClockId::ProcessCPUTime) - cpu_start) * 1e3;
    println!("key file, open: {wall:.0} ms, of all cores {cpu:.0} ms");
}

fn report(name: &str, bytes: usize, mut work: impl FnMut()) {
    let mut best = f64::INFINITY;
    // Asking for the time must not count.
    let batch = 1 + (1 << 16) / bytes as u32;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(600) {
        let mut rounds = 0;
        let start = cpu_seconds(ClockId::ThreadCPUTime);
        let mut spent = 0.0;
        while spent < 0.005 {
            for _ in 0..batch {
                work();
            }
            rounds += batch;
            spent = cpu_seconds(ClockId::ThreadCPUTime) - start;
        }
        best = best.min(spent / f64::from(rounds));
    }
    println!("{name:<34}{:>8.2} GB/s", bytes as f64 / best / 1e9);
}

/// The thread's or process' time alone, so that whatever else the machine does counts less.
fn cpu_seconds(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn random(length: usize) -> Vec<u8> {
    let mut data = vec![0; length];
    aws_lc_rs::rand::fill(&mut data).expect("the operating system provides randomness");
    data
}

/// Words of different frequency, in lines: compresses to about a third.
fn text(length: usize) -> Vec<u8> {
    const SYLLABLES: [&str; 16] =
        ["ta", "re", "mi", "lon", "ver", "sa", "que", "dor", "in", "per", "na", "cu", "tio", "est", "o", "al"];
    let random = random(length);
    let mut text = Vec::with_capacity(length + 16);
    for (count, pair) in random.as_chunks::<2>().0.iter().cycle().enumerate() {
        if text.len() >= length {
            break;
        }
        // The product of two bytes is small more often than large.
        let word = (usize::from(pair[0]) * usize::from(pair[1])) >> 4;
        text.extend_from_slice(SYLLABLES[word >> 8].as_bytes());
        text.extend_from_slice(SYLLABLES[word >> 4 & 15].as_bytes());
        text.extend_from_slice(SYLLABLES[word & 15].as_bytes());
        text.push(if count % 12 == 11 { b'\n' } else { b' ' });
    }
    text.truncate(length);
    text
}
