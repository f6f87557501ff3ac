//! Handlers of a second crate, in a program that names it: naming it is enough.

use streamjobs::__private::linked;
use streamjobs_test_handlers as _;

#[test]
fn handlers_of_a_named_crate_are_found_without_listing_them() {
    let found = linked()
        .iter()
        .map(|handler| (handler.module, handler.name, handler.group))
        .collect::<Vec<_>>();
    let expected = [
        ("streamjobs_test_handlers", "track", "tracking"),
        ("streamjobs_test_handlers::audit", "note", "audit"),
        ("streamjobs_test_handlers::audit", "sweep", "audit"),
    ];
    assert_eq!(found, expected, "in the order of their places in the source");
}

#[test]
fn a_handler_is_found_with_its_schedule() {
    let scheduled = linked().into_iter().filter_map(|handler| {
        let declared = handler.schedule?;
        Some((handler.stream, declared.name, handler.types, declared.jitter.as_secs()))
    });
    let expected = ("ticks:audit", "sweep", Some(&["tick.sweep"][..]), 60);
    assert_eq!(scheduled.collect::<Vec<_>>(), [expected]);
}
