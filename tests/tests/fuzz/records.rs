//! What is stored beside streams: dead letters, retries, what consumers say about themselves.

use bytes::Bytes;
use streamjobs::__store::{heartbeat_of, letter_of, retried};
use streamjobs::{Entry, EntryId, StreamName};

use crate::fields_of;
use crate::fuzzer::fuzz;

#[test]
fn any_entry_is_read_as_a_dead_letter_with_no_more_than_it_holds() {
    fuzz("dead-letters", |input| {
        let entry = Entry::new(EntryId::new(1, 1), fields_of(input));
        let letter = letter_of(&entry);
        let size = |fields: &[(Bytes, Bytes)]| {
            fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
        };
        if size(&letter.fields) > size(entry.fields()) {
            return Err("it holds more than was stored".to_owned());
        }
        if letter.digest() != letter_of(&entry.clone()).digest() {
            return Err("one letter has two digests".to_owned());
        }
        if letter.fingerprint().len() != 16 {
            return Err(format!("a fingerprint of another length: {}", letter.fingerprint()));
        }
        Ok(format!(
            "{:?} {} {}",
            letter.reason,
            letter.event_id.is_some(),
            letter.fields.len().min(9)
        ))
    });
}

#[test]
fn a_retry_of_any_entry_is_read_as_the_same_job_with_one_failure_more() {
    let stream = StreamName::new("orders").unwrap();
    let parts = |fields: &[(Bytes, Bytes)], ours: bool| {
        let of_ours = |name: &Bytes| REWRITTEN.iter().any(|ours| name == ours);
        let fits = fields.iter().filter(|(name, _)| of_ours(name) == ours);
        fits.cloned().collect::<Vec<_>>()
    };
    fuzz("entries", |input| {
        let fields = fields_of(input);
        let first = retried(&stream, &Entry::new(EntryId::new(1, 1), fields.clone()), "no");
        let second = retried(&stream, &Entry::new(EntryId::new(2, 2), first.clone()), "no");
        if parts(&first, false) != parts(&fields, false) {
            return Err("a field of the job itself was changed".to_owned());
        }
        let failures = |fields: &[(Bytes, Bytes)]| {
            let (_, value) = fields.iter().find(|(name, _)| name == "sj-attempt")?;
            std::str::from_utf8(value).ok()?.parse::<u32>().ok()
        };
        let Some(count) = failures(&first) else { return Err("failures are lost".to_owned()) };
        let expected = parts(&first, true).into_iter().map(|(name, value)| match &*name {
            b"sj-attempt" => (name, Bytes::from(count.saturating_add(1).to_string())),
            _ => (name, value),
        });
        if second.len() != first.len() || parts(&second, true) != expected.collect::<Vec<_>>() {
            return Err(format!("{first:?} was tried again as {second:?}"));
        }
        Ok(format!("{} {}", count == 1, fields.len() == first.len()))
    });
}

/// What a retry writes anew.
const REWRITTEN: [&str; 6] = ["sj-id", "sj-attempt", "sj-origin", "sj-first", "sj-error", "sj-due"];

#[test]
fn what_a_consumer_says_is_read_again_as_it_was_written() {
    fuzz("beats", |input| match heartbeat_of(&String::from_utf8_lossy(input)) {
        None => Ok("not read".to_owned()),
        Some(text) if heartbeat_of(&text).as_ref() == Some(&text) => {
            Ok(text.chars().take(40).collect())
        }
        Some(text) => Err(format!("not read as it was written: {text}")),
    });
}
