//! Appending, reading, acknowledging.

use std::time::Duration;

use streamjobs::__store::{Inlet, ReadRequest, ReaderSetup, StoreError, StreamReader};
use streamjobs::config::Retention;
use streamjobs::{EntryId, StreamName};
use tokio::time::{Instant, timeout};

use super::{Case, Stage, append, fields};

/// Makes a test of every case in this file.
#[macro_export]
macro_rules! reading_cases {
    ($test:meta, $stage:expr) => {
        $crate::conformance_tests! { @each $test, $stage, reading:
            entries_are_delivered_once_in_order_with_count_one,
            no_more_is_delivered_than_asked_for,
            a_count_of_nothing_reads_nothing_and_acknowledges,
            a_waiting_read_ends_with_an_entry,
            a_waiting_read_ends_with_its_time,
            a_waiting_read_is_ended_by_waking_it,
            acknowledgements_ride_in_front_of_a_read,
            an_acknowledged_entry_of_the_lane_is_deleted,
            an_entry_of_another_client_is_delivered_as_it_is,
            a_thousand_entries_of_one_append_keep_their_order,
            a_cap_at_appending_cuts_the_oldest,
            a_reader_that_waits_here_waits_without_a_read,
            partitions_are_added_and_never_taken_away,
        }
    };
}

/// Entries come in the order of their ids, once to the group, counted as one delivery.
pub async fn entries_are_delivered_once_in_order_with_count_one(stage: &Stage) -> Case {
    let ids = stage.append(5).await?;
    assert!(ids.is_sorted());
    let first = stage.read(&stage.me, Inlet::STREAM, 3).await?;
    let second = stage.read(&stage.other, Inlet::STREAM, 10).await?;
    let delivered = first.iter().chain(&second);
    assert_eq!(delivered.clone().map(|delivery| delivery.entry.id()).collect::<Vec<_>>(), ids);
    assert!(delivered.clone().all(|delivery| delivery.delivery_count == 1));
    assert_eq!((first.len(), stage.pending(Inlet::STREAM).len()), (3, 5));
    Ok(())
}

/// The count is an upper bound.
pub async fn no_more_is_delivered_than_asked_for(stage: &Stage) -> Case {
    stage.append(10).await?;
    assert_eq!(stage.read(&stage.me, Inlet::STREAM, 4).await?.len(), 4);
    assert_eq!(stage.pending(Inlet::STREAM).len(), 4);
    Ok(())
}

/// A count of zero is not a missing limit.
pub async fn a_count_of_nothing_reads_nothing_and_acknowledges(stage: &Stage) -> Case {
    let hold = stage.deliver_one().await?;
    stage.append(3).await?;
    let acks = [(Inlet::STREAM, hold.id)];
    let request = ReadRequest { acks: &acks, inlet: Inlet::STREAM, count: 0, block: None };
    let reply = stage.reader(&stage.me).await?.read(request).await?;
    assert_eq!((reply.acknowledged?, reply.deliveries?.len()), (1, 0));
    assert!(stage.pending(Inlet::STREAM).is_empty());
    Ok(())
}

/// A read that waits is served as soon as there is an entry.
pub async fn a_waiting_read_ends_with_an_entry(stage: &Stage) -> Case {
    let mut reader = stage.reader(&stage.me).await?;
    let block = Some(Duration::from_secs(20));
    let request = ReadRequest { acks: &[], inlet: Inlet::STREAM, count: 5, block };
    let (reply, appended) = tokio::join!(reader.read(request), stage.append(1));
    let delivered = reply?.deliveries?;
    assert_eq!(delivered.iter().map(|one| one.entry.id()).collect::<Vec<_>>(), appended?);
    Ok(())
}

/// A wait has an end.
pub async fn a_waiting_read_ends_with_its_time(stage: &Stage) -> Case {
    let mut reader = stage.reader(&stage.me).await?;
    let block = Some(Duration::from_millis(30));
    let began = Instant::now();
    let request = ReadRequest { acks: &[], inlet: Inlet::STREAM, count: 5, block };
    assert!(reader.read(request).await?.deliveries?.is_empty());
    assert!(began.elapsed() >= Duration::from_millis(29));
    Ok(())
}

/// Waking ends the wait of this reader, and nothing else.
pub async fn a_waiting_read_is_ended_by_waking_it(stage: &Stage) -> Case {
    let mut reader = stage.reader(&stage.me).await?;
    let (waker, block) = (reader.waker(), Some(Duration::from_secs(20)));
    let request = ReadRequest { acks: &[], inlet: Inlet::STREAM, count: 5, block };
    let mut read = Box::pin(reader.read(request));
    let wake = async {
        loop {
            // The read may still be on its way, so one call is not always enough.
            stage.store.wake(waker).await?;
            if let Ok(reply) = timeout(Duration::from_millis(20), &mut read).await {
                return reply;
            }
        }
    };
    assert!(timeout(Duration::from_secs(10), wake).await??.deliveries?.is_empty());
    drop(read);
    stage.append(1).await?;
    let request = ReadRequest { acks: &[], inlet: Inlet::STREAM, count: 5, block: None };
    assert_eq!(reader.read(request).await?.deliveries?.len(), 1);
    Ok(())
}

