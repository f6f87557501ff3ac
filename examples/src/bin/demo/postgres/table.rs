//! Prints rows on the terminal, as `psql` does.

use sqlx::{AssertSqlSafe, Column, Row, ValueRef};

use super::place::Place;
use crate::AnyError;

/// Prints a query and its rows.
pub(crate) async fn show(place: &Place, query: &str) -> Result<(), AnyError> {
    let query = place.sql(query);
    println!("   {}", query.replace('\n', "\n   "));
    // The simple query protocol returns all values as text, whatever their types are.
    let rows = sqlx::raw_sql(AssertSqlSafe(query)).fetch_all(&place.pool).await?;
    let mut table = Vec::new();
    if let Some(first) = rows.first() {
        table.push(first.columns().iter().map(|column| column.name().to_owned()).collect());
    }
    for row in &rows {
        let cell = |place: usize| {
            let value = row.try_get_raw(place)?;
            if value.is_null() { Ok(String::new()) } else { value.as_str().map(str::to_owned) }
        };
        table.push((0..row.len()).map(cell).collect::<Result<Vec<_>, AnyError>>()?);
    }
    print!("{}", render(&table));
    Ok(())
}

/// A header and rows with the same number of cells, aligned.
fn render(table: &[Vec<String>]) -> String {
    let columns = table.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = table.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths = (0..columns).map(width).collect::<Vec<_>>();
    let mut text = String::new();
    for (number, row) in table.iter().enumerate() {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join(" | ");
        text.push_str(&format!("     {}\n", line.trim_end()));
        if number == 0 {
            let rules = widths.iter().map(|width| "-".repeat(width + 2)).collect::<Vec<_>>();
            text.push_str(&format!("    {}\n", rules.join("+")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let table = [row(["order_id", "cents"]), row(["o-1", "4950"])];
        let shown = render(&table);
        let lines = shown.lines().map(str::trim_start).collect::<Vec<_>>();
        assert_eq!(lines, ["order_id | cents", "----------+-------", "o-1      | 4950"]);
        assert_eq!(render(&[]), "");
    }
}
