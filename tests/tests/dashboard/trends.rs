//! Charts of hours and days.

use std::collections::BTreeMap;
use std::time::Duration;

use streamjobs_tests::eventually::eventually_async;

use crate::accessible;
use crate::bounded::calls_of;
use crate::site::{GROUP, Site};

const DEADLINE: Duration = Duration::from_secs(10);

/// Notes so many of the last steps of both ranges, without the one that goes on: in each, 120 jobs that
/// ran 40 to 60 ms, six of them for more than a minute.
pub fn note(site: &Site, group: &str, steps: u64) {
    note_at(site, group, &(1..steps).collect::<Vec<_>>());
}

fn note_at(site: &Site, group: &str, steps: &[u64]) {
    let time: Vec<u64> = site.server.query(&["TIME"]);
    for (ring, step, places) in [("minutes", 60, 360), ("quarters", 900, 672)] {
        let key = format!("{{orders}}:trend-{ring}:{group}");
        for ago in steps.iter().filter(|ago| **ago < places) {
            let number = time[0] / step - ago;
            let (done, failed) = (100 + number % 20, number % 3);
            let text =
                format!("{number} {done} {failed} {} 3000 9:{done} 17:57,18:57,39:6", number % 7);
            site.server.command(&["HSET", &key, &(number % places).to_string(), &text]);
        }
    }
}

#[tokio::test]
async fn a_group_has_charts_of_hours_and_days_with_percentiles() {
    let site = Site::start().await;
    for range in ["6h", "7d"] {
        let path = format!("{GROUP}?range={range}");
        let page = site.get(&path).await;
        page.is(200).says("Nothing was noted within this time").says_not("Last 15 minutes");
        accessible::check(&path, &page.text);
    }
    // A dashboard reads a trend at most every 15 seconds.
    note(&site, "work", 300);
    let site = crate::bounded::fresh(site);
    for (range, words, oldest) in [("6h", "6 hours", "−6 h"), ("7d", "7 days", "−7 d")] {
        let path = format!("{GROUP}?range={range}");
        let page = site.get(&path).await;
        for title in ["Jobs", "Failures", "Queue time", "Run time", "Waiting", "Oldest waiting"] {
            page.says(&format!("{title} over the last {words}, at most"));
        }
        page.is(200).says("class=\"key p95\">p95 ").says("<polyline class=\"p99\"").says(oldest);
        page.says(&format!("aria-current=\"page\">{words}</a>"));
        page.says("<span class=\"key waiting\">waiting 0</span>");
        accessible::check(&path, &page.text);
    }
    let run = site.get(&format!("{GROUP}?range=6h")).await;
    let chart = run.text.split("Run time").nth(1).unwrap();
    let median = chart.split("p50 ").nth(1).unwrap().split('<').next().unwrap();
    assert!(
        ["40", "41", "42", "43", "44", "45", "46"].iter().any(|ms| median.starts_with(ms)),
        "{median}"
    );
    site.get(&format!("{GROUP}?range=1y")).await.is(400).says("Unknown range");
    site.get(&format!("{GROUP}?range=15m")).await.is(200).says_not("Last 6 hours");
}

#[tokio::test]
async fn the_groups_are_summed_and_those_that_are_left_out_are_counted() {
    let site = Site::start().await;
    for number in 0..55 {
        site.server.command(&["XGROUP", "CREATE", "orders", &format!("group-{number:02}"), "$"]);
    }
    for group in ["work", "group-00", "group-01"] {
        note(&site, group, 20);
    }
    let summed = async || {
        let page = site.get("/jobs/trends").await;
        page.text.contains("The sum of 50 groups. 6 more are left out")
    };
    eventually_async(DEADLINE, "all groups were sampled", summed).await;
    let page = site.get("/jobs/trends?range=7d").await;
    page.is(200).says("Jobs over the last 7 days").says("Run time over the last 7 days");
    accessible::check("/jobs/trends", &page.text);
    // Each of the groups did 100 to 119 jobs in a step; the one that sorts last is not summed.
    let done = page.text.split("done ").nth(1).unwrap().split("/min").next().unwrap();
    let done = done.parse::<f64>().unwrap();
    assert!((13.3..16.0).contains(&done), "two groups, by the minute: {done}");
    site.get("/jobs/trends?range=15m").await.is(200).says("Jobs over the last 6 hours");
    site.get("/jobs/trends?range=x").await.is(400);
}

/// The page of the group is the same otherwise.
#[tokio::test]
async fn a_range_costs_the_page_of_a_group_one_request_for_all_visitors() {
    let mut site = crate::bounded::fresh(Site::start().await);
    note(&site, "work", 700);
    let sum = |calls: BTreeMap<String, u64>| calls.values().sum::<u64>();
    let plain = sum(calls_of(&site, GROUP).await);
    for range in ["6h", "7d"] {
        let path = format!("{GROUP}?range={range}");
        site = crate::bounded::fresh(site);
        let ranged = sum(calls_of(&site, &path).await);
        assert_eq!(ranged, plain + 3, "a script with two commands");
        assert!(site.get(&path).await.text.len() < 200_000);
        site.server.command(&[
            "DEL",
            "{orders}:trend-minutes:work",
            "{orders}:trend-quarters:work",
        ]);
        site.get(&path).await.is(200).says("Run time over");
        note(&site, "work", 700);
    }
}

/// One job a moment ago, and one long before.
#[tokio::test]
async fn where_nothing_was_noted_jobs_are_zero_and_times_have_a_gap() {
    let site = Site::start().await;
    note_at(&site, "work", &[100, 10]);
    let page = site.get(&format!("{GROUP}?range=6h")).await;
    let chart = |title: &str| {
        let from = page.is(200).text.split(&format!("<title>{title} over")).nth(1).unwrap();
        from.split("</svg>").next().unwrap().to_owned()
    };
    let jobs = chart("Jobs");
    let line = jobs.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
    let points = line.split(' ').map(|point| point.split_once(',').unwrap().1 == "106.0");
    let is_zero = points.collect::<Vec<_>>();
    assert_eq!(is_zero, [false, true, true, false, true, true], "{jobs}");
    assert_eq!(jobs.matches("<polyline").count(), 1, "{jobs}");
    let run = chart("Run time");
    assert_eq!((run.matches("<polyline").count(), run.matches("<circle").count()), (0, 6), "{run}");
}
