//! Which schedules this process declares, and which faults forbid the start.

use std::collections::{HashMap, HashSet};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::handler::HandlerDef;
use crate::model::error::StartError;
use crate::model::name::StreamName;
use crate::model::schedule::Schedule;
use crate::runtime::consumer::{PlannedQueue, RuntimeSpec};

/// The schedules of the builder and of the handlers, by the stream key in which each is.
///
/// # Errors
///
/// All faults: two schedules of one name on one stream, a stream without a handler, schedules that cannot be used.
pub(crate) fn schedules(
    spec: &RuntimeSpec,
    linked: &[HandlerDef],
    planned: &[PlannedQueue],
    bytes_max: usize,
) -> Result<HashMap<StreamName, Vec<Schedule>>, StartError> {
    let mut faults = Vec::new();
    let mut schedules = spec.schedules.clone();
    for handler in spec.wanted(linked) {
        schedules.extend(of_handler(spec, &handler, &mut faults));
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let served = planned.iter().map(PlannedQueue::whole).collect::<HashSet<_>>();
    let mut names = HashSet::new();
    let mut by_stream = HashMap::<StreamName, Vec<Schedule>>::new();
    for schedule in schedules {
        let (name, stream) = (schedule.name().clone(), schedule.target().clone());
        if let Err(error) = schedule.check(now, bytes_max) {
            faults.push(error.to_string());
        }
        if !served.contains(&stream) {
            faults.push(format!(
                "schedule {name} publishes to stream {stream}, for which this runtime has no handler"
            ));
        }
        if !names.insert((stream.clone(), name.clone())) {
            faults.push(format!("two schedules of stream {stream} have the name {name}"));
        }
        let event = schedule.stored().fields;
        let partition = spec.layouts.of_named(&stream, &event, name.as_str()).clone();
        by_stream.entry(partition).or_default().push(schedule);
    }
    match faults.is_empty() {
        true => Ok(by_stream),
        false => Err(StartError::Schedules(faults)),
    }
}

/// The schedule of a handler, on each stream that is read for it.
fn of_handler(spec: &RuntimeSpec, handler: &HandlerDef, faults: &mut Vec<String>) -> Vec<Schedule> {
    let Some(declared) = &handler.schedule else { return Vec::new() };
    let event_type = handler.types.and_then(<[_]>::first).copied();
    let Some(event_type) = event_type else {
        faults.push(format!("{} has a schedule and no event type", handler.location()));
        return Vec::new();
    };
    let mut schedules = Vec::new();
    for stream in spec.keys_of(handler.stream) {
        match declared.schedule(&stream, event_type) {
            Ok(schedule) => schedules.push(schedule),
            Err(error) => faults.push(format!("{}: {error}", handler.location())),
        }
    }
    schedules
}
