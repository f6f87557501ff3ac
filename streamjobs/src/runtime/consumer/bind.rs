//! What a queue's handlers become: settings that they share, and limits of each.

use std::collections::HashMap;

use crate::handler::HandlerDef;
use crate::handler::middleware::{Chain, Layer};
use crate::insight::metrics::Durations;
use crate::model::config::{GroupOptions, HandlerOptions, JobLimits};
use crate::runtime::attempt::{BoundHandler, Handlers};

/// The attributes of a queue's handlers, merged. Settings of the queue must agree.
pub(super) fn merged(handlers: &[HandlerDef], faults: &mut Vec<String>) -> HandlerOptions {
    let mut merged = HandlerOptions::default();
    let mut said_by = HashMap::<&'static str, &HandlerDef>::new();
    for handler in handlers {
        let options = handler.options;
        macro_rules! agree {
            ($field:ident) => {
                match (merged.$field, options.$field) {
                    (Some(one), Some(other)) if one != other => faults.push(format!(
                        "{} and {} belong to group {} on stream {}, and differ in {}",
                        said_by
                            .get(stringify!($field))
                            .map_or_else(String::new, |first| first.location()),
                        handler.location(),
                        handler.group,
                        handler.stream,
                        stringify!($field),
                    )),
                    (None, Some(_)) => {
                        merged.$field = options.$field;
                        said_by.insert(stringify!($field), handler);
                    }
                    _ => {}
                }
            };
        }
        agree!(concurrency);
        agree!(lease);
        agree!(start);
        agree!(unhandled);
        agree!(unhandled_after);
        agree!(order);
        agree!(concurrency_per_key);
        agree!(concurrency_total);
        agree!(fair);
        agree!(rate);
        agree!(keep_done);
        agree!(keep_done_max);
        agree!(slots);
        agree!(weight);
        // The group's own count, for entries without a handler, is the largest of its handlers'.
        merged.max_deliveries = merged.max_deliveries.max(options.max_deliveries);
    }
    merged
}

/// Binds every event type to its handler. Two handlers for one type are a fault that names both. The layers are those
/// of the runtime and of the group. The options of the group override those of a handler, and the group's fallback
/// applies where neither sets a value.
pub(super) fn bind(
    handlers: &[HandlerDef],
    (options, fallback): (&GroupOptions, &HandlerOptions),
    layers: &[Layer],
    faults: &mut Vec<String>,
) -> Handlers {
    let mut bound = Handlers::default();
    for handler in handlers {
        let limits = JobLimits::new(&handler.options.or(fallback), options);
        faults.extend(limits.fault(&handler.location()));
        let layers = layers.iter().cloned().chain(handler.wrap.map(|wrap| wrap()));
        let chain = Chain::new(layers.collect(), handler.run);
        let durations = Durations::noop();
        let this = BoundHandler { handler: *handler, chain, limits, durations };
        let mut twice = |what: &str, other: &BoundHandler| {
            faults.push(format!(
                "{} and {} both take {what} of stream {} for group {}",
                other.handler.location(),
                handler.location(),
                handler.stream,
                handler.group
            ));
        };
        match handler.types {
            None => match &bound.any {
                Some(other) => twice("every entry", other),
                None => bound.any = Some(this),
            },
            Some(types) => {
                for event_type in types {
                    match bound.by_type.get(event_type) {
                        Some(other) => twice(&format!("event type {event_type}"), other),
                        None => {
                            bound.by_type.insert(event_type, this.clone());
                        }
                    }
                }
            }
        }
    }
    bound
}
