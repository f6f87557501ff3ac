//! Trends of groups as the server keeps them, read for all visitors together.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use streamjobs::stream::{Group, Trend, TrendRange};
use tokio::time::Instant;

use crate::fault::Fault;

/// Trends that were read recently. Processes note their figures every 15 seconds, so there is
/// nothing new in a trend that is read sooner.
#[derive(Debug, Default)]
pub(crate) struct TrendCache {
    kept: Mutex<HashMap<Of, (Instant, Trend)>>,
    /// Held while a trend is read. Other requests for the same trend find it afterwards.
    reading: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Of {
    what: What,
    range: TrendRange,
}

/// What a trend is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum What {
    /// A group, by stream and name.
    Group(String, String),
    /// This many groups in sum: the first ones that are shown. Right after the start, only some
    /// groups are known.
    Sum(usize),
}

impl TrendCache {
    /// The trend of one group.
    pub(crate) async fn of(
        &self,
        (stream, name): (&str, &str),
        group: &Group,
        range: TrendRange,
    ) -> Result<Trend, Fault> {
        let of = Of { what: What::Group(stream.to_owned(), name.to_owned()), range };
        if let Some(kept) = self.young(&of) {
            return Ok(kept);
        }
        let _reading = self.reading.lock().await;
        if let Some(kept) = self.young(&of) {
            return Ok(kept);
        }
        let trend = group.trend(range).await?;
        self.keep(of, &trend);
        Ok(trend)
    }

    /// The sum of the trends of these groups. Every call with the same number passes the same
    /// groups.
    pub(crate) async fn sum(
        &self,
        groups: Vec<Group>,
        range: TrendRange,
    ) -> Result<Option<Trend>, Fault> {
        let of = Of { what: What::Sum(groups.len()), range };
        if let Some(kept) = self.young(&of) {
            return Ok(Some(kept));
        }
        let _reading = self.reading.lock().await;
        if let Some(kept) = self.young(&of) {
            return Ok(Some(kept));
        }
        let requests = groups.into_iter().map(|group| async move { group.trend(range).await });
        let mut trends = stream::iter(requests).buffered(AT_ONCE);
        let mut sum = None::<Trend>;
        while let Some(trend) = trends.next().await {
            let trend = trend?;
            sum = Some(match sum {
                Some(sum) => sum.and(trend),
                None => trend,
            });
        }
        if let Some(sum) = &sum {
            self.keep(of, sum);
        }
        Ok(sum)
    }

    fn young(&self, of: &Of) -> Option<Trend> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (read, trend) = kept.get(of)?;
        (read.elapsed() < KEPT).then(|| trend.clone())
    }

    fn keep(&self, of: Of, trend: &Trend) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, (read, _)| read.elapsed() < KEPT);
        if kept.len() >= KEPT_MAX {
            let oldest = kept.iter().min_by_key(|(_, (read, _))| *read).map(|(of, _)| of.clone());
            oldest.and_then(|oldest| kept.remove(&oldest));
        }
        kept.insert(of, (Instant::now(), trend.clone()));
    }
}

/// How long a trend is shown before it is read again.
const KEPT: Duration = Duration::from_secs(15);
/// How many trends are kept. Each takes half a megabyte at most.
const KEPT_MAX: usize = 16;
/// How many groups are read at once.
const AT_ONCE: usize = 4;
