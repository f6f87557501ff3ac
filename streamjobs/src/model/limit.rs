//! Limits on which jobs of a group run at once, over all processes.

use std::fmt;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// The jobs that a limit counts together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldScope {
    /// The jobs of one key.
    Key,
    /// All jobs of the group.
    Group,
    /// The jobs of one key. How many may run depends on how many keys have waiting jobs.
    Share,
}

impl HoldScope {
    /// The word for the scope in scripts and heartbeats.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Group => "group",
            Self::Share => "share",
        }
    }
}

/// How many jobs may run at once in all processes of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldRule {
    /// What is counted together.
    pub scope: HoldScope,
    /// How many of them may run at once; unused for shares.
    pub limit: NonZeroU32,
    /// Whether a job that waits for its retry keeps its place, so that the jobs behind it wait as well.
    pub blocks: bool,
    /// Whether the rule keeps the order of a key, so that no operator can change its number.
    pub is_order: bool,
}

impl HoldRule {
    /// The option whose number operators can change; `None` for order per key and for fair shares.
    pub(crate) fn changeable(self) -> Option<LimitOption> {
        match self.scope {
            HoldScope::Key if !self.is_order => Some(LimitOption::PerKey),
            HoldScope::Group => Some(LimitOption::Total),
            HoldScope::Key | HoldScope::Share => None,
        }
    }

    /// The same rule with the number that an operator has set, if one is set for this option.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn with(self, set: Option<&SetLimit>) -> Self {
        let set = set.filter(|set| Some(set.option) == self.changeable());
        Self { limit: set.map_or(self.limit, |set| set.limit), ..self }
    }

    /// How many jobs of the group may run at once, read from the limit in a process's heartbeat; `None` if that limit
    /// does not count all jobs of the group together.
    pub(crate) fn of_group(text: &str) -> Option<u64> {
        let (limit, of) = text.split_once(" at once for each ")?;
        limit.parse().ok().filter(|_| of == HoldScope::Group.as_str())
    }

    /// The limit as a process writes it in its heartbeat, for others to compare.
    #[must_use]
    pub fn text(self) -> String {
        if self.scope == HoldScope::Share {
            return "fair shares for each key".to_owned();
        }
        let blocks = if self.blocks { ", kept by retries" } else { "" };
        format!("{} at once for each {}{blocks}", self.limit, self.scope.as_str())
    }
}

/// A limit over all processes whose number operators can change.
///
/// Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitOption {
    /// `concurrency_per_key`: how many jobs of one key run at once.
    PerKey,
    /// `concurrency_total`: how many jobs of the group run at once.
    Total,
}

impl LimitOption {
    /// The name of the option in the code.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PerKey => "concurrency_per_key",
            Self::Total => "concurrency_total",
        }
    }

    /// The word for what it counts together, in scripts and heartbeats.
    pub(crate) fn scope(self) -> &'static str {
        match self {
            Self::PerKey => HoldScope::Key.as_str(),
            Self::Total => HoldScope::Group.as_str(),
        }
    }

    fn read(scope: &str) -> Option<Self> {
        [Self::PerKey, Self::Total].into_iter().find(|option| option.scope() == scope)
    }
}

impl fmt::Display for LimitOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A limit whose number operators can change, with its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CodeLimit {
    /// The option.
    pub option: LimitOption,
    /// How many jobs may run at once.
    pub limit: NonZeroU32,
}

impl CodeLimit {
    pub(crate) fn of(rule: HoldRule) -> Option<Self> {
        Some(Self { option: rule.changeable()?, limit: rule.limit })
    }

    /// The limit as heartbeats and promotions have it.
    pub(crate) fn stored(self) -> String {
        format!("{} {}", self.option.scope(), self.limit)
    }

    pub(crate) fn read(text: &str) -> Option<Self> {
        let (scope, limit) = text.split_once(' ')?;
        Some(Self { option: LimitOption::read(scope)?, limit: limit.parse().ok()? })
    }
}

