//! A small fuzzer for stable Rust: it mutates a corpus, keeps what behaves in a new way, and makes
//! what fails small before it shows and keeps it.

use std::collections::HashSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What a check says of an input: a word for how it behaved, or what is wrong.
pub type FenceResult = Result<String, String>;

/// Runs `check` on the corpus of that name and on mutations of it, for `FUZZ_SECONDS` (1).
///
/// `FUZZ_SEED` repeats a run. An input that fails is made small, kept in the corpus, where the next
/// run meets it first, and printed.
pub fn fuzz(name: &str, check: impl Fn(&[u8]) -> FenceResult) {
    let variable = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = variable("FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    let end = Instant::now() + Duration::from_secs(variable("FUZZ_SECONDS").unwrap_or(1));
    let mut random = fastrand::Rng::with_seed(seed);
    let mut pool = corpus(name);
    assert!(!pool.is_empty(), "there is no corpus in tests/fuzz-corpus/{name}");
    let mut seen = HashSet::new();
    let mut tried = 0_u64;
    for input in &pool {
        tried += 1;
        seen.insert(judge(name, seed, input, &check));
    }
    while Instant::now() < end {
        let input = mutated(&pool, &mut random);
        tried += 1;
        if seen.insert(judge(name, seed, &input, &check)) && pool.len() < POOL_MAX {
            pool.push(input);
        }
    }
    println!("{name}: {tried} inputs tried, {} kinds of behaviour, seed {seed}", seen.len());
}

/// The behaviour of an input that passes; ends the test with one that does not.
fn judge(name: &str, seed: u64, input: &[u8], check: &impl Fn(&[u8]) -> FenceResult) -> String {
    let fault = match outcome(input, check) {
        Ok(behaviour) => return behaviour,
        Err(fault) => fault,
    };
    let small = minimised(input, |input| outcome(input, check).is_err());
    let fault = outcome(&small, check).err().unwrap_or(fault);
    let place = folder(name).join(format!("found-{:016x}", digest(&small)));
    fs::write(&place, &small).expect("the corpus can be written");
    panic!(
        "{name}: {fault}\ninput: {}\nkept in {}, seed {seed}",
        small.escape_ascii(),
        place.display()
    );
}

/// A panic is a fault as well, and more work than the length of the input allows.
fn outcome(input: &[u8], check: &impl Fn(&[u8]) -> FenceResult) -> FenceResult {
    let began = worked();
    let checked = catch_unwind(AssertUnwindSafe(|| check(input)));
    let checked = checked.unwrap_or_else(|_| Err("it panicked, as printed above".to_owned()));
    match worked().saturating_sub(began) {
        work if work > allowed(input.len()) => {
            Err(format!("{} bytes took {work:?} of a processor", input.len()))
        }
        _ => checked,
    }
}

/// What linear decoders stay below by far in a debug build, and quadratic ones do not.
fn allowed(bytes: usize) -> Duration {
    WORK_MIN + WORK_PER_BYTE * u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// How long this thread has had a processor: waiting for one on a busy machine does not count. Only
/// Linux says so, and elsewhere no work is measured.
fn worked() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split_whitespace().next().and_then(|word| word.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

/// The smallest input found that still fails: ever smaller parts are left out.
fn minimised(input: &[u8], fails: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut small = input.to_vec();
    let mut part = small.len().div_ceil(2);
    let end = Instant::now() + MINIMISING_MAX;
    while part > 0 && Instant::now() < end {
        let mut start = 0;
        while start < small.len() {
            let mut shorter = small.clone();
            shorter.drain(start..small.len().min(start + part));
            if fails(&shorter) {
                small = shorter;
            } else {
                start += part;
            }
        }
        part /= 2;
    }
    small
}

/// One to eight changes to an input of the pool.
fn mutated(pool: &[Vec<u8>], random: &mut fastrand::Rng) -> Vec<u8> {
    let pick = |random: &mut fastrand::Rng| pool[random.usize(..pool.len())].clone();
    let mut input = pick(random);
    for _ in 0..random.usize(1..=8) {
        let place = random.usize(..=input.len());
        let end = (place + random.usize(..=16)).min(input.len());
        match random.u8(..8) {
            0 => input.insert(place, random.u8(..)),
            1 if place < input.len() => input[place] ^= 1 << random.u8(..8),
            2 => drop(input.drain(place..end)),
            3 => {
                let part = input[place..end].to_vec();
                let again = random.usize(..input.len() + 1);
                input.splice(again..again, part);
            }
            4 => {
                let nasty = NASTY[random.usize(..NASTY.len())];
                input.splice(place..end, nasty.iter().copied());
            }
            5 => {
                let other = pick(random);
                let from = random.usize(..=other.len());
                input.truncate(place);
                input.extend_from_slice(&other[from..]);
            }
            6 if random.u16(..) < 64 => {
                // A few are huge: what is decoded in more than linear time shows.
                let part = input[place..end].to_vec();
                let times = HUGE / part.len().max(1);
                input.splice(place..place, part.repeat(times));
            }
            _ => {
                let byte = NASTY_BYTES[random.usize(..NASTY_BYTES.len())];
                match input.get_mut(place) {
                    Some(old) => *old = byte,
                    None => input.push(byte),
                }
            }
        }
        if input.len() > 2 * HUGE {
            break;
        }
    }
    input
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let mut files = fs::read_dir(folder(name))
        .into_iter()
        .flatten()
        .map(|file| file.expect("the corpus can be read").path())
        .collect::<Vec<_>>();
    files.sort();
    files.iter().map(|file| fs::read(file).expect("the corpus can be read")).collect()
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz-corpus").join(name)
}

fn digest(input: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    input.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

const POOL_MAX: usize = 4_096;
const HUGE: usize = 1 << 17;
/// The slowest decoder takes two microseconds for a byte in a debug build.
const WORK_PER_BYTE: Duration = Duration::from_micros(20);
const WORK_MIN: Duration = Duration::from_secs(1);
const MINIMISING_MAX: Duration = Duration::from_secs(20);
const NASTY_BYTES: &[u8] = b"\0\n\r\x1b\x7f\x80\xc3\xff{}[]\":,-+.%/@#?&=:*$0159eE \\";
const NASTY: [&[u8]; 24] = [
    b"18446744073709551615",
    b"18446744073709551616",
    b"-9223372036854775808",
    b"4294967296",
    b"1e999",
    b"1e200000",
    b"NaN",
    b"-0",
    b"\"\\ud800\"",
    b"\"\\u0000\"",
    b"\xed\xa0\x80",
    b"\xc0\xaf",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xae",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    b"{\"a\":{\"a\":{\"a\":{\"a\":",
    b"sj-id=",
    b"sj-dead-raw=",
    b"\nsj-attempt=4294967295",
    b"\ntype=order.placed\n",
    b"\ndata=",
    b"%00",
    b"$-1\r\n",
    b"*1048576\r\n",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_made_small() {
        let fails = |input: &[u8]| input.contains(&b'x') && input.contains(&b'y');
        assert_eq!(minimised(b"aaaaxbbbbbbbbbbbbycc", fails), b"xy");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn work_is_a_fault_and_waiting_is_none() {
        let working = |_: &[u8]| {
            let began = worked();
            while worked() < began + WORK_MIN * 2 {}
            Ok("worked".to_owned())
        };
        assert!(outcome(b"", &working).is_err());
        let (_never, wait) = std::sync::mpsc::sync_channel::<()>(0);
        let waiting = |_: &[u8]| {
            let _timeout = wait.recv_timeout(WORK_MIN * 2);
            Ok("waited".to_owned())
        };
        assert!(outcome(b"", &waiting).is_ok());
    }

    #[test]
    fn a_panic_is_a_fault_and_not_the_end() {
        assert!(outcome(b"", &|_| panic!("on purpose")).is_err());
        assert_eq!(outcome(b"", &|_| Ok("fine".to_owned())), Ok("fine".to_owned()));
    }
}
