//! Places in a connection: they limit how much is on its way, and set how long an answer may take.
//!
//! A request that waits for a place has certainly not been sent. A request with a place is written at once, and
//! its deadline begins. The deadline includes time for the bytes of earlier requests on the same connection. The
//! server answers in the order of the requests, so each answer shows that the server is working for the later
//! ones too.

use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use redis::{Cmd, Pipeline, RedisResult};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep, timeout_at};

use super::deadlines::RESPONSE_DEADLINE;

/// The places of one connection.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    /// When the last answer arrived; at first, when the connection was opened.
    answered: Mutex<Instant>,
    /// How many bytes of requests and answers are on their way.
    on_their_way: AtomicUsize,
}

/// A place for one request, until its answer.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    /// How many bytes the request and its answer have.
    bytes: usize,
    /// Taken out when the request is sent.
    room: Option<Room>,
}

/// Room in a connection, which is free again when this is dropped: when the answer arrives, even if its caller
/// does not wait for it any more.
pub(super) type Room = OwnedSemaphorePermit;

impl Places {
    pub(super) fn new() -> Arc<Self> {
        let free = Arc::new(Semaphore::new(PLACES));
        let answered = Mutex::new(Instant::now());
        Arc::new(Self { free, answered, on_their_way: AtomicUsize::new(0) })
    }

    /// Waits for room for a request of this many bytes, behind the requests that wait already.
    pub(super) async fn take(self: &Arc<Self>, bytes: usize) -> Option<Place> {
        let permit = Arc::clone(&self.free).acquire_many_owned(needed(bytes)).await.ok()?;
        Some(self.place(bytes, permit))
    }

    /// Room for a request of this many bytes, if there is some now.
    pub(super) fn take_now(self: &Arc<Self>, bytes: usize) -> Option<Place> {
        let permit = Arc::clone(&self.free).try_acquire_many_owned(needed(bytes)).ok()?;
        Some(self.place(bytes, permit))
    }

    fn place(self: &Arc<Self>, bytes: usize, permit: OwnedSemaphorePermit) -> Place {
        Place { places: Arc::clone(self), bytes, room: Some(permit) }
    }

    fn answered(&self) -> Instant {
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_answer(&self) {
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Counts bytes as on their way until the guard is dropped. Returns the guard, and how many bytes are on
    /// their way with them.
    fn send(&self, bytes: usize) -> (OnTheWay<'_>, usize) {
        let before = self.on_their_way.fetch_add(bytes, Ordering::Relaxed);
        (OnTheWay { places: self, bytes }, before.saturating_add(bytes))
    }
}

/// Bytes of a request and its answer while they are on their way.
pub(super) struct OnTheWay<'a> {
    places: &'a Places,
    bytes: usize,
}

impl Drop for OnTheWay<'_> {
    fn drop(&mut self) {
        self.places.on_their_way.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Place {
    /// The room, to be kept until the answer has arrived.
    pub(super) fn take_room(&mut self) -> Option<Room> {
        self.room.take()
    }

    /// The same place for a request whose answer has about this many bytes.
    pub(super) fn answering(mut self, bytes: usize) -> Self {
        self.bytes += bytes;
        self
    }

    /// Counts the request as sent until the guard is dropped. Returns the guard, and how long the answer may
    /// take.
    pub(super) fn sent(&self) -> (OnTheWay<'_>, Allowance) {
        let (on_the_way, bytes) = self.places.send(self.bytes);
        (on_the_way, Allowance::new(bytes))
    }

    /// Sends a request with its first poll, and waits for its answer as long as its allowance says: for
    /// connections that have no such limit themselves.
    ///
    /// It is excluded from the budgets of tasks. If one task joins many requests, each request that runs out of
    /// the task's budget would otherwise wake the task, which then polls all of them again.
    pub(super) async fn answer<T>(
        self,
        sent: impl Future<Output = RedisResult<T>>,
    ) -> RedisResult<T> {
        let (_on_the_way, mut allowance) = self.sent();
        let mut sent = pin!(sent);
        for _ in 0..EXTENSIONS_MAX {
            if let Ok(answer) = unconstrained(timeout_at(allowance.until, sent.as_mut())).await {
                if answer.is_ok() {
                    self.places.note_answer();
                }
                return answer;
            }
            if let Some(answer) = unconstrained(last_look(sent.as_mut())).await {
                return answer;
            }
            let now = Instant::now();
            let is_late = now > allowance.until + LATE;
            if !allowance.goes_on(now, is_late, self.places.answered()) {
                break;
            }
        }
        Err(io::Error::from(io::ErrorKind::TimedOut).into())
    }
}

/// How long the answer to a request may take.
///
/// An answer takes too long if the server has answered no request at all for this request's deadline, or if it has not
/// answered this request within a few times that deadline. The deadline includes time for the bytes that are on their
/// way before it: on a slow link, a small request waits for the large ones. Time in which the process itself does not
/// get to run does not count: answers may have arrived and not been read yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    silence: Duration,
    until: Instant,
    end: Instant,
}

impl Allowance {
    /// The allowance of a request that is sent now, with this many bytes on their way.
    pub(super) fn new(bytes: usize) -> Self {
        let silence = deadline(bytes);
        let until = Instant::now() + silence;
        Self { silence, until, end: until + silence * (DEADLINES_MAX - 1) }
    }

    /// When the request was sent. Valid only until the first extension.
    pub(super) fn since(&self) -> Instant {
        self.until - self.silence
    }

    /// Whether its time is over, unless it is extended.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until <= now
    }

