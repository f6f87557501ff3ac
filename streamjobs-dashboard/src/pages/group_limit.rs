//! The limit of a group over all processes, and the forms that change it and the rate.

use std::num::NonZeroU32;

use maud::{Markup, html};
use streamjobs::Rate;
use streamjobs::stream::{CodeLimit, ConsumerInfo, GroupInfo};

use crate::access::Action;
use crate::format::Untrusted;
use crate::layout::{Button, button, token};
use crate::request::RequestContext;

/// What limits the jobs of the group over all processes.
pub(crate) fn row(info: &GroupInfo, consumers: &[ConsumerInfo]) -> Markup {
    let said =
        ConsumerInfo::latest_with_limit(consumers).and_then(|latest| latest.limits.as_deref());
    html! {
        @if said.is_some() || info.limit.is_some() {
            dt { "Limit over all processes" }
            dd #limit {
                @if let Some(limits) = said { (Untrusted(limits)) " in the code" }
                @if let Some(set) = &info.limit {
                    @if said.is_some() { "; " }
                    (Untrusted(&set.to_string()))
                    @if info.limit_in < info.partitions { ", in " (info.limit_in) " of " (info.partitions) " partitions" }
                    @if !info.limit_is_followed(consumers) { ", which no live process follows" }
                }
            }
        }
    }
}

/// The forms that set the number of the limit, and the rate; and the button that resets the limit.
pub(crate) fn actions(
    ctx: &RequestContext,
    info: &GroupInfo,
    consumers: &[ConsumerInfo],
) -> Markup {
    let code = ConsumerInfo::latest_with_limit(consumers).and_then(|latest| latest.limit);
    let reset = Button { text: "Reset the limit", ..Button::default() };
    html! {
        @if let Some(code) = code.filter(|_| ctx.access.may(Action::Pause)) { (form(ctx, info, code)) }
        @if let Some(rate) = info.rate.filter(|_| ctx.access.may(Action::Pause)) { (rate_form(ctx, info, rate.in_force())) }
        @if info.limit.is_some() {
            div.actions { (button(ctx, Action::Pause, &to(ctx, info, "reset"), &reset)) }
        }
    }
}

fn form(ctx: &RequestContext, info: &GroupInfo, code: CodeLimit) -> Markup {
    let set = info.limit.as_ref().filter(|set| set.option == code.option);
    let limit = set.map_or(code.limit, |set| set.limit);
    html! {
        form.actions method="post" action=(to(ctx, info, "set")) {
            (token(ctx))
            input type="hidden" name="option" value=(code.option.as_str());
            label { (code.option.as_str()) " " input type="number" name="limit" min="1" max=(u32::MAX) value=(limit) required; }
            label { "Reason " input name="why" maxlength="200" placeholder="bank API is back, ticket 4711"; }
            button type="submit" { "Set the limit in all processes" }
        }
    }
}

fn rate_form(ctx: &RequestContext, info: &GroupInfo, rate: Option<Rate>) -> Markup {
    let action = ctx.base.to(&["streams", &info.stream, "groups", &info.group, "rate", "set"]);
    let text = rate.map(|rate| rate.burst(NonZeroU32::MIN).to_string());
    html! {
        form.actions method="post" action=(action) {
            (token(ctx))
            label { "Rate " input name="rate" maxlength="40" placeholder="100/1m" value=[text] required; }
            label { "Burst " input type="number" name="burst" min="1" value=(rate.map_or(1, |rate| rate.burst_size().get())) required; }
            label { "Reason " input name="why" maxlength="200" placeholder="bank API is back, ticket 4711"; }
            button type="submit" { "Set the rate in all processes" }
        }
    }
}

fn to(ctx: &RequestContext, info: &GroupInfo, action: &str) -> String {
    ctx.base.to(&["streams", &info.stream, "groups", &info.group, "limit", action])
}
