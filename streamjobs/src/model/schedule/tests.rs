//! Schedules as they are stored and read, and what they publish.

use std::num::NonZeroU32;
use std::time::Duration;

use super::spec::Schedule;
use super::{Missed, Overlap, Tick};
use crate::model::entry::Fields;
use crate::model::event::{Event, Payload};
use crate::model::name::{EventId, StreamName};

const HOUR: Duration = Duration::from_secs(3_600);

fn all() -> Vec<Schedule> {
    let max = NonZeroU32::new(7).unwrap();
    let cron = || Schedule::cron("a", "30 2 * * *").unwrap();
    let every = || Schedule::every("a", HOUR).unwrap();
    let tick = Tick::new("b", 1, 2, 3);
    vec![
        cron(),
        cron().zone("Europe/Berlin").unwrap(),
        cron().missed(Missed::None),
        every(),
        every().offset(HOUR / 2).unwrap(),
        every().jitter(HOUR).missed(Missed::All { max, within: HOUR }),
        every().publishes(&tick).unwrap(),
        every().tick_type("tick.a"),
        every().overlap(Overlap::skip("work").unwrap()),
    ]
}

#[test]
fn a_schedule_is_read_as_it_was_stored_and_its_digest_tells_it_from_others() {
    let mut digests = Vec::new();
    for schedule in all() {
        let stored = schedule.stored();
        let (stream, fields) = (schedule.target(), stored.fields.clone());
        let read = Schedule::read(stream, "a", &stored.about, fields).unwrap();
        assert_eq!(read.stored(), stored, "{}", stored.about);
        assert_eq!(read.next_after(5), schedule.next_after(5));
        digests.push(stored.digest);
    }
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), all().len());
}

#[test]
fn what_a_newer_version_stores_is_not_taken_for_something_else() {
    let stream = StreamName::new("orders").unwrap();
    let read = |about: &str| Schedule::read(&stream, "a", about, Fields::new());
    let listed = read(r#"{"every":1000,"missed":"one","event":"t"}"#).unwrap();
    assert_eq!(listed.event_type(), "t");
    assert!(listed.check(5, 1_000).is_err(), "it would be stored without its payload");
    assert!(read(r#"{"every":1000,"missed":"one","tick":"t"}"#).is_some());
    for about in [
        r#"{"every":1000,"missed":"one","tick":"t","skips":"work"}"#,
        r#"{"every":1000,"missed":"half","tick":"t"}"#,
        r#"{"every":1000,"cron":"* * * * *","missed":"one","tick":"t"}"#,
        r#"{"cron":"* * * * *","zone":"Mars/Olympus","missed":"one","tick":"t"}"#,
        r#"{"missed":"one","tick":"t"}"#,
        r#"{"every":1000,"missed":"one"}"#,
        "",
    ] {
        assert!(read(about).is_none(), "{about}");
    }
}

#[test]
fn a_delay_is_a_constant_of_the_name_below_the_jitter() {
    let delay = |name: &str| Schedule::every(name, HOUR).unwrap().jitter(HOUR).delay();
    assert_eq!(delay("a"), delay("a"));
    assert_ne!(delay("a"), delay("b"));
    assert!(delay("a") < 3_600_000);
    let late = Schedule::every("a", HOUR).unwrap().jitter(HOUR);
    let due = late.next_after(1_700_000_000_000).unwrap().unwrap();
    assert_eq!(late.occurrence(due) % 3_600_000, 0);
    assert_eq!(late.next_after(due), Ok(Some(due + 3_600_000)));
}

#[test]
fn a_tick_says_which_occurrence_it_is_and_events_carry_their_ids() {
    let schedule = Schedule::every("a", HOUR).unwrap().jitter(HOUR);
    let due = schedule.next_after(1_700_000_000_000).unwrap().unwrap();
    let id = EventId::new("e-1").unwrap();
    let fields = schedule.entry(&id, due, 4, 5);
    let text = |name: &str| fields.iter().find(|(field, _)| field == name).unwrap().1.clone();
    let tick = Tick::decode("", Payload::Json(&text("data"))).unwrap();
    assert_eq!(tick, Tick::new("a", schedule.occurrence(due), 4, 5));
    assert_eq!((&text("type")[..], &text("sj-id")[..]), (&b"schedule.tick"[..], &b"e-1"[..]));
}
