//! The row from which the relay has to read the outbox, so that rows moved before cost nothing.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// The state of the database right before the outbox is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// The number after the highest one whose transaction has ended.
    next: u64,
    /// Transactions below that number that had not ended.
    running: Vec<u64>,
    /// Transactions from this number on had not begun to write. Those from `next` on had, and run: a snapshot does
    /// not list them.
    begun: u64,
    /// The last id that was given to a row, if this role may know it.
    last_id: Option<i64>,
    /// When the database was asked, and when it had answered.
    asked: Instant,
    answered: Instant,
}

/// Where a read of the outbox starts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) base: i64,
    /// Transactions, and the lowest id of each transaction's rows: if a transaction has ended, the
    /// read starts there.
    pub(super) transactions: Vec<String>,
    pub(super) ids: Vec<i64>,
    /// Transactions from these numbers on are not known one by one. If one of them has ended, the look starts at the
    /// id.
    pub(super) unlisted: Vec<String>,
    pub(super) unlisted_ids: Vec<i64>,
    /// Streams that have rows below the base, and the lowest id of these.
    pub(super) streams: Vec<String>,
    pub(super) stream_ids: Vec<i64>,
}

/// The result of a read of the outbox, whose events were then moved or left.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) moment: Moment,
    /// How long the read took, if it read the whole outbox.
    pub(super) whole: Option<Duration>,
    /// The last id that the read reached; `None` if it saw every waiting row.
    pub(super) reached: Option<i64>,
    /// The streams that the read skipped, because they are in back-off. They may have rows from the
    /// id on where the read started.
    pub(super) blocked: Vec<String>,
    /// The rows that the read saw and that still wait.
    pub(super) left: Vec<(i64, String)>,
}

/// The lowest id of a row that may still wait.
///
/// Rows of a transaction that commits late are below rows that were already moved. So for each
/// transaction that ran at the last look, this keeps the lowest id that its rows may have; once the
/// transaction has ended, the next look starts there. A snapshot lists only the transactions below the highest number
/// that has ended. Of those above it, which run or began to write just now, this keeps the lowest id of all from a
/// number on, and looks there once one of them has ended. Three kinds of rows escape this: a refused
/// one that is to be tried again, one whose id the writer chose, and one whose id was drawn more
/// than a second before its transaction had a number. A look at everything, which is made [now and
/// then](Self::start), finds those.
#[derive(Debug, Default)]
pub(super) struct Floor {
    /// Every row below this id was not visible at the last read, or is of a stream in `behind`.
    base: i64,
    /// Streams with rows below the base, and the lowest id of these rows.
    behind: HashMap<String, i64>,
    /// The transactions that ran at the last read, and the lowest id of the rows of each.
    running: BTreeMap<u64, i64>,
    /// From which transaction on, up to the next entry, rows have at least this id. It is kept for transactions that no
    /// snapshot has listed yet.
    unlisted: BTreeMap<u64, i64>,
    /// The lowest id of a row of a transaction that began after the last look.
    settled: i64,
    /// The number after the highest one whose transaction had ended at the last look.
    next: u64,
    /// The last id, as it was read a while ago, and when.
    last_id: Option<(i64, Instant)>,
    /// When the whole outbox is read again.
    whole_at: Option<Instant>,
    /// How many reads of the whole outbox in a row ran into their time limit, before the first success, which shows
    /// where to start.
    cut: u32,
}

impl Moment {
    /// From a snapshot as the server writes it: `xmin:xmax:running,running`, and from how many numbers the server has
    /// given to transactions from `xmax` on.
    pub(super) fn new(
        snapshot: &str,
        unlisted: i32,
        last_id: Option<i64>,
        asked: Instant,
    ) -> Option<Self> {
        let (_, rest) = snapshot.split_once(':')?;
        let (next, running) = rest.split_once(':')?;
        let running = running.split(',').filter(|number| !number.is_empty());
        let running = running.map(|number| number.parse().ok()).collect::<Option<_>>()?;
        let (next, answered) = (next.parse::<u64>().ok()?, Instant::now());
        let begun = next.saturating_add(u64::try_from(unlisted).ok()?);
        Some(Self { next, running, begun, last_id, asked, answered })
    }
}

