//! The closed lists of values that labels have.

macro_rules! words {
    ($(#[$docs:meta])* $name:ident { $($(#[$case_docs:meta])* $case:ident = $word:literal,)* }) => {
        $(#[$docs])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name {
            $($(#[$case_docs])* $case,)*
        }

        impl $name {
            /// The values of the label, each at the place of its case.
            pub(super) const WORDS: &[&'static str] = &[$($word),*];

            /// The value of the label.
            #[allow(dead_code, reason = "few are asked for by themselves")]
            pub(super) const fn word(self) -> &'static str {
                match self {
                    $(Self::$case => $word,)*
                }
            }
        }
    };
}

words! {
    /// How a job ended in this process: counted once for each job that was in flight.
    Finish {
        /// The handler succeeded.
        Ok = "ok",
        /// A guard found that the job was done before.
        Duplicate = "duplicate",
        /// Acknowledged because the group has no handler for its type.
        Unhandled = "unhandled",
        /// Scheduled for a retry.
        Retry = "retry",
        /// Stored as a dead letter.
        Dead = "dead",
        /// Released by a shutdown.
        Cancelled = "cancelled",
        /// Another attempt owns it, or the group was lost.
        LostLease = "lost_lease",
        /// Left pending for a process that has a handler, with too many fields for a retry.
        Left = "left",
        /// The shutdown ran out of time before the server knew the verdict.
        Abandoned = "abandoned",
    }
}

words! {
    /// Why an attempt failed.
    Failure {
        Error = "error",
        Panic = "panic",
        Timeout = "timeout",
    }
}

words! {
    /// Why an entry was claimed.
    ClaimReason {
        /// Its consumer stopped renewing.
        Idle = "idle",
        /// Its consumer had released it.
        Released = "released",
        /// It was delivered to this consumer, and the answer was lost.
        LostReply = "lost_reply",
    }
}

words! {
    /// Where a duplicate was detected.
    DuplicateStage {
        /// The entry was in flight here.
        Delivery = "delivery",
        /// A guard found that the job was done before.
        Handle = "handle",
    }
}

words! {
    /// What became of an event that was sent.
    Sending {
        Ok = "ok",
        Rejected = "rejected",
        Unsent = "unsent",
        Unconfirmed = "unconfirmed",
    }
}
