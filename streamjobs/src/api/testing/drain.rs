//! Waits until all work is done, and moves the time.

use std::fmt;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Streams;
use crate::model::cause::shown;
use crate::model::entry::Entry;
use crate::model::name::{GroupName, StreamName};
use crate::model::record::DeadLetter;
use crate::store::Store;
use crate::store::memory::{Left, Moment, Unfinished, Work};

/// What happened to the jobs of all streams during a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// Jobs that ended well, including jobs that their guard skipped.
    pub done: u64,
    /// Attempts that failed: a job that is done at its third attempt counts as two.
    pub failed: u64,
    /// Attempts whose job was put back to wait without a failure: it was snoozed, or its process has no handler for
    /// it.
    pub snoozed: u64,
    /// Jobs that were delivered once more after their success: see [`Streams::deliver_twice`].
    pub repeated: u64,
    /// The dead letters that were stored, by stream, group and age.
    pub dead_letters: Vec<DrainedLetter>,
    /// Retries, and scheduled and debounced events, that still wait because they are due after the horizon.
    pub later: u64,
    /// How much time has passed, by tokio's clock.
    pub took: Duration,
}

/// A dead letter that was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainedLetter {
    /// The stream; of a stream with partitions, the partition's own.
    pub stream: StreamName,
    /// The group.
    pub group: GroupName,
    /// The dead letter.
    pub letter: DeadLetter,
}

/// The work did not end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainError {
    /// Why the wait was given up.
    pub why: String,
    /// What is left to do, one sentence for each job or event, at most 20 of them.
    pub left: Vec<String>,
    /// What happened before.
    pub drained: Drained,
}

impl Streams {
    /// Runs until nothing is left to do: until no entry waits for its delivery in any group, no job runs,
    /// and no retry and no scheduled event is due within `horizon` from now.
    ///
    /// | What | Is waited for |
    /// |---|---|
    /// | entries that a group has not read, redriven dead letters, released entries | always |
    /// | jobs that run, also those of a process that is gone: until their lease has ended and another process has run them | always |
    /// | events that handlers publish | always |
    /// | retries, snoozed jobs, jobs that wait for a process with their handler | if they are due within the horizon |
    /// | scheduled and debounced events, and what comes of them | if they are due within the horizon |
    /// | occurrences of schedules that are not paused | if they are due within the horizon |
    /// | services, outboxes, archives; events of streams without a group | no |
    ///
    /// With `Duration::ZERO` the horizon is now: first attempts run, and their retries stay. Under the paused clock
    /// of `#[tokio::test(start_paused = true)]`, time moves only as far as it has to. Under a running clock, the call
    /// really waits.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use streamjobs::testing::Streams;
    /// # use streamjobs::{JobError, Runtime, handler, handlers};
    /// # #[derive(streamjobs::Event, serde::Serialize, serde::Deserialize)]
    /// # #[event(stream = "orders", type = "order.placed")]
    /// # struct OrderPlaced {}
    /// #[handler(group = "audit", max_attempts = 3, backoff = "1m")]
    /// async fn reject(_order: OrderPlaced) -> Result<(), JobError> {
    ///     Err("never".into())
    /// }
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let streams = Streams::new();
    /// let client = streams.client();
    /// let runtime = Runtime::builder(&client).handlers(handlers![reject]).start().await?;
    /// client.publish(&OrderPlaced {}).await?;
    /// let first = streams.drain(Duration::ZERO).await?;
    /// assert_eq!((first.failed, first.later), (1, 1));
    /// let all = streams.drain(Duration::from_secs(3_600)).await?;
    /// assert_eq!((all.failed, all.dead_letters.len(), all.later), (2, 1, 0));
    /// # let _ = runtime.shutdown().await;
    /// # Ok(())
    /// # }
    /// # tokio::runtime::Builder::new_current_thread()
    /// #     .enable_time().start_paused(true).build().unwrap().block_on(example()).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// When something is due and nothing has moved for an hour of tokio's clock, or for 30 seconds of the real clock;
    /// or when 10,000 attempts have ended, as happens when jobs publish each other without end. The error names what
    /// is left, and the reason if it can be seen: a paused group, or no process.
    ///
    /// A handler that blocks its thread cannot be interrupted.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: only the wait ends.
    pub async fn drain(&self, horizon: Duration) -> Result<Drained, DrainError> {
        let (moment, began) = (self.store().moment(), Instant::now());
        let until = self.milliseconds().saturating_add(milliseconds(horizon));
        let found = match self.settle(until, Bounds::OF_DRAIN, &moment).await {
            Ok(found) => return Ok(self.drained(&moment, began, found.later)),
            Err(stuck) => stuck,
        };
        Err(DrainError {
            why: found.why,
            left: found
                .unfinished
                .left
                .iter()
                .take(SHOWN_MAX)
                .map(|left| said(left, found.unfinished.now))
                .collect(),
            drained: self.drained(&moment, began, found.unfinished.later),
        })
    }

