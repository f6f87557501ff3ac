//! Dead letters in Redis of all groups, newest first.

use std::cmp::Reverse;

use axum::extract::Query;
use axum::response::Response;
use futures_util::stream::{self, StreamExt};
use maud::{Markup, html};
use streamjobs::EntryId;
use streamjobs::dead_letter::{DeadLetterSummary, DeadLetters, Reason};
use streamjobs::stream::EntryAddress;

use crate::access::Action;
use crate::base::row_id;
use crate::fault::Fault;
use crate::form::Fields;
use crate::format::{self, Untrusted};
use crate::layout::{Button, View, button, empty, fault_box};
use crate::live;
use crate::pages::dead::{self, LetterFilter};
use crate::pages::group_parts::link;
use crate::pages::overview;
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
    /// Whether there are older letters.
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
    let filter = LetterFilter::of(asked);
    let is_known = |reason: &str| Reason::all().any(|known| known.as_str() == reason);
    if !filter.reason.as_deref().is_none_or(is_known) {
        return Err(Fault::bad_request("Invalid reason."));
    }
    let (queues, unknown) = with_letters(&snapshot, asked.get("q"));
    let sets = queues.len().div_ceil(GROUPS_AT_ONCE).max(1);
    let set = usize::try_from(set).unwrap_or(1).min(sets);
    let queues = queues.into_iter().skip((set - 1) * GROUPS_AT_ONCE).take(GROUPS_AT_ONCE);
    let read = stream::iter(queues.map(|queue| read(ctx, queue, before)));
    let read = read.buffered(AT_ONCE).collect::<Vec<_>>().await;
    let (read, failed) = sorted_out(read);
    if let (true, Some((fault, _))) = (read.is_empty(), failed.first()) {
        return Err(fault.clone());
    }
    let (rows, next) = page(ctx, read, &filter).await?;
    let is_filtered = asked.get("q").is_some() || !filter.is_all();
    let body = html! {
        // Reading the letters of many groups costs too much to repeat it every two seconds.
        div data-still {}
        h1 { "Dead letters of all groups" }
        p.soft {
            "Newest first, from Redis"
            @if ctx.state.has_archive() { "; archived ones are in the " a href=(ctx.base.to(&["archive"])) { "archive" } }
            "."
        }
        @for (fault, queues) in &failed { (fault_box(fault)) (named(ctx, "This concerns ", queues)) }
        @for (fault, streams) in snapshot.failures() { (overview::fault_box_of(fault, &streams)) }
        @if snapshot.is_partial() { p.soft #unread { "Not all groups were read yet: reload the page in a moment." } }
        @if !unknown.is_empty() {
            div #unknown { (named(ctx, "The key of the dead letters has another type, so their number is unknown: ", &unknown)) }
        }
        (form(ctx, asked))
        @if sets > 1 { (sets_of(ctx, asked, set, sets)) }
        (list(ctx, &rows, match (next.is_some(), is_filtered) {
            (true, _) => "None of the letters that were examined matches the filter; older letters may match.",
            (false, true) => "No dead letters match the filter.",
            (false, false) if !unknown.is_empty() => "No other dead letters.",
            (false, false) => "No dead letters.",
        }))
        @if let Some(next) = next {
            p.more { a rel="next" href=(to(ctx, asked, &[("set", &set.to_string()), ("before", &next.to_string())])) { "Older letters" } }
        }
    };
    let trail = vec![("Overview".to_owned(), ctx.base.root())];
    Ok(View { title: "Dead letters".to_owned(), trail, body })
}

/// The groups that have dead letters, by name, and the groups for which the number is unknown.
fn with_letters(snapshot: &Snapshot, text: Option<&str>) -> (Vec<Queue>, Vec<Queue>) {
    let text = text.map(str::to_lowercase);
    let includes =
        |name: &str| text.as_deref().is_none_or(|text| name.to_lowercase().contains(text));
    let groups = snapshot.found().flat_map(|found| &found.groups).map(|group| &group.info);
    let groups = groups.filter(|info| includes(&info.stream) || includes(&info.group));
    let (mut queues, mut unknown) = (Vec::new(), Vec::new());
    for info in groups {
        let queue = Queue { stream: info.stream.clone(), group: info.group.clone() };
        match info.dead_letters {
            Some(0) => {}
            Some(_) => queues.push(queue),
            None => unknown.push(queue),
        }
    }
    (queues, unknown)
}

