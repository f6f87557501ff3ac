//! Runs the example and holds what it prints against OpenTelemetry's conventions for messaging, version 1.42.

use std::process::Command;

#[test]
fn every_series_has_the_name_the_unit_and_the_attributes_of_the_conventions() {
    let output = Command::new(env!("CARGO_BIN_EXE_streamjobs-example-otel")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    let consumer = "messaging.consumer.group.name=billing messaging.destination.name=orders";
    let expected = [
        "messaging.client.consumed.messages [{message}] CONSUMER messaging.operation.name=receive SYSTEM",
        "messaging.client.operation.duration [s] CONSUMER messaging.operation.name=ack messaging.operation.type=settle SYSTEM BOUNDS",
        "messaging.client.operation.duration [s] CONSUMER messaging.operation.name=receive messaging.operation.type=receive SYSTEM BOUNDS",
        "messaging.client.operation.duration [s] CONSUMER messaging.operation.name=retry messaging.operation.type=settle SYSTEM BOUNDS",
        "messaging.client.operation.duration [s] messaging.destination.name=orders messaging.operation.name=send messaging.operation.type=send SYSTEM BOUNDS",
        "messaging.client.sent.messages [{message}] messaging.destination.name=orders messaging.operation.name=send SYSTEM",
        "messaging.process.duration [s] error.type=error CONSUMER messaging.operation.name=process SYSTEM BOUNDS",
        "messaging.process.duration [s] CONSUMER messaging.operation.name=process SYSTEM BOUNDS",
    ];
    let bounds = "<= 0.005 0.01 0.025 0.05 0.075 0.1 0.25 0.5 0.75 1 2.5 5 7.5 10";
    let expected = expected.map(|line| {
        let line = line.replace("CONSUMER", consumer).replace("BOUNDS", bounds);
        line.replace("SYSTEM", "messaging.system=redis")
    });
    // An acknowledgement may go with the next read instead of a request of its own.
    let ack = expected[1].clone();
    let others = printed.lines().filter(|line| *line != ack).collect::<Vec<_>>();
    let expected = expected.iter().filter(|line| **line != ack).collect::<Vec<_>>();
    assert_eq!(others, expected);
}
