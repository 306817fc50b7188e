//! The registry over restarts, copies, damage and wrong folders.

use ebb_types::{
    AgentId, AgentInfo, FrameworkInfo, Limits, Machine, MaintenanceMode, OperationId,
    OperationState, OperationStatus, Quantities, ResourceKind, Unavailability, UpdateUuid, Window,
};

use super::*;
use crate::core::record::{Activity, AgentRecord, FrameworkRecord, OperationRecord};

fn framework(id: &str) -> FrameworkRecord {
    FrameworkRecord {
        info: FrameworkInfo {
            id: FrameworkId::new(id).ok(),
            name: format!("name of {id}"),
            user: String::from("u"),
            roles: vec![Role::new("a/b").unwrap()],
            failover_timeout_ms: 7,
            hostname: String::from("h"),
            principal: String::from("p"),
            webui_url: String::new(),
            capabilities: vec![ebb_types::Capability::PartitionAware],
            labels: vec![(String::from("k"), String::from("v"))],
        },
        registered_at: Timestamp::from_ms(5),
        failover_deadline: Some(Timestamp::from_ms(9)),
    }
}

fn agent(id: &str) -> AgentRecord {
    AgentRecord {
        info: AgentInfo {
            id: AgentId::new(id).ok(),
            hostname: String::from("h"),
            port: 5051,
            lots: ebb_types::Lots::NONE,
            lots_version: 0,
            total: Quantities::cpus_mem(1500, 1 << 30),
            attributes: Vec::new(),
            version: String::from("1"),
            domain: None,
        },
        registered_at: Timestamp::from_ms(5),
        unreachable_since: None,
        activity: Activity::Active,
    }
}

fn agent_that_is(id: &str, activity: Activity) -> RegistryWrite {
    RegistryWrite::PutAgent(AgentRecord {
        activity,
        ..agent(id)
    })
}

fn some_writes() -> Vec<RegistryWrite> {
    let id = |text| FrameworkId::new(text).unwrap();
    let at = Timestamp::from_ms;
    vec![
        RegistryWrite::PutFramework(framework("f1")),
        RegistryWrite::PutFramework(framework("f2")),
        RegistryWrite::PutFramework(framework("f3")),
        RegistryWrite::CompleteFramework {
            id: id("f3"),
            at: at(20),
        },
        RegistryWrite::CompleteFramework {
            id: id("f2"),
            at: at(30),
        },
        RegistryWrite::CompleteFramework {
            id: id("f0"),
            at: at(10),
        },
        RegistryWrite::ForgetFramework(id("f0")),
        RegistryWrite::PutAgent(agent("a")),
        agent_that_is("b", Activity::Drained),
        RegistryWrite::RemoveAgent(AgentId::new("b").unwrap()),
        RegistryWrite::PutAgent(agent("b")),
        agent_that_is("c", Activity::Deactivated),
        agent_that_is("d", Activity::Draining { max_grace_ms: None }),
        agent_that_is(
            "e",
            Activity::Draining {
                max_grace_ms: Some(0),
            },
        ),
        agent_that_is("f", Activity::Drained),
        agent_that_is("g", Activity::Drained),
        agent_that_is("g", Activity::Active),
        RegistryWrite::PutWeight {
            role: Role::new("r").unwrap(),
            weight_milli: 2500,
        },
        put_quota("r", some_quota()),
        put_quota("s", some_quota()),
        put_quota("s", Quota::default()),
        put_limits("r", &[("gpus", 4_000), ("ports", 0)]),
        put_limits("s", &[("gpus", 1_000)]),
        put_limits("s", &[]),
        put_window("h", MaintenanceMode::Scheduled),
        put_window("h", MaintenanceMode::Down),
        put_window("i", MaintenanceMode::Scheduled),
        RegistryWrite::RemoveWindow(Machine::host("i").unwrap()),
        put_operation("f", "a", OperationState::Pending),
        put_operation("f1", "a", OperationState::Pending),
        put_operation("f1", "a", OperationState::Finished),
        put_operation("f1", "b", OperationState::Pending),
        put_operation("f1", "c", OperationState::Error),
        RegistryWrite::RemoveOperation {
            framework_id: id("f1"),
            id: OperationId::new("oc").unwrap(),
        },
        // Of a completed framework nothing stays; of those whose ids begin or end like its, all.
        RegistryWrite::PutFramework(framework("f4")),
        put_operation("f4", "", OperationState::Pending),
        put_operation("f4", "z", OperationState::Pending),
        put_operation("f4x", "a", OperationState::Pending),
        RegistryWrite::CompleteFramework {
            id: id("f4"),
            at: at(40),
        },
    ]
}

fn put_operation(framework: &str, id: &str, state: OperationState) -> RegistryWrite {
    RegistryWrite::PutOperation(OperationRecord {
        framework_id: FrameworkId::new(framework).unwrap(),
        version: 3,
        status: OperationStatus {
            id: OperationId::new(format!("o{id}")).unwrap(),
            state,
            message: String::from("m"),
            agent_id: AgentId::new("a").ok(),
            uuid: Some(UpdateUuid([9; 16])),
        },
    })
}