impl Floor {
    /// Forgets everything if this is another database, or if the database went back in time: after
    /// a failover to a standby that lagged, ids are given out again.
    pub(super) fn check(&mut self, moment: &Moment) {
        let last_id = self.last_id.map(|(id, _)| id);
        let went_back = moment.next < self.next || moment.last_id < last_id;
        if went_back || self.behind.len() > STREAMS_MAX {
            *self = Self::default();
        }
    }

    /// Where the next read starts; `None` for a read of the whole outbox. That is due at the
    /// beginning, and then a minute after the last such read, or 20 times as long as that read took
    /// if this is more.
    pub(super) fn start(&self, now: Instant) -> Option<Start> {
        if self.base == 0 || self.whole_at.is_none_or(|at| at <= now) {
            return None;
        }
        let below = self.running.iter().filter(|(_, id)| **id < self.base);
        let (transactions, ids) = below.map(|(number, id)| (number.to_string(), *id)).unzip();
        let below = self.unlisted.iter().filter(|(_, id)| **id < self.base);
        let (unlisted, unlisted_ids) = below.map(|(from, id)| (from.to_string(), *id)).unzip();
        let (streams, stream_ids) = self.behind.clone().into_iter().unzip();
        let base = self.base;
        Some(Start { base, transactions, ids, unlisted, unlisted_ids, streams, stream_ids })
    }

    /// The lowest id of a row that may still wait.
    pub(super) fn lowest(&self) -> i64 {
        self.behind.values().copied().chain([self.base]).min().unwrap_or_default()
    }

    /// How long a read of the whole outbox may take. Nothing can be moved before the first such read has shown where
    /// to start. Until then, each read that runs into the limit doubles the limit, up to about two hours.
    pub(super) fn whole_max(&self) -> Duration {
        if self.base == 0 { WHOLE_MAX * (1 << self.cut.min(DOUBLED_MAX)) } else { WHOLE_MAX }
    }

    /// A read of the whole outbox failed after this time, perhaps because it takes too long. It is
    /// repeated later, so that it does not keep the relay from moving events.
    pub(super) fn whole_failed(&mut self, now: Instant, spent: Duration) {
        if spent >= self.whole_max() {
            self.cut = self.cut.saturating_add(1);
        }
        self.whole_at = Some(now + WHOLE_EVERY.max(spent * WHOLE_SHARE));
    }

    /// Applies the result of a read, after the moves of its events were committed.
    pub(super) fn apply(&mut self, look: Look) {
        let Look { moment, whole, reached, blocked, left } = look;
        // Rows that the read skipped may be as low as where it started.
        let ended = self.running.iter().filter(|(number, _)| !moment.running.contains(number));
        let ended = ended.chain(self.unlisted.range(..moment.next)).map(|(_, id)| *id);
        let from = ended.chain([self.base]).min().unwrap_or_default();
        // The look did not get beyond the rows of these streams.
        let within = reached.filter(|id| *id < self.base && from == self.base && whole.is_none());
        let mut behind = HashMap::new();
        for (stream, id) in &self.behind {
            let rest = if blocked.contains(stream) { Some(*id) } else { within.map(|id| id + 1) };
            behind.extend(rest.map(|id| (stream.clone(), id)));
        }
        for stream in blocked {
            let lowest = behind.entry(stream).or_insert(from);
            *lowest = from.min(*lowest);
        }
        for (id, stream) in left {
            let lowest = behind.entry(stream).or_insert(id);
            *lowest = id.min(*lowest);
        }
        self.behind = behind;
        let lowest = |number: &u64| (*number, self.lowest_of(*number));
        self.running = moment.running.iter().map(lowest).collect();
        self.next = moment.next;
        self.forget_listed(&moment);
        self.settle(&moment);
        // Of the transactions that begin from now on.
        let is_known = self.unlisted.values().next_back() == Some(&self.settled);
        if !is_known && self.unlisted.len() < UNLISTED_MAX {
            self.unlisted.insert(moment.begun, self.settled);
        }
        self.base = match (within, reached) {
            (Some(_), _) => self.base,
            (None, Some(id)) => self.settled.min(id.saturating_add(1)),
            (None, None) => self.settled,
        };
        if self.base != 0 {
            self.cut = 0;
        }
        if let Some(took) = whole {
            self.whole_at = Some(moment.answered + WHOLE_EVERY.max(took * WHOLE_SHARE));
        }
    }

