//! The table of groups: of all streams on the overview, of one stream on its page.

use maud::{Markup, html};
use streamjobs::stream::Condition;

use crate::base::row_id;
use crate::fault::Fault;
use crate::form::Fields;
use crate::format::{self, Counted, Untrusted};
use crate::history::Rates;
use crate::layout::empty;
use crate::pages::fleet_order::{Column, FailedRow, FleetOrder, FleetRow};
use crate::pages::group_parts;
use crate::request::RequestContext;
use crate::sampler::ROUND_MAX;
use crate::snapshot::Snapshot;

/// The page that the table is on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FleetPage<'a> {
    pub(crate) ctx: &'a RequestContext,
    /// The segments of its address.
    pub(crate) path: &'a [&'a str],
    /// The stream, if the table is about a single stream.
    pub(crate) stream: Option<&'a str>,
    pub(crate) asked: &'a Fields,
}

/// The filter, the table with its sums, and links to further pages.
///
/// # Errors
///
/// The address asks for an unknown order or state.
pub(crate) fn section(page: FleetPage<'_>, snapshot: &Snapshot) -> Result<Markup, Fault> {
    let order = FleetOrder::of(page.asked)?;
    let rows = order.rows(snapshot, page.stream);
    let failed = order.failed(snapshot, page.stream);
    let has_failed = match page.stream {
        Some(name) => snapshot.failure(name).is_some(),
        None => !snapshot.failures().is_empty(),
    };
    let unread =
        page.stream.map_or_else(|| snapshot.is_partial(), |name| is_partial(snapshot, name));
    let columns = Column::ALL.into_iter();
    let columns = columns.filter(|column| page.stream.is_none() || *column != Column::Stream);
    let columns = columns.collect::<Vec<_>>();
    let last = rows.len().div_ceil(ROWS_MAX).max(1);
    let number = order.page.min(last);
    let shown = rows.iter().skip((number - 1) * ROWS_MAX).take(ROWS_MAX);
    Ok(html! {
        (filter(page))
        @if snapshot.is_in_turns {
            p.soft #turns { "There are many groups: each update reads the next " (ROUND_MAX) " of them." }
        }
        @if snapshot.not_tried > 0 {
            p.soft #not-tried {
                (format::count(snapshot.not_tried as u64)) " streams were not tried, because the server did not \
                 answer for another stream. Their figures are from an earlier update."
            }
        }
        @if unread { p.soft #unread { "Not all groups were read yet. Sums include only the groups that were read." } }
        @if rows.is_empty() && failed.is_empty() {
            (empty(match (order.is_all(), unread) {
                (false, _) => "No groups match the filter.",
                (true, true) => "The groups are read with the next update.",
                (true, false) => "No group reads these streams. Their entries are kept and not processed.",
            }))
        } @else {
            div.scroll tabindex="0" role="region" aria-label="Groups" { table.fleet #fleet role="table" {
                caption.hidden { "Groups. Done and failed are the rates of the last minute." }
                thead role="rowgroup" { tr role="row" {
                    @for column in &columns { (heading(page, &order, *column)) }
                    th role="columnheader" scope="col" { "Last 5 minutes" }
                } }
                tbody role="rowgroup" {
                    @if number == 1 { @for failed in failed.iter().take(ROWS_MAX) {
                        (failed_row(page, &columns, *failed))
                    } }
                    @for fleet_row in shown { (row(page, &columns, fleet_row)) }
                }
                tfoot role="rowgroup" { (sums(&columns, &rows, unread || has_failed)) }
            } }
            @if failed.len() > ROWS_MAX {
                p.soft { (format::count((failed.len() - ROWS_MAX) as u64)) " more groups could not be read." }
            }
            @if last > 1 { (pages(page, number, last)) }
        }
    })
}

fn is_partial(snapshot: &Snapshot, stream: &str) -> bool {
    snapshot.stream(stream).is_some_and(|found| found.is_partial)
}