/// The groups that were read, and the groups that were not, once for each reason.
fn sorted_out(all: Vec<Result<Read, (Queue, Fault)>>) -> (Vec<Read>, Vec<(Fault, Vec<Queue>)>) {
    let (mut read, mut failed) = (Vec::new(), Vec::<(Fault, Vec<Queue>)>::new());
    for one in all {
        match one {
            Ok(one) => read.push(one),
            Err((queue, fault)) => match failed.iter_mut().find(|(known, _)| *known == fault) {
                Some((_, queues)) => queues.push(queue),
                None => failed.push((fault, vec![queue])),
            },
        }
    }
    (read, failed)
}

/// A list of groups with links to their pages.
fn named(ctx: &RequestContext, what: &str, queues: &[Queue]) -> Markup {
    html! {
        p.soft {
            (what)
            @for (index, Queue { stream, group }) in queues.iter().take(NAMED_MAX).enumerate() {
                @if index > 0 { ", " }
                a href=(link(&ctx.base, stream, group)) { (Untrusted(group)) " on " (Untrusted(stream)) }
            }
            @if queues.len() > NAMED_MAX { " and " (format::count((queues.len() - NAMED_MAX) as u64)) " more" }
            "."
        }
    }
}

fn letters_of(ctx: &RequestContext, queue: &Queue) -> Result<DeadLetters, Fault> {
    Ok(ctx.state.group(&queue.stream, &queue.group)?.dead_letters())
}

async fn read(
    ctx: &RequestContext,
    queue: Queue,
    before: Option<EntryId>,
) -> Result<Read, (Queue, Fault)> {
    let before = before.map(EntryAddress::from);
    let letters = match letters_of(ctx, &queue) {
        Ok(letters) => letters,
        Err(fault) => return Err((queue, fault)),
    };
    match letters.newest_summaries(before, ROWS_MAX).await {
        Ok(page) => Ok(Read { queue, letters: page.letters, more: page.next.is_some() }),
        Err(error) => Err((queue, error.into())),
    }
}

/// The newest of the matching letters, and the id before which the next page begins. A page ends
/// between two ids, so that letters with the same id, from two groups or partitions, are on one
/// page.
async fn page(
    ctx: &RequestContext,
    read: Vec<Read>,
    filter: &LetterFilter,
) -> Result<(Vec<Row>, Option<EntryId>), Fault> {
    // If a group has more letters, nothing is known of letters below the oldest letter that was
    // read.
    let last = |read: &Read| read.letters.last().map(DeadLetterSummary::address);
    let horizon = read.iter().filter(|read| read.more).filter_map(last).map(|last| last.id).max();
    let mut rows = Vec::new();
    for read in read {
        let at_horizon = last(&read).filter(|last| read.more && Some(last.id) == horizon);
        let mut letters = read.letters;
        // In a stream with partitions, letters of other partitions may have the same id.
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

/// The address of the page with the current filter.
fn to(ctx: &RequestContext, asked: &Fields, more: &[(&str, &str)]) -> String {
    let kept = ["q", "reason"].into_iter().filter_map(|name| Some((name, asked.get(name)?)));
    ctx.base.with_query(&["dead"], &kept.chain(more.iter().copied()).collect::<Vec<_>>())
}

fn form(ctx: &RequestContext, asked: &Fields) -> Markup {
    let reason = asked.get("reason").unwrap_or_default();
    html! {
        form.filter method="get" action=(ctx.base.to(&["dead"])) data-keep {
            label { "Stream or group contains" input name="q" value=[asked.get("q")] maxlength="300"; }
            label { "Reason" select name="reason" {
                option value="" { "all" }
                @for known in Reason::all().map(Reason::as_str) {
                    option value=(known) selected[known == reason] { (known) }
                }
            } }
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

fn list(ctx: &RequestContext, rows: &[Row], why_none: &str) -> Markup {
    let may = ctx.access.may(Action::Redrive);
    html! {
        @if rows.is_empty() {
            (empty(why_none))
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
        tr id=(row_id("d", &[stream, group, &id])) data-letter=(id) data-group=(group) {
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

/// How many rows a page has, and how many letters of a group one page reads. A few more are shown
/// if they have the id of the last row.
const ROWS_MAX: usize = 50;
/// How many groups' letters are merged for one page.
const GROUPS_AT_ONCE: usize = 20;
/// How many groups are asked at the same time.
const AT_ONCE: usize = 8;
/// How many groups an error names.
const NAMED_MAX: usize = 10;
/// The last set of groups that an address can ask for.
const SET_MAX: u64 = 1_000_000;
