//! Where settings come from, on streams in memory under a paused clock.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::config::{GroupOptions, Start, Unhandled};
use streamjobs::dead_letter::Reason;
use streamjobs::middleware::Next;
use streamjobs::runtime::SettingOrigin::{BuiltIn, Group, Handler, Override, Runtime as OfRuntime};
use streamjobs::runtime::{Plan, PlannedSetting, SettingOrigin};
use streamjobs::testing::Streams;
use streamjobs::{Backoff, Entry, Event, Job, JobError, Runtime, handler, handlers};
use streamjobs_tests::eventually::eventually_async;

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct Placed {}

#[handler(group = "mail", concurrency = 4, timeout = "30s", max_attempts = 3, wrap = nothing)]
async fn placed(_: Placed) -> Result<(), JobError> {
    Err(JobError::retry("broken"))
}

#[handler(group = "mail", stream = "orders")]
async fn others(_: Entry) {}

#[handler(group = "audit", stream = "orders", backoff = "2s")]
async fn audited(_: Entry) -> Result<(), JobError> {
    Err(JobError::retry("broken"))
}

async fn nothing(_: Job, next: Next) -> Result<(), JobError> {
    next.run().await
}

fn count(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap()
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn shown(setting: Option<&PlannedSetting>) -> (&str, SettingOrigin) {
    let setting = setting.unwrap();
    (setting.value.as_str(), setting.origin)
}

fn of_group<'a>(plan: &'a Plan, group: &str, name: &str) -> (&'a str, SettingOrigin) {
    shown(plan.group("orders", group).unwrap().setting(name))
}

fn of_handler<'a>(
    plan: &'a Plan,
    (group, handler): (&str, &str),
    name: &str,
) -> (&'a str, SettingOrigin) {
    shown(plan.group("orders", group).unwrap().handler(handler).unwrap().setting(name))
}

#[tokio::test(start_paused = true)]
async fn a_setting_has_the_first_value_of_override_handler_group_runtime_and_what_is_built_in() {
    let client = Streams::new().client();
    let all = GroupOptions::new().concurrency(count(64)).max_attempts(count(9));
    let all = all.expires(seconds(50)).lease(seconds(20)).timeout(seconds(40));
    let mail = GroupOptions::new().concurrency(count(32)).expires(seconds(60)).lease(seconds(30));
    let over = GroupOptions::new().lease(seconds(5)).start(Start::End);
    let builder = Runtime::builder(&client).handlers(handlers![placed, others, audited]);
    let builder = builder.defaults(all).group_defaults("mail", mail).group("mail", over);
    let plan = builder.plan().unwrap();
    assert_eq!(of_group(&plan, "mail", "lease"), ("5s", Override));
    assert_eq!(of_group(&plan, "mail", "start"), ("end", Override));
    assert_eq!(of_group(&plan, "mail", "concurrency"), ("4", Handler));
    assert_eq!(of_group(&plan, "mail", "unhandled"), ("leave", BuiltIn));
    assert_eq!(of_group(&plan, "audit", "concurrency"), ("64", OfRuntime));
    assert_eq!(of_group(&plan, "audit", "lease"), ("20s", OfRuntime));
    let placed = ("mail", "placed");
    assert_eq!(of_handler(&plan, placed, "max_attempts"), ("3", Handler));
    assert_eq!(of_handler(&plan, placed, "timeout"), ("30s", Handler));
    assert_eq!(of_handler(&plan, placed, "expires"), ("60s", Group));
    assert_eq!(of_handler(&plan, placed, "backoff"), ("1s..600s", BuiltIn));
    let others = ("mail", "others");
    assert_eq!(of_handler(&plan, others, "max_attempts"), ("9", OfRuntime));
    assert_eq!(of_handler(&plan, others, "timeout"), ("40s", OfRuntime));
    let audited = ("audit", "audited");
    assert_eq!(of_handler(&plan, audited, "expires"), ("50s", OfRuntime));
    assert_eq!(of_handler(&plan, audited, "backoff"), ("2s", Handler));
    assert_eq!(of_handler(&plan, audited, "max_deliveries"), ("5", BuiltIn));
    let runtime = builder.start().await.unwrap();
    assert_eq!(runtime.plan(), &plan, "what was planned is what runs");
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_plan_is_shown_as_a_table() {
    let client = Streams::new().client();
    let builder = Runtime::builder(&client).handlers(handlers![placed]).around(nothing);
    let unhandled = GroupOptions::new().unhandled(Unhandled::Acknowledge);
    let builder = builder.group_defaults("mail", unhandled).read_keys("orders", ["a", "b"]);
    let plan = builder.plan().unwrap();
    let lines = plan.to_string();
    let lines = lines.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    let lines = lines.collect::<Vec<_>>();
    let expected = [
        "group mail on stream orders",
        "reads a, b",
        "concurrency 4 handler",
        "lease 10s built-in",
        "start beginning built-in",
        "unhandled acknowledge group",
        "unhandled_after 600s built-in",
    ];
    assert_eq!(lines[..7], expected);
    assert!(lines[7].starts_with("handler memory::settings::placed"), "{}", lines[7]);
    assert!(lines[7].ends_with("takes order.placed, middleware: 2"), "{}", lines[7]);
    let expected = [
        "max_attempts 3 handler",
        "max_deliveries 5 built-in",
        "timeout 30s handler",
        "expires none built-in",
        "backoff 1s..600s built-in",
    ];
    assert_eq!(lines[8..], expected);
}

#[tokio::test(start_paused = true)]
async fn defaults_hold_while_jobs_run() {
    let client = Streams::new().client();
    let builder = Runtime::builder(&client).handlers(handlers![placed, audited]);
    let fixed = GroupOptions::new().backoff(Backoff::fixed(seconds(1)));
    let builder = builder.defaults(fixed.max_attempts(count(1)));
    let runtime = builder.group_defaults("audit", fixed.max_attempts(count(2))).start();
    let runtime = runtime.await.unwrap();
    client.publish(&Placed {}).await.unwrap();
    for (group, attempts) in [("mail", 3), ("audit", 2)] {
        let letters = client.dead_letters("orders", group).unwrap();
        let stored = async || letters.list(None, 10).await.unwrap().letters.len() == 1;
        eventually_async(seconds(600), "a dead letter", stored).await;
        let letter = letters.list(None, 10).await.unwrap().letters.remove(0);
        assert_eq!((letter.reason, letter.attempts), (Reason::Exhausted, attempts), "{group}");
    }
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn defaults_that_cannot_be_used_and_of_unknown_groups_refuse_the_start() {
    let client = Streams::new().client();
    let builder = || Runtime::builder(&client).handlers(handlers![audited]);
    let error = builder().defaults(GroupOptions::new().lease(seconds(0))).plan().unwrap_err();
    assert!(error.to_string().contains("lease 0ns is not between"), "{error}");
    let error = builder().group_defaults("mail", GroupOptions::new()).plan().unwrap_err();
    assert!(error.to_string().contains("no handler belongs to group \"mail\""), "{error}");
}