/// A link to the table with these fields changed.
fn link(page: FleetPage<'_>, changed: &[(&str, &str)]) -> String {
    let kept = ["q", "state", "sort", "order"].into_iter();
    let kept = kept.filter(|name| changed.iter().all(|(other, _)| other != name));
    let kept = kept.filter_map(|name| Some((name, page.asked.get(name)?)));
    let query = kept.chain(changed.iter().copied()).filter(|(_, value)| !value.is_empty());
    page.ctx.base.with_query(page.path, &query.collect::<Vec<_>>())
}

fn filter(page: FleetPage<'_>) -> Markup {
    let asked = page.asked;
    let state = asked.get("state").unwrap_or("all");
    html! {
        form.filter #fleet-filter method="get" action=(page.ctx.base.to(page.path)) data-keep {
            label { @if page.stream.is_some() { "Group contains" } @else { "Stream or group contains" }
                input name="q" value=[asked.get("q")] maxlength="300"; }
            label { "State" select name="state" {
                @for (value, text) in [("all", "all"), ("problems", "with problems"), ("healthy", "healthy")] {
                    option value=(value) selected[value == state] { (text) }
                }
            } }
            @for name in ["sort", "order"] {
                @if let Some(value) = asked.get(name) { input type="hidden" name=(name) value=(value); }
            }
            button type="submit" { "Filter" }
        }
    }
}

/// A heading whose link sorts by its column, in reverse if the rows are sorted by it already.
fn heading(page: FleetPage<'_>, order: &FleetOrder, column: Column) -> Markup {
    let is_sorted = order.by == Some(column);
    let (state, mark) = match order.is_descending {
        true => ("descending", " ▼"),
        false => ("ascending", " ▲"),
    };
    let turned = match (is_sorted, order.is_descending) {
        (true, true) => "asc",
        (true, false) => "desc",
        (false, _) => "",
    };
    let to = link(page, &[("sort", column.as_str()), ("order", turned)]);
    html! {
        th role="columnheader" scope="col" class=[column.is_number().then_some("number")]
            aria-sort=[is_sorted.then_some(state)] {
            a href=(to) { (column.title()) @if is_sorted { span aria-hidden="true" { (mark) } } }
        }
    }
}

fn row(page: FleetPage<'_>, columns: &[Column], row: &FleetRow<'_>) -> Markup {
    let group = &row.sampled.info.group;
    html! {
        tr role="row" id=(row_id("g", &[row.stream, group])) data-group=(group) data-stream=(row.stream) {
            @for column in columns {
                @if *column == Column::Group {
                    th role="rowheader" scope="row" data-label=(column.title()) { (cell(page, row, *column)) }
                } @else {
                    td role="cell" class=[column.is_number().then_some("number")] data-label=(column.title()) {
                        (cell(page, row, *column))
                    }
                }
            }
            td role="cell" data-label="Last 5 minutes" { (group_parts::spark(&row.sampled.done_history)) }
        }
    }
}

/// The row of a group that could not be read: the reason, instead of its figures.
fn failed_row(
    page: FleetPage<'_>,
    columns: &[Column],
    (stream, group, fault): FailedRow<'_>,
) -> Markup {
    let base = &page.ctx.base;
    let names = |column: &&Column| matches!(column, Column::Stream | Column::Group);
    let rest = columns.len() + 1 - columns.iter().filter(names).count();
    html! {
        tr role="row" id=(row_id("f", &[stream, group])) data-failed=(group) {
            @if columns.contains(&Column::Stream) {
                td role="cell" data-label="Stream" { a href=(base.to(&["streams", stream])) { (Untrusted(stream)) } }
            }
            th role="rowheader" scope="row" data-label="Group" {
                a href=(group_parts::link(base, stream, group)) { (Untrusted(group)) }
            }
            td role="cell" colspan=(rest) data-label="State" {
                span.state.bad { "not read" } " " (Untrusted(&fault.text))
            }
        }
    }
}