    /// The lowest id of the rows of a transaction.
    fn lowest_of(&self, number: u64) -> i64 {
        let unlisted = || self.unlisted.range(..=number).next_back().map(|(_, id)| *id);
        self.running.get(&number).copied().or_else(unlisted).unwrap_or_default()
    }

    /// All transactions below the highest number that has ended are listed.
    fn forget_listed(&mut self, moment: &Moment) {
        let lowest = self.lowest_of(moment.next);
        self.unlisted = self.unlisted.split_off(&moment.next);
        self.unlisted.entry(moment.next).or_insert(lowest);
    }

    /// A transaction has a number from its first write on, but a row may have its id shortly before
    /// that. So the last id that was read counts as given out only a while later.
    fn settle(&mut self, moment: &Moment) {
        let is_new = |read| moment.asked.saturating_duration_since(read) < SETTLE;
        match (moment.last_id, self.last_id) {
            (None, _) => (self.settled, self.last_id) = (0, None),
            (Some(_), Some((_, read))) if is_new(read) => {}
            (Some(id), before) => {
                self.settled = before.map_or(0, |(id, _)| id.saturating_add(1));
                self.last_id = Some((id, moment.answered));
            }
        }
    }
}

/// How long a transaction may take from drawing the id of its first row to writing that row.
const SETTLE: Duration = Duration::from_secs(1);
/// The longest time for a read of the whole outbox while the relay knows another place to start.
const WHOLE_MAX: Duration = Duration::from_secs(120);
const DOUBLED_MAX: u32 = 6;
const WHOLE_EVERY: Duration = Duration::from_secs(60);
/// Reads of the whole outbox may take a twentieth of the time.
const WHOLE_SHARE: u32 = 20;
/// The most ids that are remembered of transactions that no snapshot lists. Those that begin after that count as older.
const UNLISTED_MAX: usize = 1_000;
/// The most streams with rows below the base that are remembered.
const STREAMS_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// A read at this second of a clock, with the transactions that ran.
    fn look(start: Instant, second: u64, running: &str, last_id: i64) -> Look {
        look_at(start, second, (100 + second, running, 0), last_id)
    }

    /// A look with this snapshot: the number after the highest one that ended, what ran below it, and how many
    /// numbers were given from it on.
    fn look_at(start: Instant, second: u64, snapshot: (u64, &str, i32), last_id: i64) -> Look {
        let (next, running, unlisted) = snapshot;
        let asked = start + Duration::from_secs(second);
        let moment = Moment::new(&format!("1:{next}:{running}"), unlisted, Some(last_id), asked);
        let moment = Moment { answered: asked, ..moment.unwrap() };
        Look { moment, whole: None, reached: None, blocked: Vec::new(), left: Vec::new() }
    }

    /// A floor after two reads of the whole outbox, at the seconds 0 and 1: the ids up to 50 are
    /// given out, by transactions that ended.
    fn looked(start: Instant) -> Floor {
        let mut floor = Floor::default();
        for second in 0..2 {
            assert_eq!(floor.start(start), None);
            floor.apply(Look { whole: Some(Duration::ZERO), ..look(start, second, "", 50) });
        }
        floor
    }

    fn base(floor: &Floor, now: Instant) -> i64 {
        floor.start(now).unwrap().base
    }

    #[test]
    fn ids_given_out_a_second_ago_are_not_looked_at_again() {
        let start = Instant::now();
        let mut floor = looked(start);
        assert_eq!((base(&floor, start), floor.lowest()), (51, 51));
        floor.apply(look(start, 2, "", 70));
        assert_eq!(base(&floor, start), 51, "70 was given out just now");
        floor.apply(look(start, 3, "", 90));
        assert_eq!(base(&floor, start), 71);
    }

    #[test]
    fn a_look_that_did_not_reach_the_end_is_continued() {
        let start = Instant::now();
        let mut floor = looked(start);
        floor.apply(Look { reached: Some(60), ..look(start, 2, "", 500) });
        floor.apply(Look { reached: Some(80), ..look(start, 3, "", 500) });
        assert_eq!(base(&floor, start), 81);
    }

    #[test]
    fn a_transaction_that_ends_late_is_looked_for_from_where_it_began() {
        let start = Instant::now();
        let mut floor = looked(start);
        floor.apply(look(start, 2, "101", 70));
        floor.apply(look(start, 3, "101", 90));
        floor.apply(look(start, 4, "101,103", 90));
        let Start { base, transactions, ids, .. } = floor.start(start).unwrap();
        assert_eq!((base, transactions, ids), (91, vec!["101".into(), "103".into()], vec![51, 71]));
        floor.apply(look(start, 5, "103", 90));
        assert_eq!(floor.start(start).unwrap().transactions, ["103"]);
    }

    #[test]
    fn a_transaction_that_no_snapshot_lists_is_looked_for_from_where_it_began() {
        let start = Instant::now();
        let mut floor = Floor::default();
        for second in 0..2 {
            let whole = Some(Duration::ZERO);
            floor.apply(Look { whole, ..look_at(start, second, (200, "", 0), 50) });
        }
        floor.apply(look_at(start, 2, (200, "", 1), 70));
        floor.apply(look_at(start, 3, (200, "", 1), 90));
        floor.apply(look_at(start, 4, (200, "", 2), 90));
        let unlisted = |floor: &Floor| {
            let Start { base, unlisted, unlisted_ids, transactions, .. } =
                floor.start(start).unwrap();
            assert_eq!((base, transactions), (91, Vec::<String>::new()));
            unlisted.into_iter().zip(unlisted_ids).collect::<Vec<_>>()
        };
        assert_eq!(unlisted(&floor), [("200".into(), 51), ("201".into(), 71)]);
        // 202 has begun meanwhile and ends first: the look starts where 200 began, and both are listed now.
        floor.apply(Look {
            blocked: vec!["a".into()],
            ..look_at(start, 5, (203, "200,201", 1), 90)
        });
        let Start { transactions, ids, unlisted, stream_ids, .. } = floor.start(start).unwrap();
        assert_eq!((transactions, ids), (vec!["200".into(), "201".into()], vec![51, 71]));
        assert_eq!((unlisted, stream_ids), (vec![], vec![51]));
    }

    #[test]
    fn many_transactions_that_no_snapshot_lists_take_little_memory() {
        let start = Instant::now();
        let mut floor = looked(start);
        for second in 2..5_000 {
            let begun = i32::try_from(second).unwrap();
            floor.apply(look_at(start, second, (102, "", begun), 50 + i64::from(begun)));
        }
        assert_eq!(floor.unlisted.len(), UNLISTED_MAX);
        assert_eq!((floor.lowest_of(102), floor.lowest_of(200)), (51, 148));
        let last = floor.unlisted.values().next_back().copied();
        assert_eq!(Some(floor.lowest_of(4_000)), last);
        floor.apply(look_at(start, 5_000, (5_200, "4000", 0), 6_000));
        assert_eq!((Some(floor.lowest_of(4_000)), floor.unlisted.len()), (last, 1));
    }

    #[test]
    fn a_transaction_that_ran_before_the_first_look_may_have_any_id() {
        let start = Instant::now();
        let mut floor = Floor::default();
        for second in 0..3 {
            floor.apply(Look { whole: Some(Duration::ZERO), ..look(start, second, "7", 50) });
        }
        let Start { base, ids, .. } = floor.start(start).unwrap();
        assert_eq!((base, ids), (51, vec![0]));
    }

    #[test]
    fn rows_that_still_wait_are_looked_for_by_their_stream() {
        let start = Instant::now();
        let mut floor = looked(start);
        let left = vec![(55, "a".to_owned()), (53, "a".to_owned())];
        floor.apply(Look { left, ..look(start, 2, "101", 70) });
        floor.apply(Look { blocked: vec!["a".into(), "b".into()], ..look(start, 3, "101", 70) });
        let lowest = |floor: &Floor| {
            let Start { streams, stream_ids, .. } = floor.start(start).unwrap();
            streams.into_iter().zip(stream_ids).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(lowest(&floor), [("a".into(), 51), ("b".into(), 51)].into());
        // The transaction may have written rows for a stream that was skipped.
        floor.apply(Look { blocked: vec!["b".into()], ..look(start, 4, "", 90) });
        assert_eq!((lowest(&floor), floor.lowest()), ([("b".into(), 51)].into(), 51));
        floor.apply(look(start, 5, "", 90));
        assert_eq!((lowest(&floor), floor.lowest()), (BTreeMap::new(), 91));
    }

    #[test]
    fn a_stream_that_is_behind_is_read_on_without_looking_at_others_again() {
        let start = Instant::now();
        let mut floor = looked(start);
        floor.apply(Look { blocked: vec!["a".into()], ..look(start, 2, "101", 90) });
        floor.apply(Look { blocked: vec!["a".into()], ..look(start, 3, "101", 90) });
        let read = Look { reached: Some(60), ..look(start, 4, "101", 90) };
        floor.apply(Look { left: vec![(58, "a".to_owned())], ..read });
        let Start { base, stream_ids, .. } = floor.start(start).unwrap();
        assert_eq!((base, stream_ids), (91, vec![58]));
        floor.apply(Look { reached: Some(70), ..look(start, 5, "101", 90) });
        assert_eq!(floor.start(start).unwrap().stream_ids, [71]);
        // The transaction may have written rows for any stream.
        floor.apply(Look { reached: Some(75), ..look(start, 6, "", 90) });
        let Start { base, stream_ids, .. } = floor.start(start).unwrap();
        assert_eq!((base, stream_ids), (76, vec![]));
    }

    #[test]
    fn everything_is_looked_at_every_minute_and_for_a_twentieth_of_the_time() {
        let start = Instant::now();
        let mut floor = looked(start);
        let at = |second| start + Duration::from_secs(second);
        assert!(floor.start(at(60)).is_some());
        assert_eq!(floor.start(at(61)), None);
        let whole = Some(Duration::from_secs(6));
        floor.apply(Look { whole, ..look(start, 61, "", 50) });
        assert!(floor.start(at(61 + 119)).is_some());
        assert_eq!(floor.start(at(61 + 120)), None);
        floor.whole_failed(at(200), Duration::ZERO);
        assert!(floor.start(at(259)).is_some());
        assert_eq!(floor.start(at(260)), None);
        floor.whole_failed(at(300), Duration::from_secs(20));
        assert!(floor.start(at(699)).is_some());
        assert_eq!(floor.start(at(700)), None);
    }

    #[test]
    fn the_first_look_gets_more_time_until_it_has_shown_where_to_start() {
        let (start, mut floor) = (Instant::now(), Floor::default());
        let limit = |floor: &Floor| floor.whole_max().as_secs();
        floor.whole_failed(start, Duration::from_secs(5));
        assert_eq!(limit(&floor), 120, "it did not fail for want of time");
        floor.whole_failed(start, Duration::from_secs(120));
        assert_eq!((limit(&floor), floor.start(start)), (240, None));
        floor.whole_failed(start, Duration::from_secs(239));
        floor.whole_failed(start, Duration::from_secs(240));
        assert_eq!(limit(&floor), 480);
        let whole = || Some(Duration::from_secs(300));
        floor.apply(Look { whole: whole(), ..look(start, 0, "", 50) });
        assert_eq!(limit(&floor), 480, "the next look takes as long");
        floor.apply(Look { whole: whole(), ..look(start, 1, "", 50) });
        assert_eq!((limit(&floor), base(&floor, start)), (120, 51));
        floor.whole_failed(start, Duration::from_secs(120));
        assert_eq!(limit(&floor), 120, "there is another one");
        let mut floor = Floor::default();
        (0..99).for_each(|_| floor.whole_failed(start, Duration::from_secs(20_000)));
        assert_eq!(limit(&floor), 7_680);
    }

    #[test]
    fn a_database_that_went_back_or_tells_no_ids_is_looked_at_whole() {
        let start = Instant::now();
        for (number, id) in [(90, Some(50)), (200, Some(49)), (200, None)] {
            let mut floor = looked(start);
            let moment = Moment::new(&format!("1:{number}:"), 0, id, start).unwrap();
            floor.check(&moment);
            assert_eq!(floor.start(start), None, "{number} {id:?}");
        }
        let mut floor = looked(start);
        floor.check(&look(start, 2, "", 50).moment);
        assert!(floor.start(start).is_some());
        assert_eq!(Moment::new("1:x:", 0, None, start), None);
        assert_eq!(Moment::new("1:9:", -1, None, start), None);
        let moment = Moment::new("1:9:3,4", 2, None, start).unwrap();
        assert_eq!((moment.running, moment.next, moment.begun), (vec![3, 4], 9, 11));
    }
}
