//! What was measured, as lines for people and as JSON.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::meter::Cost;

#[derive(Default)]
pub struct Table {
    rows: Vec<Value>,
}

/// One side's figures by the medians of its rounds.
struct Medians {
    rate: f64,
    rate_min: f64,
    rate_max: f64,
    client_us: f64,
    server_us: f64,
    commands: f64,
    bytes: f64,
    allocations: Option<f64>,
}

impl Medians {
    fn of(costs: &[Cost], events: usize) -> Self {
        let events = events as f64;
        let each = |figure: &dyn Fn(&Cost) -> f64| median(costs.iter().map(figure).collect());
        let rates = costs.iter().map(|cost| events / cost.wall.as_secs_f64()).collect::<Vec<_>>();
        let allocations = costs.iter().map(|cost| Some(cost.allocations? as f64 / events));
        let allocations = allocations.collect::<Option<Vec<_>>>();
        Self {
            rate: median(rates.clone()),
            rate_min: rates.iter().copied().fold(f64::INFINITY, f64::min),
            rate_max: rates.iter().copied().fold(0.0, f64::max),
            client_us: each(&|cost| cost.client.as_secs_f64() * 1e6 / events),
            server_us: each(&|cost| cost.server.as_secs_f64() * 1e6 / events),
            commands: each(&|cost| cost.commands as f64 / events),
            bytes: each(&|cost| cost.bytes as f64 / events),
            allocations: allocations.map(median),
        }
    }

    fn line(&self, side: &str) -> String {
        format!(
            "  {side:10} {:>9.0}/s ({:.0} to {:.0}), client {:.2} us, server {:.2} us, \
             {:.3} commands, {:.0} bytes, {} allocations",
            self.rate,
            self.rate_min,
            self.rate_max,
            self.client_us,
            self.server_us,
            self.commands,
            self.bytes,
            self.allocations.map_or("uncounted".to_owned(), |each| format!("{each:.1}"))
        )
    }

    fn json(&self) -> Value {
        json!({
            "rate": self.rate, "rate_min": self.rate_min, "rate_max": self.rate_max,
            "client_us": self.client_us, "server_us": self.server_us,
            "commands": self.commands, "bytes": self.bytes, "allocations": self.allocations,
        })
    }
}

impl Table {
    /// Two sides that did the same, or one where nothing by hand does that.
    pub fn work(&mut self, name: &str, events: usize, ours: &[Cost], by_hand: &[Cost]) {
        let own = Medians::of(ours, events);
        println!("{name} ({events} events, {} rounds)", ours.len());
        println!("{}", own.line("streamjobs"));
        let mut row = json!({ "name": name, "events": events, "streamjobs": own.json() });
        if !by_hand.is_empty() {
            let theirs = Medians::of(by_hand, events);
            println!("{}", theirs.line("by hand"));
            let ratios = [
                own.rate / theirs.rate,
                own.client_us / theirs.client_us,
                own.server_us / theirs.server_us,
            ];
            println!(
                "  ratio      {:.2}, client {:.2}, server {:.2}",
                ratios[0], ratios[1], ratios[2]
            );
            row["by_hand"] = theirs.json();
            row["ratio"] = json!({ "rate": ratios[0], "client": ratios[1], "server": ratios[2] });
        }
        self.rows.push(row);
    }

    /// Times from publishing to starting, of either side.
    pub fn latency(&mut self, name: &str, ours: Vec<Duration>, by_hand: Vec<Duration>) {
        println!("{name}");
        let mut row = json!({ "name": name });
        for (side, key, mut times) in
            [("streamjobs", "streamjobs", ours), ("by hand", "by_hand", by_hand)]
        {
            if times.is_empty() {
                continue;
            }
            times.sort_unstable();
            let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
            let [p50, p99, p999, max] =
                [0.5, 0.99, 0.999, 1.0].map(|share| milliseconds(at(share)));
            println!(
                "  {side:10} p50 {p50:.3} ms, p99 {p99:.3} ms, p99.9 {p999:.3} ms, max {max:.3} ms"
            );
            row[key] = json!({ "p50_ms": p50, "p99_ms": p99, "p999_ms": p999, "max_ms": max });
        }
        self.rows.push(row);
    }

    /// Something else that was measured once.
    pub fn note(&mut self, name: &str, text: &str, figures: Value) {
        println!("{name}\n  {text}");
        self.rows.push(json!({ "name": name, "figures": figures }));
    }

    pub fn rows(&self) -> &[Value] {
        &self.rows
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn json(&self) -> String {
        let all = json!({ "machine": machine(), "rows": self.rows });
        serde_json::to_string_pretty(&all).unwrap()
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What it was measured on, and how busy that was before.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
    let model = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown").to_owned();
    format!("{cores} cores ({model}), load {load}")
}
