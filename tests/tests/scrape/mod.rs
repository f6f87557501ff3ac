//! What a scrape of this process says, and whether the documentation says the same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::OnceLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// The recorder of this process.
pub fn recorder() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let builder = PrometheusBuilder::new().set_buckets(&[0.005, 0.1, 1.0, 10.0]).unwrap();
        builder.install_recorder().unwrap()
    })
}

/// What a scrape says.
pub struct Scrape {
    /// The type of each metric.
    types: BTreeMap<String, String>,
    /// Each series: name, labels, value.
    series: Vec<(String, BTreeMap<String, String>, f64)>,
}

impl Scrape {
    pub fn take() -> Self {
        Self::parse(&recorder().render())
    }

    fn parse(text: &str) -> Self {
        let (mut types, mut series) = (BTreeMap::new(), Vec::new());
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(declared) = line.strip_prefix("# TYPE ") {
                let (name, kind) = declared.split_once(' ').unwrap();
                types.insert(name.to_owned(), kind.to_owned());
            }
            if line.starts_with('#') {
                continue;
            }
            let (name, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = name.split_once('{').unwrap_or((name, "}"));
            let labels = labels.trim_end_matches('}').split(',').filter_map(|label| {
                let (name, value) = label.split_once('=')?;
                Some((name.to_owned(), value.trim_matches('"').to_owned()))
            });
            series.push((name.to_owned(), labels.collect(), value.parse().unwrap()));
        }
        Self { types, series }
    }

    /// The sum over all series of that name with these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let matching = self.series.iter().filter(|(of, have, _)| {
            let has = |(name, value): &(&str, &str)| have.get(*name).is_some_and(|is| is == value);
            of == name && labels.iter().all(has)
        });
        matching.map(|(_, _, value)| *value as u64).sum()
    }

    /// Whether a page lists the metrics of these prefixes with their types and labels, and no
    /// others.
    pub fn agrees_with(&self, page: &str, prefixes: &[&str]) {
        let documented = documented(page, prefixes);
        let ours = |name: &&String| prefixes.iter().any(|prefix| name.starts_with(prefix));
        let names = self.types.keys().filter(ours).collect::<Vec<_>>();
        assert_eq!(names, documented.keys().collect::<Vec<_>>());
        for (name, (kind, labels)) in &documented {
            assert_eq!(&self.types[name], kind, "{name}");
            let parts = ["", "_count", "_sum", "_bucket"].map(|part| format!("{name}{part}"));
            let mut used = BTreeSet::new();
            for (_, have, _) in self.series.iter().filter(|(of, ..)| parts.contains(of)) {
                used.extend(have.keys().filter(|label| *label != "le").cloned());
            }
            assert_eq!(&used, labels, "{name}");
        }
    }
}

/// The rows of a page that tell of metrics of these prefixes: type and labels.
fn documented(page: &str, prefixes: &[&str]) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(page);
    let text = std::fs::read_to_string(path).unwrap();
    let of_ours = |line: &&str| {
        let name = line.strip_prefix("| `");
        name.is_some_and(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
    };
    let cells = |line| str::split(line, '|').map(str::trim).collect::<Vec<_>>();
    let header = text.lines().find(|line| line.starts_with("| Metric |")).unwrap();
    let column = cells(header).iter().position(|cell| *cell == "Labels").unwrap();
    let row = |line| {
        let cells = cells(line);
        let labels = cells[column].split('`').skip(1).step_by(2).map(str::to_owned);
        (cells[1].trim_matches('`').to_owned(), (cells[2].to_owned(), labels.collect()))
    };
    text.lines().filter(of_ours).map(row).collect()
}
