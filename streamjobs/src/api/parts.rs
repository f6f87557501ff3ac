//! The partitions that a handle shows, and requests to all of them.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::model::name::StreamName;
use crate::publish::layouts::Layouts;

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Its stream.
    pub(super) stream: StreamName,
    /// Its number; `None` if it is a whole stream.
    pub(super) number: Option<u16>,
}

/// The partitions of one handle, in order: all of a stream, or one. There is at least one.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    name: StreamName,
    parts: Arc<[Part]>,
    /// The stream that they belong to, which is also the name of its first partition.
    whole: StreamName,
    /// How many partitions that stream has, as the client was told.
    told: u16,
}

impl Parts {
    /// The partitions of a stream, as the client was told.
    pub(super) fn of(layouts: &Layouts, name: StreamName) -> Self {
        let whole = layouts.whole(&name).clone();
        let told = layouts.count(&whole);
        let parts: Arc<[Part]> = if layouts.is_spread(&name) {
            let parts = layouts.names(&name).into_iter().zip(0..);
            parts.map(|(stream, number)| Part { stream, number: Some(number) }).collect()
        } else {
            Arc::new([Part { stream: name.clone(), number: layouts.number(&name) }])
        };
        Self { name, parts, whole, told }
    }

    /// One of these partitions alone.
    pub(super) fn only(&self, part: &Part) -> Self {
        let (name, parts) = (part.stream.clone(), Arc::new([part.clone()]));
        Self { name, parts, ..self.clone() }
    }

    /// The name of the stream, or of the partition.
    pub(super) fn name(&self) -> &StreamName {
        &self.name
    }

    /// The stream that they belong to, which is also the name of its first partition.
    pub(super) fn whole(&self) -> &StreamName {
        &self.whole
    }

    /// How many partitions the whole stream has, as the client was told.
    pub(super) fn told(&self) -> u16 {
        self.told
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Part> {
        self.parts.iter()
    }

    pub(super) fn count(&self) -> u16 {
        u16::try_from(self.parts.len()).unwrap_or(u16::MAX)
    }

    /// The partitions in which something with this address can be: all of them, if the address has no number.
    ///
    /// # Errors
    ///
    /// The number, if this handle has no such partition.
    pub(super) fn with(&self, partition: Option<u16>) -> Result<&[Part], u16> {
        let Some(wanted) = partition else { return Ok(&self.parts) };
        let place = self.iter().position(|part| part.number.unwrap_or(0) == wanted);
        place.and_then(|place| self.parts.get(place..=place)).ok_or(wanted)
    }
}

/// Where something was found, if its address has no partition's number.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<T> {
    Nowhere,
    In(Part, T),
    /// The numbers of the partitions.
    Several(Vec<u16>),
}

impl<T> Found<T> {
    /// From what each of these partitions has.
    pub(super) fn of(parts: &[Part], present: Vec<Option<T>>) -> Self {
        let present = parts.iter().zip(present);
        let mut present = present.filter_map(|(part, found)| Some((part, found?)));
        let Some((part, found)) = present.next() else { return Self::Nowhere };
        let others = present.filter_map(|(part, _)| part.number).collect::<Vec<_>>();
        match others.is_empty() {
            true => Self::In(part.clone(), found),
            false => Self::Several(part.number.into_iter().chain(others).collect()),
        }
    }
}

/// Changes partitions, some of them at a time, and returns all their answers in order: an error of one partition does
/// not stop the others.
pub(super) async fn together<F: Future>(requests: Vec<F>) -> Vec<F::Output> {
    stream::iter(requests).buffered(REQUESTS_MAX).collect().await
}

/// Reads partitions, some of them at a time. The first error ends the call, because without one partition the whole
/// is not known, and each partition of a dead node would take as long as the first.
pub(super) async fn read_all<T, E, F>(requests: Vec<F>) -> Result<Vec<T>, E>
where
    F: Future<Output = Result<T, E>>,
{
    stream::iter(requests).buffered(REQUESTS_MAX).try_collect().await
}

/// Looks for something in partitions, some of them at a time, and returns the first hit in their order. An error of
/// one partition is returned only if no other partition has a hit.
pub(super) async fn find<T, E, F>(requests: Vec<F>) -> Result<Option<T>, E>
where
    F: Future<Output = Result<Option<T>, E>>,
{
    let mut answers = stream::iter(requests).buffered(REQUESTS_MAX);
    let mut failed = None;
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(Some(found)) => return Ok(Some(found)),
            Ok(None) => {}
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(None), Err)
}

/// Requests that are sent at once: enough for the round trips of many partitions to overlap, and
/// few enough that they do not delay the process' other requests.
const REQUESTS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(count: u16) -> Parts {
        let layouts = Layouts::new(vec![("orders".to_owned(), count)]).unwrap();
        Parts::of(&layouts, StreamName::new("orders").unwrap())
    }

    #[test]
    fn a_number_names_one_partition_and_none_means_all() {
        let three = parts(3);
        assert_eq!(three.with(None).unwrap().len(), 3);
        assert_eq!(three.with(Some(2)).unwrap(), [three.iter().nth(2).unwrap().clone()]);
        assert_eq!(three.with(Some(3)), Err(3));
        let one = parts(1);
        assert_eq!((one.count(), one.iter().next().unwrap().number), (1, None));
        assert!(one.with(Some(0)).is_ok() && one.with(Some(1)).is_err());
        let second = three.only(three.iter().nth(1).unwrap());
        assert!(second.with(Some(1)).is_ok() && second.with(Some(0)).is_err());
        assert_eq!((second.count(), second.told(), second.whole()), (1, 3, three.name()));
    }

    #[test]
    fn a_partition_that_is_named_itself_keeps_its_number() {
        let layouts = Layouts::new(vec![("orders".to_owned(), 3)]).unwrap();
        let names = layouts.names(&StreamName::new("orders").unwrap());
        let third = Parts::of(&layouts, names[2].clone());
        assert_eq!((third.count(), third.iter().next().unwrap().number), (1, Some(2)));
        assert_eq!((third.told(), third.whole()), (3, &names[0]));
    }

    #[test]
    fn what_is_in_several_partitions_is_said_with_all_of_them() {
        let three = parts(3);
        let found = |present: [Option<u8>; 3]| Found::of(three.with(None).unwrap(), present.into());
        assert_eq!(found([None; 3]), Found::Nowhere);
        let second = three.iter().nth(1).unwrap().clone();
        assert_eq!(found([None, Some(7), None]), Found::In(second, 7));
        assert_eq!(found([Some(1), None, Some(2)]), Found::Several(vec![0, 2]));
    }
}
