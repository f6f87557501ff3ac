use streamjobs::handler;
use streamjobs::schedule::Tick;

#[handler(group = "reports", cron = "0 25 * * *")]
async fn hour(_: Tick) {}

#[handler(group = "reports", cron = "0 9 * * MON-FRY", zone = "Europe/Berln")]
async fn both_parts(_: Tick) {}

#[handler(group = "reports", cron = "0 0 9 * * MON")]
async fn seconds(_: Tick) {}

#[handler(group = "reports", cron = "0 22-2 * * *")]
async fn wraps(_: Tick) {}

#[handler(group = "reports", cron = "0 0 31 2 *")]
async fn never(_: Tick) {}

#[handler(group = "reports", cron = "@daily", every = "1d")]
async fn two(_: Tick) {}

#[handler(group = "reports", every = "5m", zone = "Europe/Berlin")]
async fn zone_of_an_interval(_: Tick) {}

#[handler(group = "reports", cron = "@daily", offset = "1m")]
async fn offset_of_an_expression(_: Tick) {}

#[handler(group = "reports", every = "999ms")]
async fn short(_: Tick) {}

#[handler(group = "reports", every = "5m", offset = "5m")]
async fn late(_: Tick) {}

#[handler(group = "reports", every = "5m", jitter = "25h", missed = "latest", overlap = "wait")]
async fn values(_: Tick) {}

#[handler(group = "reports", every = "5m", missed_max = 10, missed_within = "1h")]
async fn without_all(_: Tick) {}

#[handler(group = "reports", every = "5m", missed = "all", missed_max = 10_001, missed_within = "0s")]
async fn bounds(_: Tick) {}

#[handler(group = "reports", zone = "UTC", offset = "1m", missed = "one", jitter = "1s", overlap = "skip")]
async fn without_a_schedule(_: Tick) {}

#[handler(group = "reports", every = "5m")]
async fn größe(_: Tick) {}

fn main() {}