    /// Extends the time at its end if possible, given when the last answer arrived. Returns whether it was extended.
    /// `is_late` says that the process did not get to run in time.
    pub(super) fn goes_on(&mut self, now: Instant, is_late: bool, answered: Instant) -> bool {
        let later = if is_late {
            self.end = self.end.max(now + self.silence);
            now + self.silence
        } else {
            (answered + self.silence).min(self.end)
        };
        let goes_on = later > self.until;
        if goes_on {
            self.until = later;
        }
        goes_on
    }
}

/// The answer, if it has arrived and was only not read yet because other tasks of this process ran. The executor
/// checks its sockets before it ends a sleep, but not between any two turns of its tasks.
async fn last_look<T>(mut sent: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    for _ in 0..LOOKS {
        sleep(LOOK_PAUSE).await;
        if let Some(answer) = unconstrained(sent.as_mut()).now_or_never() {
            return Some(answer);
        }
    }
    None
}

pub(super) fn size_of_command(command: &Cmd) -> usize {
    let arguments = command.args_iter().map(|argument| match argument {
        redis::Arg::Simple(bytes) => bytes.len(),
        _ => 0,
    });
    arguments.sum()
}

pub(crate) fn size_of_pipeline(pipeline: &Pipeline) -> usize {
    pipeline.cmd_iter().map(size_of_command).sum()
}

/// How long the server may be silent while this many bytes are on their way there and back.
fn deadline(bytes: usize) -> Duration {
    RESPONSE_DEADLINE + Duration::from_secs_f64(bytes as f64 / BYTES_PER_SECOND_MIN)
}

/// How many places a request of this many bytes takes. A request that is larger than all places takes all of
/// them.
fn needed(bytes: usize) -> u32 {
    u32::try_from((1 + bytes / BYTES_PER_PLACE).min(PLACES)).unwrap_or(u32::MAX)
}

/// How many requests may be on their way: enough that the server does not wait for the next one.
pub(super) const PLACES: usize = 1024;
/// How many bytes one place is for: with all places taken, about 4 MiB are on their way.
const BYTES_PER_PLACE: usize = 4 * 1024;
/// The speed of the slowest link on which a large payload still arrives in time.
const BYTES_PER_SECOND_MIN: f64 = 100_000.0;
/// A request behind many others gets at most this many of its deadlines while the others are answered.
const DEADLINES_MAX: u32 = 4;
/// A timer that fires later than this shows that the process did not get to run.
pub(super) const LATE: Duration = Duration::from_millis(500);
/// In how many pauses, each of `LOOK_PAUSE`, the connection's task gets to read what has arrived.
const LOOKS: usize = 4;
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// How often a deadline is extended at most.
const EXTENSIONS_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[test]
    fn large_requests_take_more_places_and_none_more_than_there_are() {
        assert_eq!((needed(0), needed(100), needed(1024 * 1024)), (1, 1, 257));
        assert_eq!(needed(usize::MAX), PLACES as u32);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_begins_with_the_request_and_counts_silence() {
        let places = Places::new();
        tokio::time::advance(Duration::from_secs(60)).await;
        let begun = Instant::now();
        let waiting = places.take_now(0).unwrap().answer(pending::<RedisResult<()>>());
        waiting.await.unwrap_err();
        assert_eq!(begun.elapsed().as_secs(), 3, "the time before it does not count");
        let large = places.take_now(500_000).unwrap().answer(pending::<RedisResult<()>>());
        large.await.unwrap_err();
        assert_eq!(begun.elapsed().as_secs(), 3 + 8, "its bytes have their time");
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_has_time_for_the_bytes_ahead_until_they_are_answered() {
        let places = Places::new();
        let begun = Instant::now();
        let mut large = Box::pin(
            places
                .take_now(400_000)
                .unwrap()
                .answering(100_000)
                .answer(pending::<RedisResult<()>>()),
        );
        assert!(futures_util::poll!(large.as_mut()).is_pending());
        let small = places.take_now(0).unwrap().answer(pending::<RedisResult<()>>());
        small.await.unwrap_err();
        assert_eq!(begun.elapsed().as_secs(), 3 + 5, "behind it");
        drop(large);
        let small = places.take_now(0).unwrap().answer(pending::<RedisResult<()>>());
        small.await.unwrap_err();
        assert_eq!(begun.elapsed().as_secs(), 3 + 5 + 3, "alone");
    }

    #[tokio::test(start_paused = true)]
    async fn answers_to_others_show_that_the_server_is_at_work_but_not_without_end() {
        let places = Places::new();
        let begun = Instant::now();
        let others = async {
            let mut ticks = tokio::time::interval(Duration::from_secs(2));
            loop {
                ticks.tick().await;
                places.take_now(0).unwrap().answer(async { Ok(()) }).await.unwrap();
            }
        };
        let waiting = places.take_now(0).unwrap().answer(pending::<RedisResult<()>>());
        tokio::select! {
            answer = waiting => answer.unwrap_err(),
            () = others => unreachable!(),
        };
        assert_eq!(begun.elapsed().as_secs(), 12);
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_in_which_the_process_does_not_run_is_not_the_servers() {
        let (places, begun) = (Places::new(), Instant::now());
        let mut waiting = pin!(places.take_now(0).unwrap().answer(pending::<RedisResult<()>>()));
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        tokio::time::advance(Duration::from_secs(60)).await;
        waiting.await.unwrap_err();
        assert_eq!(begun.elapsed().as_secs(), 60 + 3);
    }

    #[tokio::test]
    async fn a_place_is_free_again_after_its_answer() {
        let places = Places::new();
        let all = places.take_now(usize::MAX).unwrap();
        assert!(places.take_now(0).is_none());
        all.answer(async { Ok(()) }).await.unwrap();
        assert!(places.take_now(0).is_some());
    }
}
