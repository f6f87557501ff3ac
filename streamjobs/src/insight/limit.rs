//! The limit of a group over all processes that is in force: pure.

use crate::insight::view::{ConsumerInfo, GroupInfo};
use crate::model::limit::{HoldRule, LimitOption};

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
    use crate::insight::view::Liveness;
    use crate::model::limit::{CodeLimit, SetLimit};

    fn with(limits: &str, code: &str) -> ConsumerInfo {
        let (limits, limit) = (Some(limits.to_owned()), CodeLimit::read(code));
        ConsumerInfo { limits, limit, ..ConsumerInfo::named("a", Liveness::Alive) }
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
