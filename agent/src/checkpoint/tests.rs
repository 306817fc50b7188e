//! Whatever happens to the end of the journal, everything before it comes back.

use ebb_types::{
    AgentId, CommandInfo, ContainerId, ExecutorId, ExecutorInfo, ExitStatus, FrameworkId,
    Generation, Quantities, Resources, Source, TaskId, TaskInfo, TaskState, TaskStatus, Timestamp,
    UpdateUuid,
};

use super::journal::Journal;
use super::*;
use crate::core::{EndCause, Ending, ExecutorRecord, Record, Restored, TaskRecord};

fn framework() -> FrameworkId {
    FrameworkId::new("f").unwrap()
}

fn status(state: TaskState, count: u64) -> TaskStatus {
    let now = Timestamp::from_ms(7_000 + count);
    let mut status = TaskStatus::new(TaskId::new("t").unwrap(), state, Source::Agent, now);
    status.uuid = Some(UpdateUuid::of(Incarnation(3), count));
    status.exit = state.is_terminal().then_some(ExitStatus::Signal(9));
    status
}

/// A life with every kind of record.
fn records() -> Vec<Record> {
    let info = TaskInfo {
        task_id: TaskId::new("t").unwrap(),
        name: "täsk".to_owned(),
        agent_id: AgentId::new("a").unwrap(),
        lots: ebb_types::Lots::NONE,
        resources: Resources::regular(Quantities::cpus_mem(1, 2)),
        command: Some(CommandInfo {
            value: "echo".to_owned(),
            arguments: vec!["echo".to_owned(), "1".to_owned()],
            environment: vec![("A".to_owned(), "b".to_owned())],
            ..CommandInfo::default()
        }),
        executor: None,
        kill_grace_ms: Some(5),
        warn_signal: Some(10),
        max_completion_ms: None,
        cpu_limit_milli: None,
        data: vec![1, 2, 3],
        labels: Vec::new(),
    };
    let task = TaskRecord {
        framework_id: framework(),
        user: "nobody".to_owned(),
        info,
        container_id: ContainerId::new("c").unwrap(),
        state: TaskState::Staging,
        started_at: None,
        ending: None,
        updates: Vec::new(),
        gpus: vec![0, 3],
    };
    let executor = ExecutorRecord {
        framework_id: framework(),
        user: String::new(),
        info: ExecutorInfo {
            executor_id: ExecutorId::new("e").unwrap(),
            name: String::new(),
            command: CommandInfo::default(),
            lots: ebb_types::Lots::NONE,
            resources: Resources::ZERO,
            data: Vec::new(),
        },
        container_id: ContainerId::new("d").unwrap(),
        started: true,
        ending: Some(Ending {
            cause: EndCause::AgentShutdown,
            forced_at: Timestamp::from_ms(1),
        }),
        gpus: Vec::new(),
    };
    let task_id = TaskId::new("t").unwrap();
    vec![
        Record::AgentId(AgentId::new("a").unwrap()),
        Record::Generation(Generation(4)),
        Record::Executor(Box::new(executor)),
        Record::Task(Box::new(task)),
        Record::Update {
            framework_id: framework(),
            status: status(TaskState::Running, 1),
        },
        Record::Ending {
            framework_id: framework(),
            task_id: task_id.clone(),
            ending: Ending {
                cause: EndCause::Evicted("why".to_owned()),
                forced_at: Timestamp::from_ms(9_000),
            },
        },
        Record::Update {
            framework_id: framework(),
            status: status(TaskState::Gone, 2),
        },
        Record::Acknowledged {
            framework_id: framework(),
            task_id: task_id.clone(),
            uuid: UpdateUuid::of(Incarnation(3), 1),
        },
        Record::ExecutorForgotten {
            framework_id: framework(),
            executor_id: ExecutorId::new("e").unwrap(),
        },
        Record::Forgotten {
            framework_id: framework(),
            task_id,
        },
    ]
}

/// What stands after the first `count` records.
fn after(count: usize) -> Restored {
    let mut restored = Restored::default();
    for record in records().into_iter().take(count) {
        restored.apply(record);
    }
    restored
}

#[test]
fn a_journal_that_is_cut_at_any_byte_gives_every_whole_batch_before_the_cut() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let mut journal = Journal::open(&path).unwrap().journal;
    let mut ends = vec![(journal.bytes(), 0)];
    for (index, record) in records().into_iter().enumerate() {
        journal.append(&[record]).unwrap();
        ends.push((journal.bytes(), index + 1));
    }
    let whole = fs::read(&path).unwrap();
    let mut torn = 0;
    for cut in 0..=whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let opened = Journal::open(&path).unwrap();
        let good = ends.iter().rev().find(|(end, _)| *end <= cut as u64);
        let count = good.map_or(0, |(_, count)| *count);
        assert_eq!(opened.restored, after(count), "cut at byte {cut}");
        torn += u64::from(opened.torn_bytes > 0);
        // What is written now must stand after it.
        let mut journal = opened.journal;
        journal
            .append(&[Record::Generation(Generation(99))])
            .unwrap();
        let again = Journal::open(&path).unwrap();
        assert_eq!(
            again.restored.generation,
            Generation(99),
            "cut at byte {cut}"
        );
        assert_eq!(again.torn_bytes, 0);
    }
    assert!(torn > 400, "only {torn} cuts tore a frame");
}

