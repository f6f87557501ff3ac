//! A stream that is spread over partitions, seen and changed as one.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::TryStreamExt;
use streamjobs::config::Start;
use streamjobs::error::DeadLetterError;
use streamjobs::stream::{
    Cut, EntryAddress, Group, PendingQuery, Problem, Stream, StreamError, Unfinished,
};
use streamjobs::{Client, ConsumerName, EntryId};
use streamjobs_tests::server::RedisServer;

use crate::app::Order;

/// A stream with three partitions.
struct Whole {
    server: RedisServer,
    stream: Stream,
    names: Vec<String>,
}

impl Whole {
    async fn start() -> Self {
        let server = RedisServer::start().unwrap();
        let client =
            Client::builder(&server.url()).partitions("orders", 3).connect().await.unwrap();
        let stream = client.stream("orders").unwrap();
        let names = stream.partitions().iter().map(|part| part.name().to_string()).collect();
        Self { server, stream, names }
    }

    /// Adds an entry with an id of its own choice to a partition.
    fn add(&self, partition: usize, id: &str) {
        self.add_to(&self.names[partition], id);
    }

    fn add_to(&self, key: &str, id: &str) {
        self.server.command(&["XADD", key, id, "type", "order.placed", "data", "{}"]);
    }

    async fn group(&self) -> Group {
        let group = self.stream.group("work").unwrap();
        group.create(Start::Beginning).await.unwrap();
        group
    }

    /// Delivers everything that a partition has to a consumer of other software.
    fn deliver(&self, partition: usize, consumer: &str) {
        let name = &self.names[partition];
        self.server.command(&["XREADGROUP", "GROUP", "work", consumer, "STREAMS", name, ">"]);
    }

    fn pending(&self) -> Vec<usize> {
        self.names.iter().map(|name| self.server.pending(name, "work").len()).collect()
    }

    fn helper_key(&self, partition: usize, kind: &str) -> String {
        let name = &self.names[partition];
        if name.contains('{') {
            format!("{name}:{kind}:work")
        } else {
            format!("{{{name}}}:{kind}:work")
        }
    }

    fn lengths(&self, kind: &str) -> Vec<usize> {
        (0..3).map(|partition| self.server.length(&self.helper_key(partition, kind))).collect()
    }
}

fn at(id: u64, partition: u16) -> EntryAddress {
    EntryAddress { id: EntryId::new(id, 1), partition: Some(partition) }
}

/// The ids of a history in which two partitions have the same ones.
const SAME: [(usize, &str); 6] =
    [(0, "1-1"), (1, "1-1"), (2, "1-1"), (1, "2-1"), (0, "3-1"), (2, "3-1")];

fn same() -> Vec<EntryAddress> {
    vec![at(1, 0), at(1, 1), at(1, 2), at(2, 1), at(3, 0), at(3, 2)]
}

#[tokio::test]
async fn figures_are_sums_and_the_ends_are_those_of_all() {
    let whole = Whole::start().await;
    assert_eq!(whole.stream.length().await.unwrap(), 0);
    assert!(
        matches!(whole.stream.info().await, Err(StreamError::Missing { stream }) if stream == "orders")
    );
    whole.add(1, "5-0");
    whole.add(1, "6-0");
    whole.add(2, "4-0");
    // The first partition has none.
    let info = whole.stream.info().await.unwrap();
    assert_eq!((info.length, info.added), (3, 3));
    assert_eq!((info.first, info.last), (Some(EntryId::new(4, 0)), Some(EntryId::new(6, 0))));
    let sizes = whole.stream.sizes().await.unwrap();
    assert_eq!((sizes.length, whole.stream.length().await.unwrap()), (3, 3));
    let mut lengths = Vec::new();
    for part in whole.stream.partitions() {
        lengths.push(part.length().await.unwrap());
    }
    assert_eq!(lengths, [0, 2, 1]);
}

