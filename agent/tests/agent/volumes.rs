//! Volumes in real containers.

use ebb_types::{AgentToMaster, MasterToAgent, TaskState};

use crate::stage::{MIB, Stage, first_in, task};

/// A volume of 64 MiB as a task sees it at `data`.
fn volume(mode: ebb_types::VolumeMode) -> ebb_types::Lots {
    use ebb_types::{Disk, LotKey, LotValue, Lots, Reservation, ReservationKind, Role, Volume};
    let key = LotKey {
        reservations: vec![Reservation {
            role: Role::new("eng").unwrap(),
            kind: ReservationKind::Dynamic,
            principal: String::new(),
            labels: Vec::new(),
        }],
        disk: Some(Box::new(Disk {
            source: None,
            volume: Some(Volume {
                id: "v".to_owned(),
                principal: String::new(),
                container_path: "data".to_owned(),
                mode,
            }),
        })),
        ..LotKey::named("disk")
    };
    Lots::new([(key, LotValue::Scalar(64 * MIB))]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_outlives_its_task_and_the_agent_and_ends_with_its_order() {
    use ebb_types::VolumeMode;
    let mut stage = Stage::open("volume").await;
    let dynamic = volume(VolumeMode::ReadWrite);
    let order = |version, dynamic| MasterToAgent::Lots { version, dynamic };
    stage.say(order(1, dynamic.clone())).await;
    let mut writer = task(
        "writer",
        "echo kept > data/file; ls data; echo $NVIDIA_VISIBLE_DEVICES",
    );
    writer.lots = dynamic.clone();
    stage.launch_info(writer).await;
    let end = stage.await_end("writer").await;
    assert_eq!(end.state, TaskState::Finished, "{end:?}");
    let said = stage.read("writer", "stdout", false).await.unwrap();
    assert_eq!(said, "file\nvoid\n");
    // The volume stood in the container's view alone.
    let place = stage.run("writer").sandbox().join("data");
    assert!(std::fs::read_dir(place).unwrap().next().is_none());

    stage.kill_agent();
    stage.start_agent();
    let registration = stage.await_registration().await;
    let AgentToMaster::Reregister { info, .. } = registration else {
        panic!("{registration:?}");
    };
    assert_eq!(info.lots_version, 1);
    assert!(info.lots.contains(&dynamic), "{}", info.lots);

    let mut reader = task(
        "reader",
        "cat data/file; touch data/other || echo protected; echo $NVIDIA_VISIBLE_DEVICES",
    );
    let gpu: ebb_types::WrittenResources = "gpus:1".parse().unwrap();
    reader.lots = volume(VolumeMode::ReadOnly).checked_add(&gpu.lots).unwrap();
    stage.launch_info(reader).await;
    assert_eq!(stage.await_end("reader").await.state, TaskState::Finished);
    let said = stage.read("reader", "stdout", false).await.unwrap();
    assert_eq!(said, "kept\nprotected\n0\n");

    let volumes = stage.work_dir().join("ebb-volumes");
    let of_role = volumes.join(first_in(&volumes)).join("eng");
    assert!(of_role.join("v/file").exists());
    stage.say(order(2, ebb_types::Lots::NONE)).await;
    stage
        .until("the volume's end", || {
            std::fs::read_dir(&of_role).unwrap().next().is_none()
        })
        .await;
    stage.close().await;
}
