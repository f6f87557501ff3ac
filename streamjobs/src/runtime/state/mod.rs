//! State that loops share, and the signals between them.

mod abandoned_attempts;
mod acks;
mod activity;
mod beat;
mod cancelled_jobs;
mod clock;
mod done_notes;
mod grant;
mod in_flight;
mod lock;
mod loop_health;
mod next_due;
mod pause_gate;
mod payload_budget;
mod reader_unblock;
mod refused_jobs;
mod schedule_use;
mod shared_slots;
mod signals;
mod slot_turns;
mod slots;
mod start_gate;
mod trend_counts;
mod wait;

pub(crate) use self::abandoned_attempts::AbandonedAttempts;
pub(crate) use self::acks::{Ack, Acks, OnConfirmed, entries_of};
pub(crate) use self::activity::{Activity, IDLE_BACKOFF, IdleTurns};
pub(crate) use self::beat::Beat;
pub(crate) use self::cancelled_jobs::CancelledJobs;
pub(crate) use self::clock::Clock;
pub(crate) use self::done_notes::DoneNotes;
pub(crate) use self::in_flight::{InFlight, Registered, Renewal};
pub(crate) use self::lock::lock;
pub(crate) use self::loop_health::LoopHealth;
pub(crate) use self::next_due::{COALESCE, NextDue};
pub(crate) use self::pause_gate::PauseGate;
pub(crate) use self::payload_budget::PayloadBudget;
pub(crate) use self::reader_unblock::ReaderUnblock;
pub(crate) use self::refused_jobs::RefusedJobs;
pub(crate) use self::schedule_use::{ScheduleUse, StreamUse};
pub(crate) use self::shared_slots::{SharedSlots, SlotShare};
pub(crate) use self::signals::{
    Assignment, DoneDuringClaim, GroupEpoch, HandledBy, LaneSignal, LostReplies, PlaceSignal,
    RaisedDemand, ReapSignal, RenewSignal, Settlement, SettlingOver, SlotDemand, StoppedConsumers,
    TransferLock, TrimBlocker,
};
pub(crate) use self::slots::{Slot, Slots};
pub(crate) use self::start_gate::{KnownBefore, StartGate, StartsFor, TakenStarts};
pub(crate) use self::trend_counts::TrendCounts;
pub(crate) use self::wait::{
    LoopBackoff, OncePerInterval, jittered, most_of, stopped_before, stopped_within,
};
