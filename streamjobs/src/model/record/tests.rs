//! What is stored of jobs.

use super::*;
use crate::model::entry::Inlet;

fn field(name: &'static str, value: &'static str) -> (Bytes, Bytes) {
    (Bytes::from_static(name.as_bytes()), Bytes::from_static(value.as_bytes()))
}

fn delivery(fields: Fields) -> Delivery {
    Delivery {
        inlet: Inlet::STREAM,
        entry: Entry::new(EntryId::new(5, 1), fields),
        delivery_count: 2,
    }
}

fn envelope() -> Envelope {
    Envelope { event_id: EventId::new("e-1").unwrap(), failures: 0, origin: None }
}

fn letter(fields: Fields) -> DeadLetter {
    let (delivery, envelope) = (delivery(fields), envelope());
    let attempted = Attempted {
        delivery: &delivery,
        envelope: &envelope,
        started_at: 77,
        failures: 3,
        run: None,
    };
    let stored = attempted.dead_letter(Reason::Exhausted, Some("no"), "web-1");
    DeadLetter::of(&Entry::new(EntryId::new(9, 0), stored))
}

#[test]
fn a_dead_letter_keeps_the_fields_byte_for_byte_and_says_why() {
    let fields = vec![field("type", "t"), field("data", "\0\u{7f}"), field("sj-id", "e-1")];
    let letter = letter(fields.clone());
    assert_eq!(letter.fields, fields);
    assert_eq!((letter.reason, letter.attempts, letter.delivery_count), (Reason::Exhausted, 3, 2));
    assert_eq!(
        (letter.entry_id, letter.origin),
        (Some(EntryId::new(5, 1)), Some(EntryId::new(5, 1)))
    );
    assert_eq!((letter.first_delivery, letter.last_delivery), (Some(77), Some(77)));
    assert_eq!(letter.event_type(), Some("t"));
    assert!(!format!("{letter:?}").contains('\u{7f}'));
}

#[test]
fn an_entry_with_too_many_fields_is_kept_whole() {
    let fields = (0..=FIELDS_CARRIED_MAX).map(|_| field("", ":1:")).collect::<Fields>();
    let letter = letter(fields.clone());
    assert_eq!(letter.fields, fields);
    assert_eq!(letter.redriven(), None);
}

#[test]
fn fields_named_as_those_of_a_dead_letter_are_kept_byte_for_byte() {
    for name in ["sj-dead-", "sj-dead-raw", "sj-dead-error", "sj-dead-of-another"] {
        let fields = vec![field("type", "t"), field(name, "1:a1:b")];
        let letter = letter(fields.clone());
        assert_eq!(letter.fields, fields);
        assert_eq!((letter.error.as_deref(), letter.event_type()), (Some("no"), Some("t")));
        assert_eq!(letter.redriven().unwrap()[..2], fields);
    }
}

#[test]
fn a_retry_carries_identity_failures_origin_and_first_time() {
    let fields = vec![
        field("type", "t"),
        field("data", "{}"),
        field("sj-key", "alice"),
        field("sj-first", "11"),
        field("sj-attempt", "1"),
    ];
    let (delivery, envelope) = (delivery(fields), envelope());
    let attempted = Attempted {
        delivery: &delivery,
        envelope: &envelope,
        started_at: 77,
        failures: 2,
        run: None,
    };
    let entry = Entry::new(EntryId::new(6, 0), attempted.retry(Some("no"), Some(99), false));
    let texts = ["type", "data", "sj-id", "sj-key", "sj-attempt", "sj-origin", "sj-first"]
        .map(|name| entry.text(name));
    assert_eq!(
        texts,
        [Some("t"), Some("{}"), Some("e-1"), Some("alice"), Some("2"), Some("5-1"), Some("11")]
    );
    assert_eq!(entry.fields().iter().filter(|(name, _)| name == "sj-attempt").count(), 1);
    assert_eq!(due(&entry), Some(99));
    let again = Attempted { delivery: &Delivery { entry, ..delivery.clone() }, ..attempted };
    let released = Entry::new(EntryId::new(7, 0), again.retry(None, None, false));
    assert_eq!(due(&released), None, "an old time is not carried on");
}

#[test]
fn a_redriven_job_keeps_its_id_and_forgets_its_failures() {
    let fields = vec![
        field("type", "t"),
        field("data", "{}"),
        field("sj-id", "e-1"),
        field("sj-unique", "5f work"),
        field("sj-attempt", "4"),
    ];
    let entry = Entry::new(EntryId::new(6, 0), letter(fields).redriven().unwrap());
    assert_eq!(
        (entry.text("sj-id"), entry.text("sj-origin"), entry.text("sj-attempt")),
        (Some("e-1"), Some("5-1"), None)
    );
    assert_eq!(entry.text("sj-unique"), None, "it frees no lock");
}

