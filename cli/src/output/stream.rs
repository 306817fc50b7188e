//! The output of tasks: bytes as they are, or, with `--json`, lines of JSON.
//!
//! The problem: pieces end anywhere, also within a character. The invariant: the texts of all pieces
//! together are the lossy UTF-8 reading of all bytes together; a cut character waits for its rest.

use std::io::{self, Write};

use serde::Serialize;

use super::Out;

/// A piece of output as JSON; bytes that are no UTF-8 are replaced.
#[derive(Debug, Serialize)]
struct OutputJson<'a> {
    event: &'static str,
    stream: &'static str,
    text: &'a str,
}

/// One stream of a task's output.
#[derive(Debug)]
pub(crate) struct Stream {
    name: &'static str,
    pending: Vec<u8>,
}

impl Stream {
    /// The stream of that name, `stdout` or `stderr`.
    pub(crate) const fn new(name: &'static str) -> Self {
        Self {
            name,
            pending: Vec::new(),
        }
    }

    /// Prints a piece on standard output.
    pub(crate) fn put(&mut self, out: &mut Out, bytes: &[u8]) -> io::Result<()> {
        if out.json {
            let text = self.text(bytes);
            self.json(out, &text)
        } else {
            out.raw(bytes)
        }
    }

    /// Prints a piece on the stream of the same name of this process.
    pub(crate) fn put_on_own(&mut self, out: &mut Out, bytes: &[u8]) -> io::Result<()> {
        if out.json || self.name != "stderr" {
            return self.put(out, bytes);
        }
        let mut stderr = io::stderr().lock();
        stderr.write_all(bytes)?;
        stderr.flush()
    }

    /// Prints what is left of a cut character.
    pub(crate) fn finish(&mut self, out: &mut Out) -> io::Result<()> {
        let rest = std::mem::take(&mut self.pending);
        self.json(out, &String::from_utf8_lossy(&rest))
    }

    fn json(&self, out: &mut Out, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        out.json_line(&OutputJson {
            event: "output",
            stream: self.name,
            text,
        })
    }

    /// What of the bytes so far is whole characters.
    fn text(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let cut = match std::str::from_utf8(&self.pending) {
            Ok(_) => self.pending.len(),
            Err(_) => self.pending.len() - open_bytes(&self.pending),
        };
        let rest = self.pending.split_off(cut);
        let whole = std::mem::replace(&mut self.pending, rest);
        String::from_utf8_lossy(&whole).into_owned()
    }
}

/// How many bytes at the end are the beginning of a character that is not whole.
fn open_bytes(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let tail = &bytes[bytes.len() - back..];
        match std::str::from_utf8(tail) {
            Err(error) if error.valid_up_to() == 0 && error.error_len().is_none() => return back,
            _ => {}
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_read_as_the_whole_does(
            text in "[aü€😀]{0,12}",
            noise in prop::collection::vec(any::<u8>(), 0..4),
            size in 1..5_usize,
        ) {
            for bytes in [text.as_bytes().to_vec(), [noise, text.into_bytes()].concat()] {
                let mut stream = Stream::new("stdout");
                let mut read: String = bytes.chunks(size).map(|piece| stream.text(piece)).collect();
                read.push_str(&String::from_utf8_lossy(&stream.pending));
                prop_assert_eq!(read, String::from_utf8_lossy(&bytes));
            }
        }
    }
}
