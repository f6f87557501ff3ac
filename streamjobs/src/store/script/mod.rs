//! The scripts: steps on the server that nothing can come between.
//!
//! Each file in `script/` states its contract at its top: the keys, the state before and after, and
//! who may race with it. The texts are constant; values reach them only as keys and arguments. All
//! keys of a call share one cluster slot. They carry no `#!lua` header, because a server that is
//! out of memory refuses those as a whole, while acknowledging has to go on.

use std::borrow::Cow;
use std::sync::OnceLock;

use crate::model::mutant::Mutant;

/// A script, known to servers by its digest.
#[derive(Debug)]
pub(crate) struct Script {
    /// Its file, for messages.
    pub(crate) name: &'static str,
    /// Its text, with the shared functions in front.
    pub(crate) text: &'static str,
    /// What the first server that loaded it calls it; every server calls it the same.
    pub(crate) digest: OnceLock<String>,
}

impl Script {
    /// What a server is given to run: the text, unless a proof has seeded a bug in it.
    pub(crate) fn source(&self) -> Cow<'static, str> {
        let seeded = |(mutant, name, _): &&Mutation| *name == self.name && mutant.is_seeded();
        match MUTATIONS.iter().find(seeded) {
            Some((_, _, [from, to])) => Cow::Owned(self.text.replace(from, to)),
            None => Cow::Borrowed(self.text),
        }
    }
}

/// A bug, the script that it is in, and what it puts in place of what.
type Mutation = (Mutant, &'static str, [&'static str; 2]);

const MUTATIONS: [Mutation; 8] = [
    (Mutant::UnfencedRenew, "renew", UNFENCED_RENEWAL),
    (Mutant::UnfencedSettle, "store_dead_letter", UNFENCED),
    (Mutant::UnfencedSettle, "schedule_retry", UNFENCED),
    (
        Mutant::CountedRenew,
        "renew",
        [
            "claims[#claims + 1] = 'JUSTID'",
            "redis.call('XCLAIM', key, group, me, 0, unpack(claims)) claims[#claims + 1] = 'JUSTID'",
        ],
    ),
    (Mutant::GroupAtEnd, "prepare", ["precedes(last, floor) and '0-0' or floor", "last"]),
    (
        Mutant::RetireUnchecked,
        "retire",
        ["consumer)[1] then return 0 end", "consumer)[1] then end"],
    ),
    (Mutant::RetireUnchecked, "retire_dead", ["pending == 0 and", "true and"]),
    (Mutant::TrimmedIgnored, "claim_idle", ["  store_trimmed(", "  tostring("]),
];

const UNFENCED_RENEWAL: [&str; 2] = [
    "counts[id] == tonumber(count) and 1 or held(key, group, me, id, count)",
    "math.abs(held(key, group, me, id, count) * 2 - 1) == 1 and 1 or -1",
];

const UNFENCED: [&str; 2] = [
    "local state = held(key, group, me, id, count)",
    "local state = math.abs(held(key, group, me, id, count) * 2 - 1) == 1 and 1 or -1",
];

macro_rules! scripts {
    ($($(#[$docs:meta])* $script:ident = $name:literal;)*) => {
        $(
            $(#[$docs])*
            pub(crate) static $script: Script = Script {
                name: $name,
                text: concat!(
                    include_str!("common.lua"),
                    include_str!(concat!($name, ".lua")),
                ),
                digest: OnceLock::new(),
            };
        )*

        /// All of them: a server that lacks one lacks the others too, so they are loaded together.
        pub(crate) static ALL: &[&Script] = &[$(&$script),*];
    };
}

scripts! {
    /// Records that a consumer lives, and how far the group is done.
    HEARTBEAT = "heartbeat";
    /// Marks work as begun.
    BEGIN_MARK = "begin_mark";
    /// Stores a dead letter, then acknowledges.
    STORE_DEAD_LETTER = "store_dead_letter";
    /// Makes the group on the stream and on the lane unless it is there.
    PREPARE = "prepare";
    /// Counts entries after an id.
    COUNT_AFTER = "count_after";
    /// Removes a group.
    DESTROY_GROUP = "destroy_group";
    /// Marks work as done.
    FINISH_MARK = "finish_mark";
    /// Looks whether some entry has been idle for too long.
    HAS_IDLE = "has_idle";
    /// Looks at the consumers of a group.
    INSPECT_CONSUMERS = "inspect_consumers";
    /// Looks at a group.
    INSPECT_GROUP = "inspect_group";
    /// Looks at jobs that are set aside.
    INSPECT_RETRIES = "inspect_retries";
    /// Looks at a stream.
    INSPECT_STREAM = "inspect_stream";
    /// Lets a group go on after another entry.
    MOVE_GROUP = "move_group";
    /// Moves pending entries to another consumer.
    MOVE_PENDING = "move_pending";
    /// Finds the oldest entry that a group may still run.
    OLDEST_UNFINISHED = "oldest_unfinished";
    /// Moves due jobs from the retry set to the lane.
    PROMOTE = "promote";
    /// Puts a job into the lane that comes back from an archive.
    PUT_BACK = "put_back";
    /// Delivers entries again whose delivery never arrived.
    RECOVER = "recover";
    /// Puts a dead letter's job into the lane.
    REDRIVE = "redrive";
    /// Hands entries back, uncounted.
    RELEASE = "release";
    /// Renews what is held.
    RENEW = "renew";
    /// Removes a consumer that has nothing pending.
    RETIRE = "retire";
    /// Removes consumers that have been silent for too long.
    RETIRE_DEAD = "retire_dead";
    /// Tells which commands the caller may run.
    RIGHTS = "rights";
    /// Stores a failed job until its delay is over, then acknowledges.
    SCHEDULE_RETRY = "schedule_retry";
    /// Pauses a group or resumes it, in every process.
    SET_PAUSED = "set_paused";
    /// Removes dead letters that are stored elsewhere.
    SETTLE_LETTERS = "settle_letters";
    /// Claims entries that were idle for too long.
    CLAIM_IDLE = "claim_idle";
    /// Takes dead letters for an archive.
    TAKE_LETTERS = "take_letters";
    /// Shortens a stream.
    TRIM = "trim";
    /// Removes the mark of work that failed.
    UNDO_MARK = "undo_mark";
}