#[test]
fn a_journal_whose_middle_is_damaged_is_refused_with_the_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let mut journal = Journal::open(&path).unwrap().journal;
    for record in records() {
        journal.append(&[record]).unwrap();
    }
    let mut content = fs::read(&path).unwrap();
    content[20] ^= 1;
    fs::write(&path, &content).unwrap();
    let error = Journal::open(&path).unwrap_err();
    assert!(
        matches!(error, CheckpointError::Damaged { at: 8, .. }),
        "{error}"
    );
    fs::write(&path, "not a journal at all").unwrap();
    let sentence = Journal::open(&path).unwrap_err().to_string();
    assert!(sentence.contains("damaged at byte 0") && sentence.contains("backup"));
}

#[test]
fn a_rewritten_journal_says_the_same_and_takes_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let mut journal = Journal::open(&path).unwrap().journal;
    for _ in 0..20_000 {
        if journal.wants_compaction() {
            break;
        }
        journal.append(&records()[..7]).unwrap();
    }
    let before = journal.bytes();
    assert!(journal.wants_compaction(), "it never grew: {before} bytes");
    let restored = after(7);
    let mut snapshot = vec![
        Record::AgentId(restored.agent_id.clone().unwrap()),
        Record::Generation(restored.generation),
    ];
    snapshot.extend(
        restored
            .executors
            .values()
            .cloned()
            .map(|e| Record::Executor(Box::new(e))),
    );
    snapshot.extend(
        restored
            .tasks
            .values()
            .cloned()
            .map(|t| Record::Task(Box::new(t))),
    );
    journal.compact(&snapshot).unwrap();
    assert!(journal.bytes() < before / 100 && !journal.wants_compaction());
    journal.append(&records()[7..8]).unwrap();
    assert_eq!(Journal::open(&path).unwrap().restored, after(8));
}

#[test]
fn each_start_is_a_new_life_of_the_same_agent_and_two_at_once_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let first = WorkDir::open(folder.path()).unwrap();
    let identity = first.identity().clone();
    assert_eq!(identity.incarnation, Incarnation(1));
    let error = WorkDir::open(folder.path()).unwrap_err();
    assert!(error.to_string().contains("another agent uses"), "{error}");
    drop(first);
    let second = WorkDir::open(folder.path()).unwrap();
    assert_eq!(second.identity().instance, identity.instance);
    assert_eq!(second.identity().incarnation, Incarnation(2));
    drop(second);
    fs::write(folder.path().join("identity"), "nonsense").unwrap();
    assert!(matches!(
        WorkDir::open(folder.path()),
        Err(CheckpointError::Damaged { .. })
    ));
}

#[test]
fn a_folder_that_cannot_be_written_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let sentence = WorkDir::open(&file.join("below")).unwrap_err().to_string();
    assert!(sentence.contains("--work-dir"), "{sentence}");
}

#[tokio::test]
async fn the_writer_makes_everything_durable_in_order_and_rewrites_a_journal_that_has_grown() {
    use super::writer::Writer;
    use crate::metrics::Metrics;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let journal = Journal::open(&path).unwrap().journal;
    let mut writer = Writer::start(journal, std::sync::Arc::new(Metrics::new())).unwrap();
    let mut progress = writer.progress();
    let mut last = 0;
    let mut rewritten = 0;
    for count in 1..=60_000 {
        last = writer
            .append(vec![
                Record::Generation(Generation(count)),
                records()[3].clone(),
                records()[4].clone(),
            ])
            .unwrap();
        if progress.borrow_and_update().wants_rewriting && rewritten == 0 {
            rewritten = count;
            writer
                .rewrite(vec![Record::Generation(Generation(count))])
                .unwrap();
        }
        if count % 100 == 0 {
            progress
                .wait_for(|progress| progress.durable >= last)
                .await
                .unwrap();
        }
    }
    progress
        .wait_for(|progress| progress.durable == last)
        .await
        .unwrap();
    writer.finish();
    assert!(rewritten > 0, "it never grew");
    let restored = Journal::open(&path).unwrap().restored;
    assert_eq!(restored.generation, Generation(60_000));
    assert_eq!(restored.tasks.len(), 1);
}
