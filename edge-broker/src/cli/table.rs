//! Text tables for people.

/// Rows under a heading, columns as wide as they need to be; a column that holds only numbers stands to the right.
pub(super) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.max().unwrap_or(0).max(heading[column].chars().count())
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let numeric: Vec<bool> = (0..heading.len())
        .map(|column| rows.iter().filter_map(|row| row.get(column)).all(|cell| is_number(cell)))
        .collect();
    let line = |cells: &[&str]| {
        let mut line = String::new();
        for (column, cell) in cells.iter().enumerate() {
            let width = widths[column];
            if numeric[column] {
                line.push_str(&format!("{cell:>width$}  "));
            } else {
                line.push_str(&format!("{cell:<width$}  "));
            }
        }
        line.trim_end().to_owned() + "\n"
    };
    let mut text = line(heading);
    for row in rows {
        let cells: Vec<&str> = row.iter().map(String::as_str).collect();
        text.push_str(&line(&cells));
    }
    text
}

/// Numbers, and what stands for one that is not known.
fn is_number(cell: &str) -> bool {
    cell.starts_with(|c: char| c.is_ascii_digit()) || cell == "-"
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn columns_line_up() {
        let rows =
            [vec!["mqtt".to_owned(), "7".to_owned()], vec!["x".to_owned(), "1200".to_owned()]];
        assert_eq!(table(&["topic", "end"], &rows), "topic   end\nmqtt      7\nx      1200\n");
        assert_eq!(table(&["a"], &[]), "a\n");
    }
}