    /// Lets this time pass, with everything that happens in it: jobs run when they are due, leases are renewed,
    /// schedules fire. Then it waits, for at most 15 seconds more, until the jobs that are due by then have ended;
    /// jobs that run for longer go on.
    ///
    /// Under a paused clock, tokio's clock and that of the streams move together, and the runtime's loops run as
    /// often as in real time: let hours pass rather than weeks. [`Streams::step_clock`] moves the server's clock
    /// alone, which processes take for a fault.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: only the wait ends.
    pub async fn advance(&self, time: Duration) -> Drained {
        let (moment, began) = (self.store().moment(), Instant::now());
        sleep(time).await;
        let settled = self.settle(self.milliseconds(), Bounds::OF_ADVANCE, &moment).await;
        let later = settled.map_or_else(|stuck| stuck.unfinished.later, |found| found.later);
        self.drained(&moment, began, later)
    }

    /// Delivers each job once more after its success, as if its process had died before it could acknowledge: the
    /// same entry and event id, with a delivery count one higher, about 10 seconds later. This exposes handlers that
    /// are not idempotent in every test that calls it.
    ///
    /// The second delivery is a run like any other: guards skip it, and a job that fails in it is retried. Jobs of a
    /// handler with `max_deliveries = 1` become dead letters, as they would after a crash. Each job is delivered
    /// again once, however often its retries succeed. The setting stays on for these streams.
    ///
    /// Counters, logs and alerts of the runtime show the claims, as after a crash.
    pub fn deliver_twice(&self) {
        self.store().repeat_jobs();
    }

    fn milliseconds(&self) -> u64 {
        self.store().virtual_now().map_or(0, |now| now.0)
    }

