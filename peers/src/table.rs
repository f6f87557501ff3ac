//! The results as a Markdown table.

use crate::peers::{Failure, Peer};

/// The results of one peer in one scenario.
#[derive(Debug, Default)]
pub(crate) struct Cell {
    rates: Vec<f64>,
    failure: Option<String>,
}

impl Cell {
    pub(crate) fn add(&mut self, rate: Result<f64, Failure>) {
        match rate {
            Ok(rate) => self.rates.push(rate),
            Err(failure) => {
                let text = failure.to_string();
                self.failure = Some(text.split_whitespace().collect::<Vec<_>>().join(" "));
            }
        }
    }

    pub(crate) fn failed(&self) -> bool {
        self.failure.is_some()
    }

    fn text(&self) -> String {
        if self.failed() {
            return "failed".to_owned();
        }
        let mut rates = self.rates.clone();
        rates.sort_by(f64::total_cmp);
        match (rates.first(), rates.get(rates.len() / 2), rates.last()) {
            (Some(min), Some(median), Some(max)) => {
                format!("{} ({} to {})", grouped(*median), grouped(*min), grouped(*max))
            }
            _ => "-".to_owned(),
        }
    }
}

/// The results of all peers, one cell for each scenario.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) scenarios: Vec<&'static str>,
    pub(crate) rows: Vec<(Peer, Vec<Cell>)>,
}

impl Table {
    /// The table as Markdown. `version` returns the version of a package.
    pub(crate) fn text(&self, version: impl Fn(&str) -> &'static str) -> String {
        let columns = ["Jobs per second", "Crate"].into_iter().chain(self.scenarios.clone());
        let columns = columns.collect::<Vec<_>>();
        let mut lines = vec![line(&columns), line(&vec!["---"; columns.len()])];
        for (peer, cells) in &self.rows {
            let about = peer.about();
            let mut words = vec![
                about.name.to_owned(),
                format!("{} {}", about.package, version(about.package)),
            ];
            words.extend(cells.iter().map(Cell::text));
            lines.push(line(&words));
        }
        lines.push(String::new());
        lines.extend(self.failures());
        for (peer, _) in &self.rows {
            let about = peer.about();
            lines.push(format!(
                "- {}. Settings: {}. Guarantee: {}.",
                about.name, about.settings, about.guarantee
            ));
        }
        lines.join("\n")
    }

    /// A line for each cell that failed.
    fn failures(&self) -> impl Iterator<Item = String> {
        self.rows.iter().flat_map(|(peer, cells)| {
            self.scenarios.iter().zip(cells).filter_map(|(scenario, cell)| {
                let failure = cell.failure.as_ref()?;
                Some(format!("- {} failed at {scenario}: {failure}", peer.about().name))
            })
        })
    }
}

fn line(words: &[impl AsRef<str>]) -> String {
    let words = words.iter().map(AsRef::as_ref).collect::<Vec<_>>();
    format!("| {} |", words.join(" | "))
}

/// A number with commas between thousands.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