#[tokio::test]
async fn the_history_of_all_partitions_is_read_in_one_order_and_pages_lose_nothing() {
    let whole = Whole::start().await;
    SAME.iter().for_each(|(partition, id)| whole.add(*partition, id));
    let stream = &whole.stream;
    let read = stream.replay(..).map_ok(|entry| entry.address()).try_collect::<Vec<_>>();
    assert_eq!(read.await.unwrap(), same());
    let newest = stream.newest(10).await.unwrap();
    let newest = newest.iter().map(|entry| entry.address()).collect::<Vec<_>>();
    assert_eq!(newest, same().into_iter().rev().collect::<Vec<_>>());
    // Ids are in all partitions, addresses between two of them.
    let of = async |range: streamjobs::stream::Range| {
        let read = stream.replay(range).map_ok(|entry| entry.address());
        read.try_collect::<Vec<_>>().await.unwrap()
    };
    assert_eq!(of((EntryId::new(1, 1)..EntryId::new(3, 1)).into()).await, same()[..4]);
    assert_eq!(of((at(1, 1)..=at(3, 0)).into()).await, same()[1..5]);
    let (mut pages, mut range) = (Vec::new(), streamjobs::stream::Range::from(..));
    loop {
        let page = stream.previews(range, 1, 100).await.unwrap();
        pages.extend(page.entries.iter().map(|entry| entry.address()));
        let Some(after) = page.more_after else { break };
        range = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded).into();
    }
    assert_eq!(pages, same());
}

#[tokio::test]
async fn an_entry_is_found_by_its_id_where_one_partition_has_it() {
    let whole = Whole::start().await;
    SAME.iter().for_each(|(partition, id)| whole.add(*partition, id));
    let stream = &whole.stream;
    let entry = stream.entry(EntryId::new(2, 1)).await.unwrap().unwrap();
    assert_eq!(entry.address().to_string(), "2-1@1");
    assert!(stream.entry(at(3, 2)).await.unwrap().is_some());
    assert!(stream.entry(at(3, 1)).await.unwrap().is_none());
    assert!(stream.entry(EntryId::new(9, 9)).await.unwrap().is_none());
    let error = stream.entry(EntryId::new(3, 1)).await.unwrap_err().to_string();
    assert_eq!(error, "partitions 0, 2 of stream orders have an id 3-1: name one, as in 3-1@0");
    let error = stream.entry(at(3, 3)).await.unwrap_err().to_string();
    assert_eq!(error, "stream orders has no partition 3");
    // A partition's own handle takes the addresses of the whole.
    let last = stream.partitions().remove(2);
    assert_eq!(last.entry(at(3, 2)).await.unwrap().unwrap().address(), at(3, 2));
    assert!(matches!(last.entry(at(3, 0)).await, Err(StreamError::NoPartition { .. })));
}

