//! `ebb logs`: what a task wrote, from its agent.

use std::collections::VecDeque;

use crate::args::LogsArgs;
use crate::client::Master;
use crate::error::{CliError, EXIT_OK};
use crate::find;
use crate::output::Out;
use crate::output::stream::Stream;
use crate::output::table::clean;
use crate::sandbox::{FileOf, Reader, Sandboxes};

/// Most bytes of last lines that are kept in memory for `--tail`; earlier lines of them are dropped.
const MAX_TAIL_BYTES: usize = 64 * 1024 * 1024;

pub(crate) async fn perform(args: &LogsArgs, out: &mut Out) -> Result<u8, CliError> {
    let mut master = Master::connect(&args.client.master).await?;
    let state = master.state().await?;
    let task = find::task(&state, &args.task)?;
    let agent = state.agents.iter().find(|agent| agent.id == task.agent_id);
    let agent = agent.ok_or_else(|| {
        CliError::Failed(format!(
            "agent {} that ran task {} is gone, and with it what the task wrote",
            task.agent_id,
            clean(task.task_id.as_str())
        ))
    })?;
    let file = FileOf {
        framework_id: task.framework_id.clone(),
        task_id: task.task_id.clone(),
        path: if args.stderr { "stderr" } else { "stdout" },
    };
    let mut sandboxes = Sandboxes::connect(&agent.id, &agent.info).await?;
    let mut stream = Stream::new(file.path);
    let mut offset = 0;
    if let Some(lines) = args.tail {
        let mut reader = sandboxes.read(&file, 0, false).await?;
        let tail = last_lines(&mut reader, lines).await?;
        offset = reader.offset();
        stream.put(out, &tail)?;
        if !args.follow {
            stream.finish(out)?;
            return Ok(EXIT_OK);
        }
    }
    let mut reader = sandboxes.read(&file, offset, args.follow).await?;
    while let Some(bytes) = reader.next().await? {
        stream.put(out, &bytes)?;
    }
    stream.finish(out)?;
    Ok(EXIT_OK)
}

async fn last_lines(reader: &mut Reader, lines: u32) -> Result<Vec<u8>, CliError> {
    let mut tail = Tail::new(lines);
    while let Some(bytes) = reader.next().await? {
        tail.push(&bytes);
    }
    Ok(tail.into_bytes())
}

/// The last lines of what was pushed.
#[derive(Debug)]
struct Tail {
    lines: usize,
    bytes: VecDeque<u8>,
    newlines: usize,
}

impl Tail {
    fn new(lines: u32) -> Self {
        Self {
            lines: usize::try_from(lines).unwrap_or(usize::MAX),
            bytes: VecDeque::new(),
            newlines: 0,
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.newlines += bytes.iter().filter(|byte| **byte == b'\n').count();
        self.bytes.extend(bytes);
        // A last line without its newline counts too.
        while self.line_count() > self.lines || self.bytes.len() > MAX_TAIL_BYTES {
            let end = self.bytes.iter().position(|byte| *byte == b'\n');
            let cut = end.map_or(self.bytes.len(), |end| end + 1);
            self.newlines -= usize::from(end.is_some());
            self.bytes.drain(..cut);
        }
    }

    fn line_count(&self) -> usize {
        let open = self.bytes.back().is_some_and(|byte| *byte != b'\n');
        self.newlines + usize::from(open)
    }

    fn into_bytes(self) -> Vec<u8> {
        self.bytes.into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_tail_is_what_splitting_the_whole_would_give(
            chunks in prop::collection::vec("[ab\n]{0,8}", 0..8),
            lines in 0..5_u32,
        ) {
            let mut tail = Tail::new(lines);
            chunks.iter().for_each(|chunk| tail.push(chunk.as_bytes()));
            let whole = chunks.concat();
            let all: Vec<&str> = whole.split_inclusive('\n').collect();
            let expected = all[all.len().saturating_sub(lines as usize)..].concat();
            prop_assert_eq!(String::from_utf8(tail.into_bytes()), Ok(expected));
        }
    }
}
