//! The command that appends an entry, written straight into the buffer that is sent.

use std::ops::Range;

use redis::{Cmd, Pipeline};

use crate::model::config::Retention;
use crate::model::name::StreamName;
use crate::store::NewEntry;
use crate::store::redis::net::Request;

/// A command for each of these entries.
pub(super) struct Appends<'a> {
    pub(super) stream: &'a StreamName,
    pub(super) retention: Retention,
    pub(super) entries: &'a [NewEntry],
}

impl Appends<'_> {
    /// What the retention adds to the command.
    fn limit(&self) -> Option<(&'static str, u64)> {
        match self.retention {
            Retention::MaxLen(entries) => Some(("~", entries.get())),
            Retention::MaxLenExact(entries) => Some(("=", entries.get())),
            Retention::History(_) | Retention::MaxAge(_) | Retention::Unlimited => None,
        }
    }

    /// Writes the words that precede those of an entry.
    fn begin(&self, out: &mut Vec<u8>) {
        write_word(out, XADD.as_bytes());
        write_word(out, self.stream.as_str().as_bytes());
        if let Some((kind, entries)) = self.limit() {
            write_word(out, MAXLEN.as_bytes());
            write_word(out, kind.as_bytes());
            write_word(out, itoa::Buffer::new().format(entries).as_bytes());
        }
        write_word(out, b"*");
    }

    fn command(&self, entry: &NewEntry) -> Cmd {
        let mut command = redis::cmd(XADD);
        command.arg(self.stream.as_str());
        if let Some((kind, entries)) = self.limit() {
            command.arg(MAXLEN).arg(kind).arg(entries);
        }
        command.arg("*");
        for (name, value) in entry {
            command.arg(name.as_ref()).arg(value.as_ref());
        }
        command
    }
}

impl Request for Appends<'_> {
    fn count(&self) -> usize {
        self.entries.len()
    }

    fn bytes(&self) -> usize {
        self.entries.iter().map(bytes_of).sum()
    }

    fn write(&self, out: &mut Vec<u8>) {
        let words = if self.limit().is_some() { 6 } else { 3 };
        let stream_bytes = self.stream.as_str().len();
        out.reserve(self.bytes() + self.entries.len() * (stream_bytes + COMMAND_BYTES));
        // Where the words are that all commands begin with.
        let mut beginning = None;
        for entry in self.entries {
            write_length(out, b'*', words + 2 * entry.len());
            match &beginning {
                Some(written) => out.extend_from_within(Range::clone(written)),
                None => {
                    let from = out.len();
                    self.begin(out);
                    beginning = Some(from..out.len());
                }
            }
            for (name, value) in entry {
                write_word(out, name);
                write_word(out, value);
            }
        }
    }

    fn pipeline(&self) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(self.entries.len());
        for entry in self.entries {
            pipeline.add_command(self.command(entry));
        }
        pipeline
    }
}

fn write_length(out: &mut Vec<u8>, kind: u8, length: usize) {
    match u8::try_from(length) {
        Ok(digit @ 0..=9) => out.extend_from_slice(&[kind, b'0' + digit, b'\r', b'\n']),
        Ok(short @ 10..=99) => {
            let digits = [b'0' + short / 10, b'0' + short % 10];
            out.extend_from_slice(&[kind, digits[0], digits[1], b'\r', b'\n']);
        }
        _ => {
            out.push(kind);
            out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

fn write_word(out: &mut Vec<u8>, word: &[u8]) {
    write_length(out, b'$', word.len());
    out.extend_from_slice(word);
    out.extend_from_slice(b"\r\n");
}

/// How many bytes of names and values an entry has.
pub(super) fn bytes_of(entry: &NewEntry) -> usize {
    entry.iter().map(|(name, value)| name.len() + value.len()).sum()
}

pub(super) const XADD: &str = "XADD";
const MAXLEN: &str = "MAXLEN";
/// How many bytes a command with a few fields has besides its words.
const COMMAND_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    fn packed(retention: Retention) -> String {
        let stream = StreamName::new("orders").unwrap();
        let entries = [
            vec![("type".into(), "a".into()), ("data".into(), "x".repeat(12).into())],
            vec![("type".into(), "".into()), ("data".into(), "x".repeat(1234).into())],
            vec![],
        ];
        let appends = Appends { stream: &stream, retention, entries: &entries };
        let mut written = Vec::new();
        appends.write(&mut written);
        assert_eq!(written, appends.pipeline().get_packed_pipeline(), "as the client crate does");
        assert_eq!(appends.count(), 3);
        String::from_utf8(written).unwrap()
    }

    #[test]
    fn only_retention_that_belongs_to_appending_is_sent() {
        let max = NonZeroU64::new(7).unwrap();
        let limit = |kind| format!("MAXLEN\r\n$1\r\n{kind}\r\n$1\r\n7\r\n$1\r\n*");
        assert!(packed(Retention::MaxLen(max)).contains(&limit("~")));
        assert!(packed(Retention::MaxLenExact(max)).contains(&limit("=")));
        assert!(!packed(Retention::History(max)).contains("MAX"));
    }
}
