//! Parts that several pages show of a group: the link to its page, its state, its backlog, and a
//! sparkline.

use maud::{Markup, html};
use streamjobs::doctor::Severity;
use streamjobs::stream::Problem;

use crate::base::Base;
use crate::format;
use crate::snapshot::GroupSnapshot;

/// The address of the page of a group.
pub(crate) fn link(base: &Base, stream: &str, group: &str) -> String {
    base.to(&["streams", stream, "groups", group])
}

/// The number of waiting entries, marked if it is a lower bound.
pub(crate) fn backlog(group: &GroupSnapshot) -> Markup {
    let backlog = group.info.backlog;
    html! {
        @if !backlog.exact { span title="A lower bound: this server does not report the exact number." { "≥ " } }
        (format::count(backlog.entries))
    }
}

/// The group's worst problem as a short label. The banner has the full text.
pub(crate) fn state_of(group: &GroupSnapshot) -> Markup {
    let Some(worst) = group.diagnosis.problems.first() else {
        return html! { span.state { "healthy" } };
    };
    let word = match worst {
        Problem::TooFewConsumers { .. } => "too few consumers",
        Problem::DeadConsumer { .. } => "recovering",
        Problem::TrimmedUnread { .. } => "lost entries",
        Problem::NotReading { .. } => "not reading",
        Problem::NotAcknowledging { .. } => "not acknowledging",
        Problem::DeadLetters { .. } => "new dead letters",
        other => other.as_str(),
    };
    let kind = if worst.severity() == Severity::Critical { "bad" } else { "warn" };
    html! { span class={ "state " (kind) } { (word) } }
}

/// A sparkline of the recent rates.
#[expect(clippy::cast_precision_loss, reason = "the image is 110 pixels wide")]
pub(crate) fn spark(rates: &[f64]) -> Markup {
    let most = rates.iter().copied().fold(0.0_f64, f64::max);
    let last = rates.len().saturating_sub(1).max(1);
    let points = rates.iter().enumerate().map(|(index, rate)| {
        let x = index as f64 * 108.0 / last as f64 + 1.0;
        let y = if most > 0.0 { (rate / most).mul_add(-22.0, 24.0) } else { 24.0 };
        format!("{x:.1},{y:.1}")
    });
    let points = points.collect::<Vec<_>>().join(" ");
    html! {
        @if rates.len() < 2 {
            span.soft title="No history yet. It is recorded while a page is open." { "–" }
        } @else {
            svg.spark viewBox="0 0 110 26" role="img" {
                title { "maximum " (format::rate(most)) }
                polyline points=(points) {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_has_a_point_for_each_rate_within_its_box() {
        let drawn = spark(&[0.0, 5.0, 10.0]).into_string();
        assert!(drawn.contains("points=\"1.0,24.0 55.0,13.0 109.0,2.0\""), "{drawn}");
        assert!(spark(&[0.0, 0.0]).into_string().contains("1.0,24.0 109.0,24.0"));
        assert!(!spark(&[3.0]).into_string().contains("svg"));
    }
}
