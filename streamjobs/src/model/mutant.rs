//! Bugs that a proof seeds, one at a time, to see that something notices.
//!
//! They are there only in builds with `--cfg streamjobs_mutants`, which chooses one by the environment
//! variable `STREAMJOBS_MUTANT`. `cargo mutants` seeds each and names what caught it.

macro_rules! mutants {
    ($($(#[$docs:meta])* $mutant:ident = $name:literal;)*) => {
        /// A bug that can be seeded. Closed on purpose.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutant {
            $($(#[$docs])* $mutant,)*
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$mutant),*];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$mutant => $name,)*
                }
            }
        }
    };
}

mutants! {
    /// A job is acknowledged before its handler runs.
    AckBeforeRun = "ack-before-run";
    /// A job that failed is acknowledged.
    AckOnError = "ack-on-error";
    /// A renewal takes an entry back from whoever has it now.
    UnfencedRenew = "unfenced-renew";
    /// A renewal counts as a delivery.
    CountedRenew = "counted-renew";
    /// Who lost its job to another sets it aside or buries it all the same.
    UnfencedSettle = "unfenced-settle";
    /// Every page of a sweep is the first.
    CursorStays = "cursor-stays";
    /// A stop drops a read whose answer is on its way.
    ReadDropped = "read-dropped";
    /// A group that was lost is made again at the end of its stream.
    GroupAtEnd = "group-at-end";
    /// A consumer is removed with what is pending for it.
    RetireUnchecked = "retire-unchecked";
    /// A job is acknowledged before its dead letter is stored.
    DeadAckedFirst = "dead-acked-first";
    /// A sweep does not ask where the server's clock is.
    SweepUntimed = "sweep-untimed";
    /// The guard's note is committed before the handler runs.
    GuardApart = "guard-apart";
    /// The guard's note is about the entry, not the event.
    GuardByEntry = "guard-by-entry";
    /// The guard's commit waits for the disk only if the session says so.
    GuardUnforced = "guard-unforced";
    /// An entry that cannot be decoded is passed over.
    UndecodableSkipped = "undecodable-skipped";
    /// Deliveries count as failed attempts.
    AttemptsByDeliveries = "attempts-by-deliveries";
    /// Every publishing trims the stream.
    TrimOnAdd = "trim-on-add";
    /// A sweep says nothing of an entry whose payload is gone.
    TrimmedIgnored = "trimmed-ignored";
    /// Leases are renewed on the executor of the handlers.
    RenewalsStarve = "renewals-starve";
}

impl Mutant {
    /// Whether this build has this bug now. Always false but in a proof.
    #[inline]
    #[must_use]
    pub fn is_seeded(self) -> bool {
        cfg!(streamjobs_mutants) && chosen() == Some(self)
    }
}

#[cfg(streamjobs_mutants)]
fn chosen() -> Option<Mutant> {
    static CHOSEN: std::sync::OnceLock<Option<Mutant>> = std::sync::OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let name = std::env::var("STREAMJOBS_MUTANT").ok()?;
        Mutant::ALL.iter().copied().find(|mutant| mutant.name() == name)
    })
}

#[cfg(not(streamjobs_mutants))]
const fn chosen() -> Option<Mutant> {
    None
}