#[tokio::test]
async fn pending_entries_are_paged_over_partitions_and_each_is_released_in_its_own() {
    let whole = Whole::start().await;
    let group = whole.group().await;
    SAME.iter().for_each(|(partition, id)| whole.add(*partition, id));
    (0..3).for_each(|partition| whole.deliver(partition, "theirs"));
    let (mut seen, mut query) = (Vec::new(), PendingQuery::new().limit(1));
    loop {
        let page = group.pending(query.clone()).await.unwrap();
        seen.extend(page.entries.iter().map(|entry| entry.address()));
        let Some(next) = page.next else { break };
        query = query.after(next);
    }
    assert_eq!(seen, same());
    let error = group.release([EntryId::new(3, 1)]).await.unwrap_err();
    assert!(
        matches!(&error, StreamError::Ambiguous { partitions, .. } if *partitions == [0, 2]),
        "{error}"
    );
    let mine = ConsumerName::new("mine").unwrap();
    let rows = [at(3, 2), EntryId::new(2, 1).into(), EntryId::new(9, 9).into()];
    let moved = group.claim(rows, &mine).await.unwrap();
    assert_eq!(
        moved.moved.into_iter().collect::<HashSet<_>>(),
        HashSet::from([at(3, 2), at(2, 1)])
    );
    assert_eq!(moved.missing, [EntryId::new(9, 9).into()]);
    let owners = |partition: usize| {
        let rows = whole.server.pending(&whole.names[partition], "work").into_iter();
        rows.map(|row| format!("{} {}", row.id, row.consumer)).collect::<Vec<_>>()
    };
    assert_eq!(owners(0), ["1-1 theirs", "3-1 theirs"]);
    assert_eq!(owners(1), ["1-1 theirs", "2-1 mine"]);
    assert_eq!(owners(2), ["1-1 theirs", "3-1 mine"]);
    assert_eq!(group.acknowledge([at(1, 0), at(1, 2)]).await.unwrap(), 2);
    assert_eq!(whole.pending(), [1, 2, 1]);
    let theirs = ConsumerName::new("theirs").unwrap();
    let handed = group.hand_over(&theirs, &mine).await.unwrap();
    assert_eq!(handed.moved.into_iter().collect::<HashSet<_>>(), [at(1, 1), at(3, 0)].into());
    let _ = group.remove_consumer(&theirs).await.unwrap();
    let consumers = group.consumers().await.unwrap();
    let consumers = consumers.iter().map(|one| (one.name.as_str(), one.pending));
    assert_eq!(consumers.collect::<Vec<_>>(), [("mine", 4)]);
}

#[tokio::test]
async fn dead_letters_are_paged_over_partitions_and_each_is_redriven_in_its_own() {
    let whole = Whole::start().await;
    let group = whole.group().await;
    for (partition, id) in SAME {
        whole.add_to(&whole.helper_key(partition, "dead"), id);
    }
    let letters = group.dead_letters();
    let (mut oldest, mut after) = (Vec::new(), None);
    let (mut newest, mut before) = (Vec::new(), None);
    for _ in 0..7 {
        let page = letters.list(after, 1).await.unwrap();
        oldest.extend(page.letters.iter().map(|letter| letter.address()));
        after = page.next.or(after);
        let page = letters.newest_summaries(before, 1).await.unwrap();
        newest.extend(page.letters.iter().map(|letter| letter.address()));
        before = page.next.or(before);
    }
    assert_eq!((&oldest[..], oldest.len()), (&same()[..], 6));
    assert_eq!(newest, same().into_iter().rev().collect::<Vec<_>>());
    assert_eq!(letters.list(None, 100).await.unwrap().letters.len(), 6);
    let error = letters.redrive(EntryId::new(3, 1)).await.unwrap_err();
    assert!(
        matches!(&error, DeadLetterError::Ambiguous { partitions, .. } if *partitions == [0, 2]),
        "{error}"
    );
    letters.redrive(at(3, 2)).await.unwrap();
    // No other partition has it any more.
    letters.redrive(EntryId::new(3, 1)).await.unwrap();
    assert_eq!(whole.lengths("lane"), [1, 0, 1]);
    let answers = letters.redrive_all([at(2, 1), at(2, 2)]).await;
    assert!(answers[0].1.is_ok() && answers[1].1.is_err(), "{answers:?}");
    assert_eq!(letters.purge([at(1, 0), at(1, 2), at(7, 1)]).await.unwrap(), 2);
    assert_eq!(whole.lengths("dead"), [0, 1, 0]);
    assert!(matches!(letters.purge([at(1, 3)]).await, Err(DeadLetterError::NoPartition { .. })));
}