/// One round trip acknowledges and reads; entries that were not pending are not counted.
pub async fn acknowledgements_ride_in_front_of_a_read(stage: &Stage) -> Case {
    let hold = stage.deliver_one().await?;
    stage.append(1).await?;
    let acks = [(Inlet::STREAM, hold.id), (Inlet::STREAM, EntryId::new(1, 1))];
    let request = ReadRequest { acks: &acks, inlet: Inlet::STREAM, count: 5, block: None };
    let reply = stage.reader(&stage.me).await?.read(request).await?;
    assert_eq!((reply.acknowledged?, reply.deliveries?.len()), (1, 1));
    assert!(stage.row(hold.id).is_none());
    assert_eq!(stage.store.acknowledge(&stage.queue, &[(Inlet::STREAM, hold.id)]).await?, 0);
    Ok(())
}

/// The lane holds only jobs that are still to be done.
pub async fn an_acknowledged_entry_of_the_lane_is_deleted(stage: &Stage) -> Case {
    let lane = stage.key(Inlet::LANE);
    let id = stage.raw.append(&lane, fields("a"));
    let delivered = stage.read(&stage.me, Inlet::LANE, 5).await?;
    assert_eq!(
        delivered.iter().map(|one| (one.inlet, one.entry.id())).collect::<Vec<_>>(),
        [(Inlet::LANE, id)]
    );
    assert_eq!(stage.store.acknowledge(&stage.queue, &[(Inlet::LANE, id)]).await?, 1);
    assert_eq!((stage.raw.length(&lane), stage.pending(Inlet::LANE).len()), (0, 0));
    Ok(())
}

/// Order, repeated names and bytes are kept.
pub async fn an_entry_of_another_client_is_delivered_as_it_is(stage: &Stage) -> Case {
    stage.raw.append(&stage.key(Inlet::STREAM), fields("x"));
    let delivered = stage.read(&stage.me, Inlet::STREAM, 1).await?;
    assert_eq!(delivered.first().map(|one| one.entry.fields().to_vec()), Some(fields("x")));
    Ok(())
}

/// Entries of one append are stored like entries appended one by one.
pub async fn a_thousand_entries_of_one_append_keep_their_order(stage: &Stage) -> Case {
    let ids = stage.append(1_500).await?;
    assert!(ids.len() == 1_500 && ids.is_sorted());
    let delivered = stage.read(&stage.me, Inlet::STREAM, 2_000).await?;
    let names = delivered.iter().map(|one| one.entry.text("name").unwrap_or_default().to_owned());
    assert!(names.eq((0..1_500).map(|number: i32| number.to_string())));
    Ok(())
}

/// A maximum length at appending takes effect at once.
pub async fn a_cap_at_appending_cuts_the_oldest(stage: &Stage) -> Case {
    let cap = Retention::MaxLenExact(std::num::NonZeroU64::new(3).ok_or("not zero")?);
    let entries = (0..10).map(|number: i32| fields(&number.to_string())).collect();
    append(stage.store.as_ref(), &stage.queue.stream, cap, entries).await;
    let left = stage.read(&stage.me, Inlet::STREAM, 10).await?;
    let names = left.iter().map(|one| one.entry.text("name")).collect::<Vec<_>>();
    assert_eq!(names, [Some("7"), Some("8"), Some("9")]);
    Ok(())
}

/// It takes no entries while it waits, and notices one that arrives.
pub async fn a_reader_that_waits_here_waits_without_a_read(stage: &Stage) -> Case {
    let setup = ReaderSetup { waits_here: true, ..ReaderSetup::waiting(Duration::from_secs(2)) };
    let mut reader = stage.store.reader(&stage.queue, &stage.me, setup).await?;
    let (inlet, count) = (Inlet::STREAM, 5);
    let read = || ReadRequest { acks: &[], inlet, count, block: None };
    // It may check once more than necessary, until the server reports changes.
    let drained = async |reader: &mut Box<dyn StreamReader>| {
        while reader.ready(Duration::from_millis(20)).await? {
            assert!(reader.read(read()).await?.deliveries?.is_empty());
        }
        Ok::<_, StoreError>(())
    };
    drained(&mut reader).await?;
    let (ready, appended) = tokio::join!(reader.ready(Duration::from_secs(20)), stage.append(1));
    assert!(ready?);
    assert!(stage.pending(Inlet::STREAM).is_empty(), "nothing was delivered by waiting");
    let delivered = reader.read(read()).await?.deliveries?;
    assert_eq!(delivered.iter().map(|one| one.entry.id()).collect::<Vec<_>>(), appended?);
    // Another loop ends the wait.
    drained(&mut reader).await?;
    let waker = reader.waker();
    let wake = async {
        tokio::task::yield_now().await;
        stage.store.wake(waker).await
    };
    let (ready, woken) = tokio::join!(reader.ready(Duration::from_secs(20)), wake);
    woken?;
    assert!(!ready?);
    Ok(())
}

/// The larger number counts, whichever process asks for it.
pub async fn partitions_are_added_and_never_taken_away(stage: &Stage) -> Case {
    let (store, stream) = (&stage.store, &stage.queue.stream);
    for (wanted, present) in [(1, 1), (0, 1), (12, 12), (12, 12), (6, 12), (0, 12), (24, 24)] {
        assert_eq!(store.partitions(stream, wanted).await?, present, "{wanted}");
    }
    assert_eq!(store.partitions(&StreamName::new("others")?, 0).await?, 1);
    store.forget_partitions(stream).await?;
    assert_eq!(store.partitions(stream, 0).await?, 1);
    Ok(())
}