fn put_limits(role: &str, limits: &[(&str, u64)]) -> RegistryWrite {
    let limits = limits
        .iter()
        .map(|(name, most)| ((*name).to_owned(), *most));
    RegistryWrite::PutLotLimits {
        role: Role::new(role).unwrap(),
        limits: LotLimits::new(limits).unwrap(),
    }
}

fn put_window(host: &str, mode: MaintenanceMode) -> RegistryWrite {
    RegistryWrite::PutWindow(Window {
        machine: Machine::host(host).unwrap(),
        unavailability: Unavailability {
            start: Timestamp::from_ms(40),
            duration_ms: None,
        },
        mode,
    })
}

fn some_quota() -> Quota {
    Quota {
        guarantee: Quantities::cpus_mem(1, 2),
        limits: Limits::NONE
            .with(ResourceKind::Cpus, Some(3))
            .with(ResourceKind::Disk, Some(0)),
        revocable_limits: Limits::NONE.with(ResourceKind::Mem, Some(0)),
    }
}

fn put_quota(role: &str, quota: Quota) -> RegistryWrite {
    RegistryWrite::PutQuota {
        role: Role::new(role).unwrap(),
        quota,
    }
}

#[test]
fn what_was_committed_is_found_again_and_every_term_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let first = {
        let mut registry = Embedded::open(folder.path()).unwrap();
        let first = registry.load().unwrap();
        registry.commit(&some_writes()).unwrap();
        first
    };
    let mut expected = first.clone();
    for write in some_writes() {
        expected.apply(write);
    }
    expected.generation = Generation(first.generation.0 + 1);
    assert_eq!(expected.operations.len(), 4);
    let again = Embedded::open(folder.path()).unwrap().load().unwrap();
    assert_eq!(again, expected);
    assert_eq!(first.cluster.len(), 12);
}

#[test]
fn a_copy_taken_at_any_moment_is_a_registry_as_after_a_kill() {
    // What a process that was killed leaves behind is the file as it stands: nothing is flushed at
    // the end. So a copy of the file, while the registry is open, must be readable.
    let folder = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let mut registry = Embedded::open(folder.path()).unwrap();
    registry.load().unwrap();
    for (count, write) in some_writes().into_iter().enumerate() {
        registry.commit(&[write]).unwrap();
        fs::copy(folder.path().join(FILE_NAME), copy.path().join(FILE_NAME)).unwrap();
        let mut killed = Embedded::open(copy.path()).unwrap();
        let mut expected = Restored::default();
        some_writes()
            .into_iter()
            .take(count + 1)
            .for_each(|write| expected.apply(write));
        let found = killed.load().unwrap();
        assert_eq!(found.frameworks, expected.frameworks);
        assert_eq!(found.agents, expected.agents);
        assert_eq!(found.operations.len(), expected.operations.len());
    }
}

fn refused(bytes: &[u8]) -> RegistryError {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE_NAME);
    fs::write(&path, bytes).unwrap();
    let error = Embedded::open(folder.path())
        .and_then(|mut registry| registry.load())
        .expect_err("taken for a registry");
    assert_eq!(fs::read(&path).unwrap(), bytes, "the file was changed");
    error
}

#[test]
fn a_file_that_is_no_registry_is_refused_and_left_alone() {
    for bytes in [b"hello".to_vec(), vec![0; 1 << 16], vec![0xa5; 1 << 20]] {
        let error = refused(&bytes);
        assert!(matches!(error, RegistryError::Corrupt { .. }), "{error:?}");
        assert!(error.to_string().contains("left as it is"), "{error}");
    }
}

#[test]
fn a_registry_that_was_cut_off_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE_NAME);
    let mut registry = Embedded::open(folder.path()).unwrap();
    registry.load().unwrap();
    registry.commit(&some_writes()).unwrap();
    drop(registry);
    let whole = fs::read(&path).unwrap();
    let error = refused(&whole[..whole.len() / 3]);
    assert!(matches!(error, RegistryError::Corrupt { .. }), "{error:?}");
}

#[test]
fn a_registry_of_another_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut registry = Embedded::open(folder.path()).unwrap();
    registry.load().unwrap();
    let transaction = registry.database.begin_write().unwrap();
    transaction
        .open_table(META)
        .unwrap()
        .insert(FORMAT_KEY, 99)
        .unwrap();
    transaction.commit().unwrap();
    let error = registry.load().unwrap_err();
    assert!(
        matches!(error, RegistryError::Version { found: 99, .. }),
        "{error:?}"
    );
}

#[test]
fn a_registry_has_one_master_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let _first = Embedded::open(folder.path()).unwrap();
    let error = Embedded::open(folder.path()).unwrap_err();
    assert!(matches!(error, RegistryError::InUse { .. }), "{error:?}");
}

#[test]
fn a_folder_that_cannot_be_used_is_named_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    for bad in [
        folder.path().join("no/such"),
        file.clone(),
        PathBuf::from("/proc/ebb"),
    ] {
        let error = Embedded::open(&bad).unwrap_err();
        assert!(matches!(error, RegistryError::Folder { .. }), "{error:?}");
        assert!(error.to_string().contains("--data-dir"), "{error}");
    }
    Embedded::open(&folder.path().join("new")).unwrap();
}