#[tokio::test]
async fn retries_are_paged_by_their_time_over_partitions_and_run_in_their_own() {
    let whole = Whole::start().await;
    let group = whole.group().await;
    let due = |partition, time: &str, name: &str| {
        whole.server.command(&["ZADD", &whole.helper_key(partition, "retry"), time, name]);
    };
    let future = "9000000000000";
    for (partition, time, name) in [
        (2, "8000000000000", "s:1-1"),
        (0, future, "s:1-1"),
        (0, future, "s:2-1"),
        (1, future, "s:1-1"),
        (1, "9000000000001", "l:1-1"),
    ] {
        due(partition, time, name);
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = group.retries(after.as_ref(), 1).await.unwrap();
        seen.extend(page.jobs.iter().map(|job| job.id.to_string()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["s:1-1@2", "s:1-1@0", "s:2-1@0", "s:1-1@1", "l:1-1@1"]);
    // A page goes on behind a job that does not wait any more.
    let first = group.retries(None, 2).await.unwrap();
    whole.server.command(&["ZREM", &whole.helper_key(0, "retry"), "s:1-1"]);
    let rest = group.retries(first.next.as_ref(), 10).await.unwrap().jobs;
    assert_eq!(rest.iter().map(|job| job.id.to_string()).collect::<Vec<_>>(), seen[2..]);
    let error = group.run_now(&["s:1-1".parse().unwrap()]).await.unwrap_err();
    assert!(
        matches!(&error, StreamError::Ambiguous { partitions, .. } if *partitions == [1, 2]),
        "{error}"
    );
    let ids = ["s:1-1@1", "l:1-1", "s:9-9"].map(|id| id.parse().unwrap());
    assert_eq!(group.run_now(&ids).await.unwrap(), 2);
    let score = |partition, name: &str| -> String {
        whole.server.query(&["ZSCORE", &whole.helper_key(partition, "retry"), name])
    };
    assert_eq!([score(1, "s:1-1"), score(1, "l:1-1")], ["0", "0"]);
    assert_ne!(score(2, "s:1-1"), "0");
}

#[tokio::test]
async fn a_group_is_shown_as_one_and_each_of_its_problems_once() {
    let whole = Whole::start().await;
    let group = whole.group().await;
    for partition in 0..3 {
        for id in 1..=4 {
            whole.add(partition, &format!("{id}-{partition}"));
        }
        let name = &whole.names[partition];
        let read = ["XREADGROUP", "GROUP", "work", "theirs", "COUNT", "1", "STREAMS", name, ">"];
        whole.server.command(&read);
    }
    let all = whole.stream.groups().await.unwrap();
    let info = group.info().await.unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!((all[0].pending, all[0].backlog), (info.pending, info.backlog));
    assert_eq!((info.stream.as_str(), info.group.as_str()), ("orders", "work"));
    assert_eq!((info.pending, info.backlog.entries, info.partitions), (3, 9, 3));
    assert!(info.oldest_waiting.unwrap() > Duration::from_secs(1_000_000));
    assert_eq!(group.oldest_unfinished().await.unwrap().published, Some(EntryId::new(1, 0)));
    let diagnosis = group.diagnose().await.unwrap();
    let words = diagnosis.problems.iter().map(Problem::as_str).collect::<Vec<_>>();
    assert_eq!(words.iter().collect::<HashSet<_>>().len(), words.len(), "{diagnosis}");
    assert!(words.contains(&"not_reading") || words.contains(&"too_few_consumers"), "{diagnosis}");
    // One partition lost it.
    whole.server.command(&["XGROUP", "DESTROY", &whole.names[1], "work"]);
    let info = group.info().await.unwrap();
    assert_eq!((info.pending, info.partitions, info.without_group), (2, 3, 1));
    let diagnosis = group.diagnose().await.unwrap().to_string();
    assert!(diagnosis.contains("1 of 3 partitions do not have the group"), "{diagnosis}");
    let missing = whole.stream.group("nothing").unwrap().info().await.unwrap_err();
    assert!(matches!(missing, StreamError::GroupMissing { .. }), "{missing}");
}

#[tokio::test]
async fn a_pause_holds_in_all_partitions_and_one_in_some_is_said_so() {
    let whole = Whole::start().await;
    let group = whole.group().await;
    assert!(group.pause().await.unwrap());
    assert!(!group.pause().await.unwrap());
    let info = group.info().await.unwrap();
    assert!(info.paused.is_some() && info.paused_in == 3, "{info:?}");
    let second = whole.stream.partitions().remove(1).group("work").unwrap();
    assert!(second.resume().await.unwrap());
    let info = group.info().await.unwrap();
    assert_eq!((info.paused_in, info.paused.is_some(), info.resumed.is_some()), (2, true, true));
    let diagnosis = group.diagnose().await.unwrap().to_string();
    assert!(diagnosis.contains(" in 2 of 3 partitions"), "{diagnosis}");
    assert!(group.resume().await.unwrap());
    assert_eq!(group.info().await.unwrap().paused, None);
}

#[tokio::test]
async fn a_group_is_moved_and_removed_in_all_partitions_or_in_none() {
    let whole = Whole::start().await;
    let group = whole.group().await;
    whole.add(2, "7-0");
    let error = group.move_to(Start::End, Unfinished::Keep).await.unwrap_err();
    assert!(error.to_string().contains(&whole.names[2]), "{error}");
    let error = group.destroy(Unfinished::Keep).await.unwrap_err();
    assert!(error.to_string().contains(&whole.names[2]), "{error}");
    assert!(group.check_destroy(Unfinished::Keep).await.is_err());
    for part in whole.stream.partitions() {
        assert_eq!(part.groups().await.unwrap().len(), 1, "{}", part.name());
    }
    group.move_to(Start::End, Unfinished::Lose).await.unwrap();
    assert_eq!(group.info().await.unwrap().backlog.entries, 0);
    group.destroy(Unfinished::Keep).await.unwrap();
    assert!(matches!(group.info().await, Err(StreamError::GroupMissing { .. })));
}

#[tokio::test]
async fn a_cut_by_length_holds_for_each_partition() {
    let whole = Whole::start().await;
    for (partition, entries) in [(0, 10), (1, 3), (2, 6)] {
        (1..=entries).for_each(|id| whole.add(partition, &format!("{id}-0")));
    }
    let checked = whole.stream.check_trim(Cut::Length(5), Unfinished::Keep).await.unwrap();
    assert_eq!((checked.removed, checked.length), (6, 13));
    let trimmed = whole.stream.trim_exactly(Cut::Length(5), Unfinished::Keep).await.unwrap();
    assert_eq!((trimmed.removed, trimmed.length, trimmed.more), (6, 13, false));
    let lengths = whole.names.iter().map(|name| whole.server.length(name));
    assert_eq!(lengths.collect::<Vec<_>>(), [5, 3, 5]);
    whole.group().await;
    let cut = Cut::Before(EntryId::new(6, 0));
    let trimmed = whole.stream.trim_exactly(cut, Unfinished::Keep).await.unwrap();
    assert_eq!(trimmed.blocked_by.map(|(group, _)| group).as_deref(), Some("work"));
}

#[tokio::test]
async fn a_deletion_takes_every_partition_and_the_number_or_nothing() {
    let whole = Whole::start().await;
    let group = whole.group().await;
    whole.add_to(&whole.helper_key(1, "dead"), "1-1");
    let error = whole.stream.delete(Unfinished::Keep).await.unwrap_err();
    assert!(error.to_string().contains(&whole.names[1]), "{error}");
    assert_eq!(group.info().await.unwrap().without_group, 0);
    assert!(whole.stream.delete(Unfinished::Lose).await.unwrap());
    let keys: Vec<String> = whole.server.query(&["KEYS", "*"]);
    assert!(keys.is_empty(), "{keys:?}");
    assert!(!whole.stream.delete(Unfinished::Keep).await.unwrap());
}

/// Those that it does not know of would stay behind, and nothing would tell of them.
#[tokio::test]
async fn a_client_that_knows_fewer_partitions_deletes_none() {
    let whole = Whole::start().await;
    whole.group().await;
    let url = whole.server.url();
    let told_none = Client::connect(&url).await.unwrap();
    Client::builder(&url).partitions("orders", 6).connect().await.unwrap();
    for client in [whole.stream.clone(), told_none.stream("orders").unwrap()] {
        let error = client.delete(Unfinished::Lose).await.unwrap_err().to_string();
        assert!(error.contains("orders has 6 partitions"), "{error}");
    }
    assert_eq!(whole.stream.info().await.unwrap().groups, 1, "nothing is gone");
    let all = Client::builder(&url).partitions_as_stored("orders").connect().await.unwrap();
    assert!(all.stream("orders").unwrap().delete(Unfinished::Lose).await.unwrap());
}

#[tokio::test]
async fn what_fails_in_one_partition_names_it_and_is_done_in_the_others() {
    let whole = Whole::start().await;
    let group = whole.group().await;
    let hash = whole.helper_key(1, "group");
    whole.server.command(&["DEL", &hash]);
    whole.server.command(&["SET", &hash, "of another type"]);
    let error = group.pause().await.unwrap_err().to_string();
    assert!(error.contains(&whole.names[1]), "{error}");
    for place in [0, 2] {
        let part = whole.stream.partitions().remove(place).group("work").unwrap();
        assert!(part.info().await.unwrap().paused.is_some(), "{place}");
    }
}

#[tokio::test]
async fn many_partitions_are_followed_without_a_connection_for_each() {
    let server = RedisServer::start().unwrap();
    let client = Client::builder(&server.url()).partitions("orders", 48).connect().await.unwrap();
    let stream = client.stream("orders").unwrap();
    let before = |count| Order { id: format!("before {count}"), customer: format!("{count}") };
    for count in 0..20 {
        client.publish(&before(count)).await.unwrap();
    }
    let connected = || {
        let clients: String = server.query(&["CLIENT", "LIST"]);
        clients.lines().count()
    };
    let published = client.publish(&before(20)).await.unwrap();
    let entry = stream.entry(published.address()).await.unwrap().unwrap();
    assert_eq!((entry.address(), published.partition.is_some()), (published.address(), true));
    let (first, mut tail) = (connected(), stream.tail().await.unwrap());
    let later = |count| Order { id: format!("later {count}"), customer: format!("{count}") };
    let orders = (0..100).map(later).collect::<Vec<_>>();
    for answer in client.publish_all(&orders).await {
        answer.unwrap();
    }
    let (mut seen, mut partitions) = (HashSet::new(), HashSet::new());
    while seen.len() < 100 {
        let entry = tail.next().await.unwrap();
        assert!(entry.text("data").is_some_and(|data| data.contains("later")), "{entry:?}");
        assert!(seen.insert(entry.address()), "{entry:?} twice");
        partitions.insert(entry.address().partition.unwrap());
    }
    assert!(partitions.len() > 30, "{partitions:?}");
    assert!(connected() <= first, "{} connections, {first} before", connected());
    // From an entry on, in the order of addresses.
    let all = stream.replay(..).map_ok(|entry| entry.address()).try_collect::<Vec<_>>();
    let all = all.await.unwrap();
    let mut tail = stream.tail_after(all[9]).await.unwrap();
    assert_eq!(tail.next().await.unwrap().address(), all[10]);
}

/// What names a row of a plain stream is its id, as it was.
#[tokio::test]
async fn a_stream_without_partitions_has_ids_without_numbers() {
    let server = RedisServer::start().unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let published = client.publish(&crate::app::order(1)).await.unwrap();
    assert_eq!(published.address(), published.entry_id.into());
    let stream = client.stream("orders").unwrap();
    let entry = stream.newest(1).await.unwrap().remove(0);
    assert_eq!(entry.address().to_string(), entry.id().to_string());
    assert_eq!(stream.partitions().len(), 1);
    let first = EntryAddress { id: entry.id(), partition: Some(0) };
    assert!(stream.entry(first).await.unwrap().is_some(), "it is its only partition");
    let group = stream.group("work").unwrap();
    group.create(Start::Beginning).await.unwrap();
    let info = group.info().await.unwrap();
    assert_eq!((info.partitions, info.without_group, info.paused_in), (1, 0, 0));
}
