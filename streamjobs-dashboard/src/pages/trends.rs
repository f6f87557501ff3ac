//! What all groups together did, over hours or days.

use axum::extract::Query;
use axum::response::Response;
use maud::html;
use streamjobs::stream::{Group, TrendRange};

use crate::fault::Fault;
use crate::form::Fields;
use crate::format;
use crate::layout::{View, empty};
use crate::live;
use crate::pages::trend_charts;
use crate::request::RequestContext;
use crate::snapshot::Snapshot;

pub(crate) async fn show(
    ctx: RequestContext,
    Query(asked): Query<Vec<(String, String)>>,
) -> Response {
    live::render_or_follow(ctx, Fields(asked), |ctx, asked| Box::pin(view(ctx, asked))).await
}

async fn view(ctx: &RequestContext, asked: &Fields) -> Result<View, Fault> {
    let range = trend_charts::asked(asked)?.unwrap_or_default();
    let snapshot = ctx.state.sampler.sample().await;
    let (groups, left_out) = groups(ctx, &snapshot)?;
    let count = groups.len();
    let sum = ctx.state.trends.sum(groups, range).await?;
    let body = html! {
        h1 { "Trends" }
        (trend_charts::tabs(&RANGES, Some(range), |range| ctx.base.with_query(&["trends"], &[("range", range)])))
        p.soft #summed {
            "The sum of " (format::count(count as u64)) " groups"
            @if left_out > 0 {
                ". " (format::count(left_out as u64)) " more are left out: the page reads at most "
                (GROUPS_MAX) " groups and " (REQUESTS_MAX) " of their partitions"
            }
            @if snapshot.is_partial() { ", counting only the groups that were read so far" }
            ". The page of a group has the trend of that group."
        }
        @match sum {
            Some(trend) => (trend_charts::charts(&trend, None)),
            None => (empty("There are no groups yet.")),
        }
    };
    Ok(View { title: "Trends".to_owned(), trail: Vec::new(), body })
}

/// The groups that are summed, in the order in which they are configured, and how many are left
/// out.
fn groups(ctx: &RequestContext, snapshot: &Snapshot) -> Result<(Vec<Group>, usize), Fault> {
    let (mut groups, mut requests, mut left_out) = (Vec::new(), 0, 0);
    for stream in &snapshot.streams {
        let Ok(found) = &stream.found else { continue };
        for group in &found.groups {
            let parts = stream.parts.len().max(1);
            if groups.len() < GROUPS_MAX && requests + parts <= REQUESTS_MAX {
                groups.push(ctx.state.group(stream.name.as_str(), &group.info.group)?);
                requests += parts;
            } else {
                left_out += 1;
            }
        }
    }
    Ok((groups, left_out))
}

const RANGES: [Option<TrendRange>; 2] = [Some(TrendRange::SixHours), Some(TrendRange::SevenDays)];
/// How many groups the sum includes.
const GROUPS_MAX: usize = 50;
/// How many requests the sum takes at most: each group is asked once in each partition.
const REQUESTS_MAX: usize = 100;
