//! A picture of the ratios, for the docs.

use std::fmt::Write as _;

use serde_json::Value;

const NAME: usize = 230;
const WIDTH: usize = 400;
const ROW: usize = 26;
/// The ratio at the right edge.
const RATIO_MAX: f64 = 2.0;

/// Bars: how the framework's rate stands to that of the loop by hand, which is the line at 1.
pub fn svg(rows: &[Value]) -> String {
    let bars =
        rows.iter().filter_map(|row| Some((row["name"].as_str()?, row["ratio"]["rate"].as_f64()?)));
    let bars = bars.collect::<Vec<_>>();
    let (width, height) = (NAME + WIDTH + 60, bars.len() * ROW + 40);
    let mut picture = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    for (place, (name, ratio)) in bars.iter().enumerate() {
        let y = place * ROW + 10;
        let length = (ratio.min(RATIO_MAX) / RATIO_MAX * WIDTH as f64) as usize;
        let color = if *ratio >= 0.95 { "#2a7f62" } else { "#b3672b" };
        let _ = writeln!(
            picture,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{name}</text>\
             <rect x=\"{NAME}\" y=\"{y}\" width=\"{length}\" height=\"16\" fill=\"{color}\"/>\
             <text x=\"{}\" y=\"{}\">{ratio:.2}</text>",
            NAME - 8,
            y + 13,
            NAME + length + 6,
            y + 13
        );
    }
    let (one, bottom) = (NAME + (WIDTH as f64 / RATIO_MAX) as usize, bars.len() * ROW + 10);
    let _ = writeln!(
        picture,
        "<line x1=\"{one}\" x2=\"{one}\" y1=\"4\" y2=\"{bottom}\" stroke=\"#555\"/>\
         <text x=\"{one}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555\">by hand = 1</text>\n</svg>",
        bottom + 18
    );
    picture
}