/// This also holds for entries that an older release has stored, and for those that other clients wrote.
#[test]
fn a_job_waits_since_its_publication_or_its_redrive() {
    let envelope = Envelope { origin: Some(EntryId::new(2, 0)), ..envelope() };
    let since = |inlet, fields: &[(&'static str, &'static str)]| {
        let fields = fields.iter().map(|(name, value)| field(name, value)).collect();
        let entry = Entry::new(EntryId::new(6, 0), fields);
        let delivery = Delivery { inlet, entry, delivery_count: 1 };
        let now = 10;
        waited(&delivery, &envelope, now).map(|waited| now - waited.as_millis() as u64)
    };
    let (id, told) = (("sj-id", "e-1"), ("sj-since", "4"));
    let awaits = ("sj-error", "waits for a process that has a handler for event type t");
    assert_eq!(since(Inlet::STREAM, &[id, told]), Some(6), "a publisher does not say it");
    assert_eq!(since(Inlet::LANE, &[id]), Some(6), "redriven");
    assert_eq!(since(Inlet::LANE, &[id, told]), Some(4), "from a line");
    assert_eq!(since(Inlet::LANE, &[]), Some(2), "from a line, without an event id");
    assert_eq!(since(Inlet::LANE, &[id, told, awaits]), Some(4));
    assert_eq!(since(Inlet::LANE, &[id, awaits]), Some(2), "by an older release");
    assert_eq!(since(Inlet::LANE, &[id, told, ("sj-error", "no")]), None, "it began");
}

#[test]
fn a_digest_distinguishes_dead_letters_and_never_changes() {
    let stored = vec![field("sj-dead-reason", "rejected"), field("type", "t")];
    let digest = |id, fields: &Fields| DeadLetter::of(&Entry::new(id, fields.clone())).digest();
    let one = digest(EntryId::new(1, 0), &stored);
    assert_eq!(one, digest(EntryId::new(2, 0), &stored), "the id is not part of it");
    assert_eq!(Uuid::from_bytes(one).to_string(), "a2c576ad-5651-5c55-aaab-151ef7512333");
    let mut changed = stored.clone();
    changed.push(field("sj-dead-error", "x"));
    assert_ne!(one, digest(EntryId::new(1, 0), &changed));
    assert_ne!(letter(stored.clone()).digest(), letter(stored[1..].to_vec()).digest());
}

fn run(end: AttemptEnd) -> Option<Run<'static>> {
    Some(Run { end, took: Duration::from_millis(3_200), process: "web-1" })
}

#[test]
fn a_retry_and_a_dead_letter_carry_what_became_of_each_attempt() {
    let (delivery, envelope) = (delivery(vec![field("type", "t")]), envelope());
    let attempted = Attempted {
        delivery: &delivery,
        envelope: &envelope,
        started_at: 77,
        failures: 1,
        run: run(AttemptEnd::Failed),
    };
    let entry = Entry::new(EntryId::new(6, 0), attempted.retry(Some("no"), Some(99), false));
    let envelope = Envelope { failures: 1, ..envelope };
    let second = Delivery { entry, delivery_count: 1, ..delivery };
    let (delivery, run) = (&second, run(AttemptEnd::TimedOut));
    let attempted = Attempted { delivery, envelope: &envelope, started_at: 99, failures: 2, run };
    let stored = attempted.dead_letter(Reason::Exhausted, Some("too late"), "web-1");
    let letter = DeadLetter::of(&Entry::new(EntryId::new(9, 0), stored));
    let told = letter.history.attempts.iter().map(|past| {
        let error = past.error.as_deref().unwrap_or_default();
        (past.attempt, past.end.as_str(), past.began, past.lost_before(), past.retry_at, error)
    });
    let expected =
        [(1, "failed", 77, 1, Some(99), "no"), (2, "timed_out", 99, 0, None, "too late")];
    assert_eq!(told.collect::<Vec<_>>(), expected);
    assert_eq!(letter.fields, second.entry.fields(), "the fields stay byte for byte");
    // A redriven job continues its history.
    let back = Entry::new(EntryId::new(10, 0), letter.redriven().unwrap());
    assert_eq!(back.text(HISTORY), Some(letter.history.as_text()));
    assert_eq!(letter.summary().payload_bytes, letter_bytes_without_history(&letter));
}

fn letter_bytes_without_history(letter: &DeadLetter) -> u64 {
    let given = letter.fields.iter().filter(|(name, _)| name != "type" && name != HISTORY);
    given.map(|(name, value)| (name.len() + value.len()) as u64).sum()
}

/// A release that does not know the field passes it on unchanged, as this one does where no handler ran. The records
/// that such a release writes itself do not have it.
#[test]
fn records_of_another_release_are_read_and_theirs_stay_readable() {
    fn retry(delivery: &Delivery, run: Option<Run<'_>>, failures: u32) -> Fields {
        let envelope = envelope();
        Attempted { delivery, envelope: &envelope, started_at: 77, failures, run }.retry(
            Some("no"),
            Some(99),
            false,
        )
    }
    let first = delivery(vec![field("type", "t")]);
    let delivered =
        |fields| Delivery { entry: Entry::new(EntryId::new(6, 0), fields), ..first.clone() };
    let known = |fields: &Fields| {
        let entry = Entry::new(EntryId::ZERO, fields.clone());
        let history = AttemptHistory::of(entry.text(HISTORY), None);
        (history.attempts.len(), history.left_out)
    };
    let theirs = retry(&first, None, 1);
    assert_eq!(known(&theirs), (0, 0));
    let ours = retry(&delivered(theirs), run(AttemptEnd::Failed), 2);
    assert_eq!(known(&ours), (1, 0));
    let theirs = retry(&delivered(ours.clone()), None, 3);
    assert_eq!(known(&theirs), (1, 0), "it is carried");
    assert_eq!(theirs.len(), ours.len());
}

#[test]
fn damaged_dead_letters_are_read_up_to_the_damage() {
    for raw in ["", "x", "3:ab", "1:a", "99999999999999999999:a", "1:a1:b2:c"] {
        let entry = Entry::new(EntryId::new(1, 0), vec![field("sj-dead-raw", raw)]);
        let letter = DeadLetter::of(&entry);
        assert!(letter.fields.len() <= 1, "{raw}");
    }
}
