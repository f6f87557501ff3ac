//! Findings about the schedules of a stream.

use std::time::Duration;

use super::finding::{Check, Finding};
use crate::model::name::StreamName;
use crate::store::ScheduleKind;
use crate::store::schedules::{DECLARED_FOR, ScheduleFacts, ScheduleFactsPage};

/// Schedules that do not fire: no process declares them, or they cannot be read.
pub(super) fn findings(stream: &StreamName, page: &ScheduleFactsPage) -> Vec<Finding> {
    let is_undeclared = |facts: &&ScheduleFacts| {
        let is_code = facts.spec.as_ref().is_some_and(|spec| spec.kind == ScheduleKind::Code);
        let declared = facts.record.declared.unwrap_or(facts.record.since);
        is_code && Duration::from_millis(page.now.0.saturating_sub(declared)) >= DECLARED_FOR
    };
    let undeclared = named(page.schedules.iter().filter(is_undeclared)).map(|names| {
        Finding::info(
            Check::Schedules,
            format!("no living process declares {names} of stream {stream}"),
            "it does not fire; it is forgotten 30 days after its last declaration",
            Some("start a process that declares it, or remove it".to_owned()),
        )
    });
    let is_unreadable = |facts: &&ScheduleFacts| facts.spec.is_none();
    let unreadable = named(page.schedules.iter().filter(is_unreadable)).map(|names| {
        Finding::warning(
            Check::Schedules,
            format!("the definition of {names} of stream {stream} cannot be read"),
            "it does not fire: another client or a newer version has written it",
            "remove it and store it again",
        )
    });
    undeclared.into_iter().chain(unreadable).collect()
}

/// The names of up to five schedules; `None` without any.
fn named<'f>(schedules: impl Iterator<Item = &'f ScheduleFacts>) -> Option<String> {
    let names = schedules.map(|facts| facts.name.escape_debug().to_string()).collect::<Vec<_>>();
    let shown = names.iter().take(SHOWN_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => None,
        1 => Some(format!("schedule {shown}")),
        count if count > SHOWN_MAX => {
            Some(format!("schedules {shown} and {} more", count - SHOWN_MAX))
        }
        _ => Some(format!("schedules {shown}")),
    }
}

const SHOWN_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ServerTime;
    use crate::store::schedules::{ScheduleRecord, StoredSpec};

    fn facts(name: String, kind: Option<ScheduleKind>, declared: u64) -> ScheduleFacts {
        let spec = kind.map(|kind| StoredSpec {
            digest: "d".into(),
            kind,
            about: String::new(),
            fields: Vec::new(),
            bytes: 0,
        });
        let record = ScheduleRecord { declared: Some(declared), ..ScheduleRecord::default() };
        ScheduleFacts { name, next: None, spec, record }
    }

    fn texts(schedules: Vec<ScheduleFacts>) -> Vec<String> {
        let now = ServerTime(10_000_000);
        let page = ScheduleFactsPage { now, version: 1, schedules, has_more: false };
        let stream = StreamName::new("orders").unwrap();
        findings(&stream, &page).iter().map(|finding| finding.what.clone()).collect()
    }

    #[test]
    fn schedules_that_do_not_fire_are_named() {
        let code = Some(ScheduleKind::Code);
        let fires = facts("fires".into(), code, 9_900_000);
        let stored = facts("stored".into(), Some(ScheduleKind::Stored), 0);
        assert!(texts(vec![fires.clone(), stored]).is_empty());
        let gone = facts("gone".into(), code, 9_400_000);
        let bad = facts("bad\n".into(), None, 0);
        assert_eq!(
            texts(vec![fires, gone, bad]),
            [
                "no living process declares schedule gone of stream orders",
                "the definition of schedule bad\\n of stream orders cannot be read"
            ]
        );
        let many = (0..7).map(|number| facts(format!("s{number}"), code, 0)).collect();
        let expected =
            "no living process declares schedules s0, s1, s2, s3, s4 and 2 more of stream";
        assert!(texts(many)[0].starts_with(expected));
    }
}
