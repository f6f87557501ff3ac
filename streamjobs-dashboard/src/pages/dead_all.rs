//! Dead letters in Redis over all groups, newest first.

use std::cmp::Reverse;

use axum::extract::Query;
use axum::response::Response;
use futures_util::stream::{self, StreamExt};
use maud::{Markup, html};
use streamjobs::EntryId;
use streamjobs::dead_letter::{DeadLetterSummary, DeadLetters};
use streamjobs::stream::EntryAddress;

use crate::access::Action;
use crate::fault::Fault;
use crate::form::Fields;
use crate::format::{self, Untrusted};
use crate::layout::{Button, View, button, empty, fault_box};
use crate::live;
use crate::pages::dead::{self, LetterFilter};
use crate::pages::group_parts::link;
use crate::pages::retries::error;
use crate::request::RequestContext;
use crate::snapshot::Snapshot;

pub(crate) async fn show(
    ctx: RequestContext,
    Query(asked): Query<Vec<(String, String)>>,
) -> Response {
    live::render_or_follow(ctx, Fields(asked), |ctx, asked| Box::pin(view(ctx, asked))).await
}

/// A group with dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Queue {
    stream: String,
    group: String,
}

/// The newest letters of a group before an id.
#[derive(Debug)]
struct Read {
    queue: Queue,
    letters: Vec<DeadLetterSummary>,
    /// Whether there are older ones.
    more: bool,
}

/// A letter and its group.
#[derive(Debug)]
struct Row {
    queue: Queue,
    letter: DeadLetterSummary,
}

