//! Where exported records go, in one of the formats.

use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::Path;

use edge_log::{BatchRef, RecordRef};
use edge_wire::HeadersView;

use super::Wanted;
use super::source::Part;
use crate::card_args::ExportFormat;
use crate::cli::Failure;
use crate::cli::record_json::{NamedValue, RecordJson, base64, headers_json};

const BUFFER_BYTES: usize = 256 << 10;
const CSV_COLUMNS: &str =
    "topic,partition,offset,timestamp_ms,key,key_base64,value,value_base64,headers\r\n";

/// Records on their way out.
pub(super) struct Sink {
    format: ExportFormat,
    out: BufWriter<Box<dyn Write>>,
    /// For what is wrong with it.
    name: String,
    file: Option<File>,
    batch: Vec<u8>,
}

/// What became of a batch.
pub(super) struct Written {
    pub(super) records: u64,
    /// The producer's own compression cannot be unpacked.
    pub(super) unreadable: Option<String>,
}

impl Sink {
    /// A file with its folders, or standard output.
    pub(super) fn open(format: ExportFormat, path: Option<&Path>) -> Result<Self, Failure> {
        let name =
            path.map_or_else(|| "standard output".to_owned(), |path| path.display().to_string());
        let failed = |error: io::Error| {
            Failure::Usage(format!("{name}: {error}; name another file with --out"))
        };
        let (out, file): (Box<dyn Write>, _) = match path {
            Some(path) => {
                if let Some(folder) = path.parent() {
                    fs::create_dir_all(folder).map_err(failed)?;
                }
                let file = File::create(path).map_err(failed)?;
                let kept = file.try_clone().map_err(failed)?;
                (Box::new(file), Some(kept))
            }
            None => (Box::new(io::stdout()), None),
        };
        let out = BufWriter::with_capacity(BUFFER_BYTES, out);
        let mut sink = Self { format, out, name, file, batch: Vec::new() };
        if format == ExportFormat::Csv {
            sink.put(CSV_COLUMNS.as_bytes())?;
        }
        Ok(sink)
    }

    /// Writes what is wanted of a batch.
    pub(super) fn write(
        &mut self,
        part: &Part,
        batch: &BatchRef<'_>,
        wanted: &Wanted,
    ) -> Result<Written, Failure> {
        if self.format == ExportFormat::Batches {
            return self.write_batch(batch, wanted);
        }
        let (mut records, mut failed) = (0, Ok(()));
        let unpacked = batch.for_each_record(&mut |record| {
            if failed.is_ok() && wanted.record(record.offset, record.timestamp_ms) {
                failed = self.write_record(part, &record);
                records += 1;
            }
        });
        failed?;
        let unreadable = unpacked.err().map(|error| error.to_string());
        Ok(Written { records, unreadable })
    }

    fn write_batch(&mut self, batch: &BatchRef<'_>, wanted: &Wanted) -> Result<Written, Failure> {
        // A base timestamp is the first record's, which need not be the least: only the highest counts.
        let since = wanted.since.is_none_or(|since| batch.max_timestamp_ms() >= since);
        let until = wanted
            .until
            .is_none_or(|until| batch.base_timestamp_ms().min(batch.max_timestamp_ms()) < until);
        if !(since && until) {
            return Ok(Written { records: 0, unreadable: None });
        }
        let mut bytes = std::mem::take(&mut self.batch);
        bytes.clear();
        batch.write_record_batch(&mut bytes);
        let put = self.put(&bytes);
        self.batch = bytes;
        put?;
        Ok(Written { records: u64::from(batch.count()), unreadable: None })
    }

    fn write_record(&mut self, part: &Part, record: &RecordRef<'_>) -> Result<(), Failure> {
        // Checked when the record was stored.
        let headers = HeadersView::parse(record.headers_section).unwrap_or(HeadersView::empty());
        let headers = headers.iter().map(|header| (header.key, header.value));
        let place = (record.offset.0, record.timestamp_ms);
        let line = if self.format == ExportFormat::Csv {
            csv_line(part, place, record, headers)
        } else {
            let json = RecordJson::from_parts(
                &part.topic,
                part.partition,
                place,
                record.key,
                record.value,
                headers,
            );
            let text = serde_json::to_string(&json);
            text.map_err(|error| Failure::Failed(format!("cannot write JSON: {error}")))? + "\n"
        };
        self.put(line.as_bytes())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).map_err(|error| failure(&self.name, &error))
    }

    /// Everything is on its way; a file is on the disk.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(|error| failure(&self.name, &error))?;
        if let Some(file) = &self.file {
            file.sync_all().map_err(|error| failure(&self.name, &error))?;
        }
        Ok(())
    }
}

fn failure(name: &str, error: &io::Error) -> Failure {
    match error.kind() {
        ErrorKind::BrokenPipe => Failure::ReaderGone,
        _ => Failure::Failed(format!("cannot write to {name}: {error}")),
    }
}

fn csv_line<'a>(
    part: &Part,
    (offset, timestamp_ms): (u64, i64),
    record: &RecordRef<'_>,
    headers: impl Iterator<Item = NamedValue<'a>>,
) -> String {
    let mut line = format!("{},{},{offset},{timestamp_ms},", part.topic, part.partition);
    for content in [record.key, record.value] {
        match content.map(std::str::from_utf8) {
            None => line.push(','),
            Some(Ok(text)) => {
                quote(&mut line, text);
                line.push(',');
            }
            Some(Err(_)) => {
                line.push(',');
                line.push_str(&base64(content.unwrap_or_default()));
            }
        }
        line.push(',');
    }
    quote(&mut line, &headers_json(headers));
    line.push_str("\r\n");
    line
}

/// A field in quotes, quotes in it doubled.
fn quote(line: &mut String, text: &str) {
    line.push('"');
    line.push_str(&text.replace('"', "\"\""));
    line.push('"');
}

#[cfg(test)]
mod tests {
    use edge_wire::{Offset, StreamId};

    use super::*;

    #[test]
    fn csv_tells_null_from_empty_and_bytes_from_text() {
        let part = Part::for_test("t", 3, StreamId(1));
        let line = |key: Option<&[u8]>, value: Option<&[u8]>| {
            let record = RecordRef {
                offset: Offset(7),
                timestamp_ms: -5,
                key,
                headers_section: &[0],
                value,
            };
            csv_line(&part, (7, -5), &record, std::iter::once(("h", Some(&b"1\"2"[..]))))
        };
        let headers = r#""[{""name"":""h"",""value"":""1\""2""}]""#;
        assert_eq!(line(None, Some(b"")), format!("t,3,7,-5,,,\"\",,{headers}\r\n"));
        assert_eq!(
            line(Some(b"a,\"b\"\r\nc"), Some(b"\xff")),
            format!("t,3,7,-5,\"a,\"\"b\"\"\r\nc\",,,/w==,{headers}\r\n")
        );
    }
}