    /// Waits until nothing that is due by `until` is left.
    async fn settle(
        &self,
        until: u64,
        bounds: Bounds,
        moment: &Moment,
    ) -> Result<Unfinished, Stuck> {
        let mut found = self.store().unfinished(until);
        let mut ended = self.store().ended();
        let (mut moved_at, mut moved_at_really) = (Instant::now(), std::time::Instant::now());
        let (mut pause, mut empty) = (PAUSE_MIN, 0);
        loop {
            // Tasks of the test itself may be about to publish more.
            empty = if found.left.is_empty() { empty + 1 } else { 0 };
            if empty == 2 {
                return Ok(found);
            }
            if self.is_endless(moment) {
                let why = format!("more than {ENDED_MAX} attempts have ended");
                return Err(Stuck { why, unfinished: found });
            }
            let really = moved_at_really.elapsed();
            if moved_at.elapsed() >= bounds.time || really >= STUCK_REALLY {
                let time = if really >= STUCK_REALLY { STUCK_REALLY } else { bounds.time };
                let why = format!("nothing has moved for {}", shown(time));
                return Err(Stuck { why, unfinished: found });
            }
            let next = found.next_due().map(|due| due - found.now);
            self.pause(next.map_or(pause, Duration::from_millis), moment).await;
            let (now, ended_now) = (self.store().unfinished(until), self.store().ended());
            let has_moved = now.left != found.left || ended_now != ended || next.is_some();
            pause = if has_moved { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
            if has_moved && bounds.renewed {
                (moved_at, moved_at_really) = (Instant::now(), std::time::Instant::now());
            }
            (found, ended) = (now, ended_now);
        }
    }

    /// Waits for this time. Time does not pass while tasks are busy, such as jobs that publish each other.
    async fn pause(&self, time: Duration, moment: &Moment) {
        let busy = async {
            while !self.is_endless(moment) {
                self.store().changed().await;
            }
        };
        tokio::select! {
            () = sleep(time) => {}
            () = busy => {}
        }
    }

    fn is_endless(&self, moment: &Moment) -> bool {
        self.store().ended().attempts() - moment.ended.attempts() > ENDED_MAX
    }

    fn drained(&self, moment: &Moment, began: Instant, later: u64) -> Drained {
        let (ended, before) = (self.store().ended(), moment.ended);
        let letters = self.store().letters_since(moment).into_iter();
        let letter = |(queue, entry): (crate::store::Queue, Entry)| DrainedLetter {
            stream: queue.stream,
            group: queue.group,
            letter: DeadLetter::of(&entry),
        };
        Drained {
            done: ended.done - before.done,
            failed: ended.failed - before.failed,
            snoozed: ended.snoozed - before.snoozed,
            repeated: ended.repeated - before.repeated,
            dead_letters: letters.map(letter).collect(),
            later,
            took: began.elapsed(),
        }
    }
}

/// How long a wait goes on.
#[derive(Clone, Copy)]
struct Bounds {
    time: Duration,
    /// Whether the time starts over when something moves.
    renewed: bool,
}

impl Bounds {
    const OF_DRAIN: Self = Self { time: Duration::from_secs(3_600), renewed: true };
    const OF_ADVANCE: Self = Self { time: Duration::from_secs(15), renewed: false };
}

/// A wait that was given up.
struct Stuck {
    why: String,
    unfinished: Unfinished,
}

impl fmt::Display for DrainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the streams are not drained: {}; ", self.why)?;
        match self.left.as_slice() {
            [] => f.write_str("nothing is left"),
            left => write!(f, "left: {}", left.join("; ")),
        }
    }
}

impl std::error::Error for DrainError {}

/// A description of what is left.
fn said(left: &Left, now: u64) -> String {
    let age = |since: u64| shown(Duration::from_millis(now.saturating_sub(since)));
    let work = match &left.work {
        Work::Backlog(1) => "an entry waits for its delivery".to_owned(),
        Work::Backlog(count) => format!("{count} entries wait for their delivery"),
        Work::Pending { id, event_id, consumer, delivery_count } => format!(
            "event {event_id} (entry {id}, delivery {delivery_count}) has not ended at {consumer}"
        ),
        Work::Retry { event_id, error, due } => {
            let time = age(*due);
            format!("the retry of event {event_id} has been due for {time} (last error: {error})")
        }
        Work::Scheduled { event_id, due } => {
            format!("scheduled event {event_id} has been due for {}", age(*due))
        }
        Work::Schedule { name, due } => format!("schedule {name} has been due for {}", age(*due)),
    };
    let of = match &left.group {
        Some(group) => format!("group {group} on stream {}", left.stream),
        None => format!("stream {}", left.stream),
    };
    let obstacle = left.obstacle.map_or_else(String::new, |why| format!(" ({why})"));
    format!("{of}: {work}{obstacle}")
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The first pause between two checks, and then the longest pause.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// After this time of the machine's clock without a change, the wait is given up.
const STUCK_REALLY: Duration = Duration::from_secs(30);
/// The most attempts that may end during one call.
const ENDED_MAX: u64 = 10_000;
/// How many of the things that are left are shown.
const SHOWN_MAX: usize = 20;