async fn view(ctx: &RequestContext, asked: &Fields) -> Result<View, Fault> {
    let snapshot = ctx.state.sampler.sample().await;
    let before = asked.get("before").map(str::parse::<EntryId>).transpose();
    let before = before.map_err(|_| Fault::bad_request("Invalid entry id."))?;
    let set = asked.number("set", SET_MAX)?.unwrap_or(1).max(1);
    let queues = with_letters(&snapshot, asked.get("q"));
    let sets = queues.len().div_ceil(GROUPS_AT_ONCE).max(1);
    let set = usize::try_from(set).unwrap_or(1).min(sets);
    let queues = queues.into_iter().skip((set - 1) * GROUPS_AT_ONCE).take(GROUPS_AT_ONCE);
    let read = stream::iter(queues.map(|queue| read(ctx, queue, before)));
    let read = read.buffered(AT_ONCE).collect::<Vec<_>>().await;
    let (read, failed): (Vec<_>, Vec<_>) = read.into_iter().partition(Result::is_ok);
    let read = read.into_iter().flatten().collect::<Vec<_>>();
    let failed = failed.into_iter().filter_map(Result::err).collect::<Vec<_>>();
    if let (true, Some(fault)) = (read.is_empty(), failed.first()) {
        return Err(fault.clone());
    }
    let (rows, next) = page(ctx, read, &LetterFilter::of(asked)).await?;
    let body = html! {
        h1 { "Dead letters of all groups" }
        p.soft {
            "Newest first, from Redis"
            @if ctx.state.has_archive() { "; archived ones are in the " a href=(ctx.base.to(&["archive"])) { "archive" } }
            "."
        }
        @for fault in &failed { (fault_box(fault)) }
        @for (fault, _) in snapshot.failures() { (fault_box(fault)) }
        @if snapshot.is_partial() { p.soft #unread { "Not all groups were read yet: reload the page in a moment." } }
        (filter(ctx, asked))
        @if sets > 1 { (sets_of(ctx, asked, set, sets)) }
        (list(ctx, &rows, next.is_some()))
        @if let Some(next) = next {
            p.more { a rel="next" href=(to(ctx, asked, &[("set", &set.to_string()), ("before", &next.to_string())])) { "Older letters" } }
        }
    };
    let trail = vec![("Overview".to_owned(), ctx.base.root())];
    Ok(View { title: "Dead letters".to_owned(), trail, body })
}

/// The groups that have dead letters, by name.
fn with_letters(snapshot: &Snapshot, text: Option<&str>) -> Vec<Queue> {
    let text = text.map(str::to_lowercase);
    let includes =
        |name: &str| text.as_deref().is_none_or(|text| name.to_lowercase().contains(text));
    let groups = snapshot.found().flat_map(|found| &found.groups).map(|group| &group.info);
    let groups = groups.filter(|info| info.dead_letters.is_some_and(|letters| letters > 0));
    let groups = groups.filter(|info| includes(&info.stream) || includes(&info.group));
    let queue = |stream: &str, group: &str| Queue { stream: stream.into(), group: group.into() };
    groups.map(|info| queue(&info.stream, &info.group)).collect()
}

fn letters_of(ctx: &RequestContext, queue: &Queue) -> Result<DeadLetters, Fault> {
    Ok(ctx.state.group(&queue.stream, &queue.group)?.dead_letters())
}

async fn read(ctx: &RequestContext, queue: Queue, before: Option<EntryId>) -> Result<Read, Fault> {
    let before = before.map(EntryAddress::from);
    let page = letters_of(ctx, &queue)?.newest_summaries(before, ROWS_MAX).await?;
    Ok(Read { queue, letters: page.letters, more: page.next.is_some() })
}

/// The newest of the letters that match, and the id before which the next page begins. A page ends
/// between two ids, so that letters of two groups or partitions with one id are on one page.
async fn page(
    ctx: &RequestContext,
    read: Vec<Read>,
    filter: &LetterFilter,
) -> Result<(Vec<Row>, Option<EntryId>), Fault> {
    // Below the oldest letter that was read of a group with more, nothing is known of that group.
    let last = |read: &Read| read.letters.last().map(DeadLetterSummary::address);
    let horizon = read.iter().filter(|read| read.more).filter_map(last).map(|last| last.id).max();
    let mut rows = Vec::new();
    for read in read {
        let at_horizon = last(&read).filter(|last| read.more && Some(last.id) == horizon);
        let mut letters = read.letters;
        // Of a stream with partitions, others may have the same id.
        if let Some(last) = at_horizon.filter(|last| last.partition.is_some()) {
            let rest = letters_of(ctx, &read.queue)?.newest_summaries(Some(last), ROWS_MAX).await?;
            letters.extend(rest.letters.into_iter().filter(|letter| letter.id == last.id));
        }
        let known = letters.into_iter().filter(|letter| horizon.is_none_or(|at| letter.id >= at));
        let known = known.filter(|letter| filter.includes(letter));
        rows.extend(known.map(|letter| Row { queue: read.queue.clone(), letter }));
    }
    rows.sort_by_key(|row| Reverse(row.letter.address()));
    let cut = rows.get(ROWS_MAX - 1).map(|row| row.letter.id);
    let all = rows.len();
    rows.retain(|row| cut.is_none_or(|cut| row.letter.id >= cut));
    let next = if rows.len() < all { cut } else { horizon };
    Ok((rows, next))
}

/// The address of the page with the filter of this one.
fn to(ctx: &RequestContext, asked: &Fields, more: &[(&str, &str)]) -> String {
    let kept = ["q", "reason"].into_iter().filter_map(|name| Some((name, asked.get(name)?)));
    ctx.base.with_query(&["dead"], &kept.chain(more.iter().copied()).collect::<Vec<_>>())
}

fn filter(ctx: &RequestContext, asked: &Fields) -> Markup {
    html! {
        form.filter method="get" action=(ctx.base.to(&["dead"])) data-keep {
            label { "Stream or group contains" input name="q" value=[asked.get("q")] maxlength="300"; }
            label { "Reason" input name="reason" value=[asked.get("reason")] maxlength="100" placeholder="exhausted"; }
            button type="submit" { "Filter" }
        }
    }
}

fn sets_of(ctx: &RequestContext, asked: &Fields, set: usize, sets: usize) -> Markup {
    let to = |set: usize| to(ctx, asked, &[("set", &set.to_string())]);
    html! {
        nav.more aria-label="Groups with dead letters" {
            "Many groups have dead letters: " (GROUPS_AT_ONCE) " of them are shown at a time, by name. "
            @if set > 1 { a rel="prev" href=(to(set - 1)) { "Previous groups" } " " }
            span { (set) " of " (sets) }
            @if set < sets { " " a href=(to(set + 1)) { "Next groups" } }
        }
    }
}

fn list(ctx: &RequestContext, rows: &[Row], more: bool) -> Markup {
    let may = ctx.access.may(Action::Redrive);
    html! {
        @if rows.is_empty() {
            (empty(if more { "None of the letters that were looked at matches the filter; older ones may." } else { "No dead letters." }))
        } @else {
            div.scroll tabindex="0" role="region" aria-label="Dead letters" { table {
                thead { tr {
                    th scope="col" { "Letter" } th scope="col" { "Dead-lettered" } th scope="col" { "Group" }
                    th scope="col" { "Reason" } th scope="col" { "Type" } th.number scope="col" { "Attempts" }
                    th scope="col" { "Error" }
                    @if may { th scope="col" { span.hidden { "Action" } } }
                } }
                tbody { @for row in rows { (row_of(ctx, row)) } }
            } }
        }
    }
}

fn row_of(ctx: &RequestContext, Row { queue, letter }: &Row) -> Markup {
    let id = letter.address().to_string();
    let Queue { stream, group } = queue;
    let fields = [("id", id.as_str())];
    let redrive = Button { text: "Redrive", fields: &fields, ..Button::default() };
    html! {
        tr id={ "d-" (stream) "-" (group) "-" (id) } data-letter=(id) data-group=(group) {
            td.id { a href=(ctx.base.to(&dead::below(stream, group, &id))) { (id) } }
            td { (format::when(letter.id.milliseconds())) }
            td { a href=(link(&ctx.base, stream, group)) { (Untrusted(group)) " on " (Untrusted(stream)) } }
            td { span.state.bad { (letter.reason.as_str()) } }
            td { (Untrusted(letter.event_type.as_deref().unwrap_or("unknown"))) }
            td.number { (letter.attempts) }
            td { (error(ctx, letter.error.as_deref())) }
            @if ctx.access.may(Action::Redrive) {
                td { (button(ctx, Action::Redrive, &ctx.base.to(&dead::below(stream, group, "redrive")), &redrive)) }
            }
        }
    }
}

/// Rows of a page, and letters that one page reads of a group. A few more have the id of the last.
const ROWS_MAX: usize = 50;
/// Groups whose letters are merged for one page.
const GROUPS_AT_ONCE: usize = 20;
/// Groups that are asked at the same time.
const AT_ONCE: usize = 8;
/// The last set of groups that an address can ask for.
const SET_MAX: u64 = 1_000_000;
