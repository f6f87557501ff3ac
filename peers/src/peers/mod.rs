//! The compared libraries: one module each, and what they have in common.

use std::error::Error;
use std::time::Duration;

use crate::job::Order;

mod apalis;
mod by_hand;
mod ours;
mod sea_streamer;
mod sidekiq;

/// Why a measurement failed.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// How long the work took.
pub(crate) type Took = Result<Duration, Failure>;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Publish all jobs from one program.
    Publish,
    /// Run all waiting jobs, with this many at once.
    Drain(usize),
}

/// What the output says about a peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About {
    pub(crate) name: &'static str,
    /// The package whose version is printed.
    pub(crate) package: &'static str,
    /// Settings that differ from the defaults, for speed.
    pub(crate) settings: &'static str,
    /// What it guarantees with these settings.
    pub(crate) guarantee: &'static str,
}

/// A compared library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Ours,
    ByHand,
    SeaStreamer,
    Apalis,
    /// The same, with at most as many waiting jobs as it can fetch from.
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

    /// Whether this peer measures the scenario differently from the others.
    pub(crate) fn takes_part(self, work: Work) -> bool {
        self != Self::ApalisPortions || work != Work::Publish
    }

    /// Does the work on the empty server at `url` and returns how long it took: publishing from the
    /// first call until the last confirmation, draining from the start of the worker until the last
    /// job has run.
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