impl fmt::Display for CodeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.option, self.limit)
    }
}

/// A limit that an operator has set in place of the number in the code.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetLimit {
    /// The option whose number it replaces. It changes nothing in processes whose code has another option.
    pub option: LimitOption,
    /// How many jobs may run at once.
    pub limit: NonZeroU32,
    /// The number in the code when it was set.
    pub from: NonZeroU32,
    /// Who set it.
    pub by: String,
    /// Why it was set.
    pub why: String,
    /// When it was set, by the server's clock in milliseconds since 1970.
    pub at: u64,
}

/// What an operator says of a change.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    from: NonZeroU32,
    by: String,
    why: String,
}

impl SetLimit {
    /// The option and its number.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn number(&self) -> CodeLimit {
        CodeLimit { option: self.option, limit: self.limit }
    }

    /// What is stored of it behind the option, the number and the time.
    pub(crate) fn note(&self) -> String {
        let note = Note { from: self.from, by: self.by.clone(), why: self.why.clone() };
        // Serializing numbers and strings does not fail.
        serde_json::to_string(&note).unwrap_or_default()
    }

    /// Reads a limit as it is stored, for tests of stores.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn stored(text: &str) -> Option<Self> {
        Self::read(text)
    }

    /// Reads a limit as it is stored. Any other text, which another client can have written, sets no limit.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, ' ');
        let mut next = || parts.next();
        let (option, limit) = (LimitOption::read(next()?)?, next()?.parse().ok()?);
        let (at, note) = (next()?.parse().ok()?, serde_json::from_str::<Note>(next()?).ok()?);
        Some(Self { option, limit, from: note.from, by: note.by, why: note.why, at })
    }
}

impl fmt::Display for SetLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { option, limit, from, by, why, .. } = self;
        write!(f, "{option} is changed from {from} to {limit} by {by}: {why}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(limit: u32) -> NonZeroU32 {
        NonZeroU32::new(limit).unwrap()
    }

    #[test]
    fn a_set_limit_is_read_as_stored_and_nothing_else_is() {
        let (by, why) = ("al\nice \"x\"".to_owned(), "slow {bank}\0".to_owned());
        let (limit, from) = (number(8), number(4));
        let set = SetLimit { option: LimitOption::PerKey, limit, from, by, why, at: 17 };
        assert_eq!(SetLimit::read(&format!("key 8 17 {}", set.note())), Some(set.clone()));
        let note = set.note();
        for bad in
            ["", "key", "key 8", "key 8 17", "share 8 17 {}", "key 0 17 {}", "key 4294967296 17 {}"]
        {
            assert_eq!(SetLimit::read(&bad.replace("{}", &note)), None, "{bad}");
        }
        assert_eq!(SetLimit::read("key 8 17 {}"), None, "without a note");
    }

    #[test]
    fn a_number_is_changed_where_no_order_depends_on_it() {
        let rule = |scope, is_order| HoldRule { scope, limit: number(1), blocks: false, is_order };
        let of = |option| SetLimit {
            option,
            limit: number(8),
            from: number(1),
            by: String::new(),
            why: String::new(),
            at: 0,
        };
        let in_force =
            |scope, is_order, option| rule(scope, is_order).with(Some(&of(option))).limit.get();
        assert_eq!(in_force(HoldScope::Key, false, LimitOption::PerKey), 8);
        assert_eq!(in_force(HoldScope::Group, false, LimitOption::Total), 8);
        assert_eq!(in_force(HoldScope::Key, true, LimitOption::PerKey), 1, "an order");
        assert_eq!(in_force(HoldScope::Key, false, LimitOption::Total), 1, "another option");
        let code = CodeLimit::of(rule(HoldScope::Key, false)).unwrap();
        assert_eq!(CodeLimit::read(&code.stored()), Some(code));
        assert_eq!(CodeLimit::of(rule(HoldScope::Share, false)), None);
        assert_eq!(CodeLimit::read("key"), None);
    }
}