fn cell(page: FleetPage<'_>, row: &FleetRow<'_>, column: Column) -> Markup {
    let (base, sampled, info) = (&page.ctx.base, row.sampled, &row.sampled.info);
    // A figure is red if it is a problem, so that no figure is red below a banner without problems.
    let red = |condition, text: Markup| {
        let mut problems = sampled.diagnosis.problems.iter();
        let is_problem = problems.any(|problem| problem.condition() == condition);
        html! { span class=[is_problem.then_some("bad-number")] { (text) } }
    };
    let rate = |of: Option<f64>| html! { (of.map_or("–".into(), format::rate)) };
    let minute = sampled.minute;
    match column {
        Column::Stream => html! {
            a href=(base.to(&["streams", row.stream])) { (Untrusted(row.stream)) }
        },
        Column::Group => html! {
            a href=(group_parts::link(base, row.stream, &info.group)) { (Untrusted(&info.group)) }
        },
        Column::State => group_parts::state_of(sampled),
        Column::Waiting => group_parts::backlog(sampled),
        Column::Oldest => html! { (info.oldest_waiting.map_or("–".into(), format::span)) },
        Column::Running => html! { (sampled.running()) " / " (sampled.slots()) },
        Column::Pending => html! {
            (format::count(info.pending))
            @if info.released > 0 { small { " + " (format::count(info.released)) " released" } }
        },
        Column::Retries => red(Condition::Retrying, html! { (format::count(info.retrying)) }),
        Column::Dead => red(Condition::DeadLetters, format::counted(row.dead, DEAD_UNKNOWN)),
        Column::Done => rate(minute.map(|minute| minute.done)),
        Column::Failed => red(Condition::Failing, rate(minute.map(|minute| minute.failed))),
    }
}

/// The sums over all matching rows, not only those on this page.
fn sums(columns: &[Column], rows: &[FleetRow<'_>], is_partial: bool) -> Markup {
    html! {
        tr role="row" #sums {
            @for column in columns {
                @if *column == Column::Group {
                    th role="rowheader" scope="row" data-label="Sum of" {
                        @if is_partial { "≥ " } (format::count(rows.len() as u64)) " groups"
                    }
                } @else {
                    td role="cell" class=[column.is_number().then_some("number")] data-label=(column.title()) {
                        (sum(rows, *column, is_partial))
                    }
                }
            }
            td role="cell" {}
        }
    }
}

fn sum(rows: &[FleetRow<'_>], column: Column, is_partial: bool) -> Markup {
    let infos = || rows.iter().map(|row| &row.sampled.info);
    let minute = |of: fn(Rates) -> f64| {
        let rates = rows.iter().map(|row| row.sampled.minute.map(of));
        html! { (format::sum_of_rates(rates, is_partial)) }
    };
    match column {
        Column::Stream | Column::Group | Column::State => html! {},
        Column::Waiting => html! {
            @if infos().any(|info| !info.backlog.exact) { "≥ " }
            (format::count(infos().map(|info| info.backlog.entries).sum()))
        },
        Column::Oldest => {
            let oldest = infos().filter_map(|info| info.oldest_waiting).max();
            html! { (oldest.map_or("–".into(), format::span)) }
        }
        Column::Running => html! {
            (rows.iter().map(|row| row.sampled.running()).sum::<u64>()) " / "
            (rows.iter().map(|row| row.sampled.slots()).sum::<u64>())
        },
        Column::Pending => html! { (format::count(infos().map(|info| info.pending).sum())) },
        Column::Retries => html! { (format::count(infos().map(|info| info.retrying).sum())) },
        Column::Dead => {
            let mut dead = rows.iter().map(|row| row.dead);
            let dead = dead.try_fold(Counted::default(), |sum, dead| Some(sum.plus(dead?)));
            format::counted(dead, DEAD_UNKNOWN)
        }
        Column::Done => minute(|rates| rates.done),
        Column::Failed => minute(|rates| rates.failed),
    }
}

fn pages(page: FleetPage<'_>, number: usize, last: usize) -> Markup {
    let to = |number: usize| link(page, &[("page", &number.to_string())]);
    html! {
        nav.more aria-label="Pages of the table" {
            @if number > 1 { a rel="prev" href=(to(number - 1)) { "Previous groups" } " " }
            span { "Page " (number) " of " (last) }
            @if number < last { " " a rel="next" href=(to(number + 1)) { "Next groups" } }
        }
    }
}

pub(crate) const DEAD_UNKNOWN: &str =
    "Unknown: the key has another type, or the archive did not answer.";
/// How many rows one page has.
const ROWS_MAX: usize = 100;
