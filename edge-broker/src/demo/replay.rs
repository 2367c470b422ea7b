//! `--replay FILE.csv`: rows of a table become telemetry.
//!
//! The delimiter is the comma, semicolon or tab that the first line has most of, else white space. A first line
//! with a field that is no number is the header; without one the columns are `c1`, `c2`, ... Fields that are
//! numbers stay numbers. Empty trailing fields are dropped. Limit: 64 KiB a line.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::Path;

use serde_json::{Map, Number, Value};

const LINE_BYTES_MAX: u64 = 64 * 1024;

/// Reads rows one at a time.
pub(crate) struct Replay {
    lines: BufReader<File>,
    name: String,
    delimiter: Option<char>,
    columns: Vec<String>,
    first_row: Option<Vec<String>>,
    line: String,
}

impl Replay {
    /// Opens a table and reads its first line.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut lines = BufReader::new(File::open(path)?);
        let stem = path.file_stem().map_or_else(|| "table".into(), |stem| stem.to_string_lossy());
        let name = stem.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
        let mut line = String::new();
        read_line(&mut lines, &mut line)?;
        let delimiter = [',', ';', '\t']
            .into_iter()
            .map(|c| (line.matches(c).count(), c))
            .max()
            .filter(|(count, _)| *count > 0)
            .map(|(_, c)| c);
        let first = split(&line, delimiter);
        if first.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the first line is empty"));
        }
        let is_header = first.iter().any(|field| field.parse::<f64>().is_err());
        let (columns, first_row) = if is_header {
            (first, None)
        } else {
            ((1..=first.len()).map(|index| format!("c{index}")).collect(), Some(first))
        };
        Ok(Self { lines, name, delimiter, columns, first_row, line })
    }

    /// Name of the file without its ending, fit for a topic level.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The next row as a JSON object with `device` and `seq` in front, or `None` at the end.
    pub(crate) fn next(&mut self, sequence: u64) -> io::Result<Option<String>> {
        let fields = match self.first_row.take() {
            Some(fields) => fields,
            None => loop {
                if !read_line(&mut self.lines, &mut self.line)? {
                    return Ok(None);
                }
                let fields = split(&self.line, self.delimiter);
                if !fields.is_empty() {
                    break fields;
                }
            },
        };
        let mut object = Map::new();
        object.insert("device".into(), Value::from(self.name.clone()));
        object.insert("seq".into(), Value::from(sequence));
        for (index, field) in fields.into_iter().enumerate() {
            let column =
                self.columns.get(index).cloned().unwrap_or_else(|| format!("c{}", index + 1));
            object.insert(column, value_of(field));
        }
        Ok(Some(Value::Object(object).to_string()))
    }
}

fn value_of(field: String) -> Value {
    if let Ok(whole) = field.parse::<i64>() {
        return Value::from(whole);
    }
    match field.parse::<f64>().ok().and_then(Number::from_f64) {
        Some(number) => Value::Number(number),
        None => Value::String(field),
    }
}

fn split(line: &str, delimiter: Option<char>) -> Vec<String> {
    let line = line.trim_end();
    match delimiter {
        Some(c) => {
            let mut fields: Vec<String> =
                line.split(c).map(|field| field.trim().trim_matches('"').to_owned()).collect();
            while fields.last().is_some_and(String::is_empty) {
                fields.pop();
            }
            fields
        }
        None => line.split_whitespace().map(str::to_owned).collect(),
    }
}

fn read_line(lines: &mut BufReader<File>, line: &mut String) -> io::Result<bool> {
    line.clear();
    let count = lines.by_ref().take(LINE_BYTES_MAX).read_line(line)?;
    if count as u64 == LINE_BYTES_MAX && !line.ends_with('\n') {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is longer than 64 KiB"));
    }
    // A byte order mark belongs to no column.
    if line.starts_with('\u{feff}') {
        line.remove(0);
    }
    Ok(count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Vec<Value> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("my file.csv");
        std::fs::write(&path, text).unwrap();
        let mut replay = Replay::open(&path).unwrap();
        let mut rows = Vec::new();
        while let Some(row) = replay.next(rows.len() as u64).unwrap() {
            rows.push(serde_json::from_str(&row).unwrap());
        }
        rows
    }

    #[test]
    fn a_header_names_the_columns() {
        let rows = rows("\u{feff}UID,Type,Torque [Nm]\n1,M,42.8\n2,L,46.3\n");
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0]["UID"], 1);
        assert_eq!(rows[0]["Type"], "M");
        assert_eq!(rows[1]["Torque [Nm]"], 46.3);
        assert_eq!(rows[1]["seq"], 1);
        assert_eq!(rows[0]["device"], "my-file");
    }

    #[test]
    fn white_space_tables_without_a_header_get_numbered_columns() {
        let rows = rows("1 1 -0.0007  \n1 2 0.0019  \n");
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[1]["c2"], 2);
        assert_eq!(rows[0]["c3"], -0.0007);
    }
}
