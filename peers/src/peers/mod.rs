//! Who is compared: one module each, and what is the same for all.

use std::error::Error;
use std::time::Duration;

use crate::job::Order;

mod apalis;
mod by_hand;
mod ours;
mod sea_streamer;
mod sidekiq;

/// Why a measurement has no figure.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// How long some work took.
pub(crate) type Took = Result<Duration, Failure>;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// All jobs from one program.
    Publish,
    /// What waits, with so many jobs at once.
    Drain(usize),
}

/// What the output says of a peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About {
    pub(crate) name: &'static str,
    /// The package whose version is told.
    pub(crate) package: &'static str,
    /// What it was told for speed.
    pub(crate) settings: &'static str,
    /// What it promises with these settings.
    pub(crate) guarantee: &'static str,
}

/// Who does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Ours,
    ByHand,
    SeaStreamer,
    Apalis,
    /// The same, which never lets more jobs wait than it can take.
    ApalisPortions,
    Sidekiq,
}

impl Peer {
    pub(crate) const ALL: [Self; 6] = [
        Self::Ours,
        Self::ByHand,
        Self::SeaStreamer,
        Self::Apalis,
        Self::ApalisPortions,
        Self::Sidekiq,
    ];

    pub(crate) fn about(self) -> About {
        match self {
            Self::Ours => ours::ABOUT,
            Self::ByHand => by_hand::ABOUT,
            Self::SeaStreamer => sea_streamer::ABOUT,
            Self::Apalis => apalis::ABOUT,
            Self::ApalisPortions => apalis::ABOUT_PORTIONS,
            Self::Sidekiq => sidekiq::ABOUT,
        }
    }

    /// Whether there is something of its own to measure.
    pub(crate) fn takes_part(self, work: Work) -> bool {
        self != Self::ApalisPortions || work != Work::Publish
    }

    /// Does the work on the server at `url`, which is empty, and says how long it took: publishing
    /// from the first call until the last is confirmed, draining from the start of the worker until
    /// the last job has run.
    pub(crate) async fn run(self, work: Work, url: String, orders: Vec<Order>) -> Took {
        match (self, work) {
            (Self::Ours, Work::Publish) => ours::publish(&url, &orders).await,
            (Self::Ours, Work::Drain(slots)) => ours::drain(&url, &orders, slots).await,
            (Self::ByHand, Work::Publish) => by_hand::publish(&url, &orders).await,
            (Self::ByHand, Work::Drain(slots)) => by_hand::drain(&url, &orders, slots).await,
            (Self::SeaStreamer, Work::Publish) => sea_streamer::publish(&url, &orders).await,
            (Self::SeaStreamer, Work::Drain(slots)) => {
                sea_streamer::drain(&url, &orders, slots).await
            }
            (Self::Apalis | Self::ApalisPortions, Work::Publish) => {
                apalis::publish(&url, &orders).await
            }
            (Self::Apalis, Work::Drain(slots)) => apalis::drain(&url, &orders, slots).await,
            (Self::ApalisPortions, Work::Drain(slots)) => {
                apalis::drain_portions(&url, &orders, slots).await
            }
            (Self::Sidekiq, Work::Publish) => sidekiq::publish(&url, orders).await,
            (Self::Sidekiq, Work::Drain(slots)) => sidekiq::drain(&url, orders, slots).await,
        }
    }
}
