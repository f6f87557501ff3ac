//! The limit of a group over all processes that is in force: pure.

use crate::insight::view::{ConsumerInfo, GroupInfo, Liveness};
use crate::model::limit::{HoldRule, LimitOption, SetLimit};

impl ConsumerInfo {
    /// Of these consumers, the live one with a limit over all processes that started last: it has the newest code.
    #[must_use]
    pub fn latest_with_limit(consumers: &[Self]) -> Option<&Self> {
        let alive = consumers.iter().filter(|consumer| consumer.liveness == Liveness::Alive);
        alive.filter(|consumer| consumer.limits.is_some()).max_by_key(|consumer| consumer.started)
    }
}

impl GroupInfo {
    /// Whether one of these consumers is alive and follows the limit that an operator has set. Others have another
    /// option in their code, or run an older version.
    #[must_use]
    pub fn limit_is_followed(&self, consumers: &[ConsumerInfo]) -> bool {
        let mut alive = consumers.iter().filter(|consumer| consumer.liveness == Liveness::Alive);
        let option = self.limit.as_ref().map(|set| set.option);
        option.is_some() && alive.any(|consumer| consumer.limit.map(|code| code.option) == option)
    }
}

/// What two parts of a stream have set, and in how many partitions: the number that was set last, and where it is set.
pub(super) fn of_both(
    (one, in_one): (Option<SetLimit>, u16),
    (other, in_other): (Option<SetLimit>, u16),
) -> (Option<SetLimit>, u16) {
    let number = |set: &SetLimit| (set.option, set.limit);
    match (one, other) {
        (Some(one), Some(other)) if number(&one) == number(&other) => {
            (Some(if one.at >= other.at { one } else { other }), in_one + in_other)
        }
        (Some(one), Some(other)) if one.at >= other.at => (Some(one), in_one),
        (Some(one), None) => (Some(one), in_one),
        (_, other) => (other, in_other),
    }
}

/// The limit that a consumer follows, in words, and how many jobs of the group it admits if it counts them all
/// together. `None` without a limit.
pub(super) fn in_force(
    group: &GroupInfo,
    consumer: &ConsumerInfo,
) -> Option<(String, Option<u64>)> {
    let limits = consumer.limits.clone()?;
    let option = consumer.limit.map(|code| code.option);
    let set = group.limit.as_ref().filter(|set| Some(set.option) == option);
    Some(match set {
        None => {
            let total = HoldRule::of_group(&limits);
            (limits, total)
        }
        Some(set) => {
            let total = (set.option == LimitOption::Total).then(|| u64::from(set.limit.get()));
            (set.to_string(), total)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::limit::CodeLimit;

    fn with(limits: &str, code: &str) -> ConsumerInfo {
        let (limits, limit) = (Some(limits.to_owned()), CodeLimit::read(code));
        ConsumerInfo { limits, limit, ..ConsumerInfo::named("a", Liveness::Alive) }
    }

    #[test]
    fn the_number_that_was_set_last_is_shown_with_the_partitions_that_have_it() {
        let set = |limit, at| {
            SetLimit::read(&format!("key {limit} {at} {}", r#"{"from":4,"by":"al","why":"x"}"#))
        };
        let whole = |parts: &[Option<SetLimit>]| {
            let one = |set: &Option<SetLimit>| (set.clone(), u16::from(set.is_some()));
            let (set, partitions) = parts.iter().map(one).reduce(of_both).unwrap();
            (set.map_or(0, |set| set.limit.get()), partitions)
        };
        for (parts, shown) in [
            ([set(8, 20), set(2, 10), set(8, 21), set(2, 10)], (8, 2)),
            ([set(2, 10), set(2, 10), set(2, 10), set(8, 20)], (8, 1)),
            ([None, set(8, 20), None, set(8, 20)], (8, 2)),
            ([None, None, None, None], (0, 0)),
        ] {
            assert_eq!(whole(&parts), shown, "{parts:?}");
        }
    }

    #[test]
    fn the_code_of_the_process_that_started_last_counts() {
        let started = |at, consumer| ConsumerInfo { started: Some(at), ..consumer };
        let total = || started(1, with("4 at once for each group", "group 4"));
        let order = || started(2, with("1 at once for each key", ""));
        let dead = ConsumerInfo { liveness: Liveness::Silent, ..started(3, total()) };
        let none = ConsumerInfo { limits: None, limit: None, ..started(4, total()) };
        let all = [total(), order(), dead, none];
        assert_eq!(ConsumerInfo::latest_with_limit(&all), Some(&all[1]));
        assert_eq!(ConsumerInfo::latest_with_limit(&all[2..]), None);
        let set = SetLimit::read(&format!("group 8 17 {}", r#"{"from":4,"by":"al","why":"x"}"#));
        let group = GroupInfo { limit: set, ..GroupInfo::idle() };
        assert!(group.limit_is_followed(&all) && !group.limit_is_followed(&all[1..]));
        assert!(!GroupInfo::idle().limit_is_followed(&[order()]));
    }

    #[test]
    fn a_limit_that_was_set_is_in_force_where_the_code_has_its_option() {
        let note = r#"{"from":4,"by":"alice","why":"slow"}"#;
        let set = SetLimit::read(&format!("group 8 17 {note}"));
        let group = GroupInfo { limit: set, ..GroupInfo::idle() };
        let (total, key) = ("4 at once for each group", "1 at once for each key");
        let changed = "concurrency_total is changed from 4 to 8 by alice: slow";
        let followed = in_force(&group, &with(total, "group 4"));
        assert_eq!(followed, Some((changed.to_owned(), Some(8))));
        let older = in_force(&group, &with(total, ""));
        assert_eq!(older, Some((total.to_owned(), Some(4))), "an older version");
        let other = in_force(&group, &with(key, "key 1"));
        assert_eq!(other, Some((key.to_owned(), None)), "another option");
        let reset = in_force(&GroupInfo::idle(), &with(total, "group 4"));
        assert_eq!(reset, Some((total.to_owned(), Some(4))));
    }
}
