//! Lots on the agent: what is held, which GPUs a container has, reservations and volumes over a restart.

use super::*;
use crate::core::DISKS_VARIABLE;
use crate::core::lots::{GPUS_VARIABLE, PORTS_VARIABLE, with_dynamic};
use ebb_types::{
    Disk, LotKey, LotValue, Lots, Reservation, ReservationKind, Volume, VolumeMode,
    WrittenResources,
};

fn lots(text: &str) -> Lots {
    text.parse::<WrittenResources>().expect("good").lots
}

fn reserved(name: &str, amount: u64, volume: Option<(&str, VolumeMode)>) -> Lots {
    let role = ebb_types::Role::new("eng/ci").expect("good");
    let key = LotKey {
        reservations: vec![Reservation {
            role,
            kind: ReservationKind::Dynamic,
            principal: String::new(),
            labels: Vec::new(),
        }],
        disk: volume.map(|(id, mode)| {
            Box::new(Disk {
                source: None,
                volume: Some(Volume {
                    id: id.to_owned(),
                    principal: String::new(),
                    container_path: "data".to_owned(),
                    mode,
                }),
            })
        }),
        ..LotKey::named(name)
    };
    Lots::new([(key, LotValue::Scalar(amount))]).expect("good")
}

fn with_lots(text: &str) -> World {
    let mut config = config();
    config.lots = lots(text);
    config.total = Quantities::cpus_mem(4000, 8 * GIB).with(ebb_types::ResourceKind::Disk, GIB);
    restarted(config, Restored::default(), 1)
}

fn restarted(config: CoreConfig, disk: Restored, life: u64) -> World {
    let mut world = World {
        core: Core::new(config, disk.clone(), Incarnation(life)),
        disk,
        now_ms: 1_000_000,
        conn: 0,
        effects: Vec::new(),
    };
    world.step(Input::Recovered {
        containers: BTreeMap::new(),
    });
    world.connect();
    world
}

fn order(world: &mut World, version: u64, dynamic: Lots) {
    world.order(MasterToAgent::Lots { version, dynamic });
}

fn using(name: &str, text: &str) -> TaskInfo {
    TaskInfo {
        lots: lots(text),
        ..task(name)
    }
}

/// The order that the last step launched a container with.
fn launched(world: &World) -> LaunchOrder {
    let mut orders = world.effects.iter().filter_map(|effect| match effect {
        Effect::Launch(order) => Some((**order).clone()),
        _ => None,
    });
    orders.next().expect("nothing was launched")
}

fn gpus(order: &LaunchOrder) -> &str {
    let mut variables = order.environment.iter();
    let found = variables.find(|(name, _)| name == GPUS_VARIABLE);
    found.map_or("", |(_, value)| value)
}

#[test]
fn a_container_is_told_its_ports_and_only_those() {
    let mut world = with_lots("ports:[1-9];zones:{a}");
    world.launch(using("a", "ports:[1-2,5]"));
    let ports = |world: &World| -> Vec<String> {
        let order = launched(world);
        let variables = order.environment.into_iter();
        let named = variables.filter(|(name, _)| name == PORTS_VARIABLE);
        named.map(|(_, value)| value).collect()
    };
    assert_eq!(ports(&world), ["1-2,5"]);
    world.launch(using("b", "zones:{a}"));
    assert_eq!(ports(&world), [""; 0]);
}

#[test]
fn a_task_is_not_started_on_ports_that_another_has() {
    let mut world = with_lots("ports:[1-4]");
    world.launch(using("a", "ports:[1-2]"));
    assert_eq!(world.core.lots_held(), &lots("ports:[1-2]"));
    world.launch(using("b", "ports:[2-3]"));
    assert!(
        world.did(|effect| matches!(effect, Effect::ToMaster { message, .. }
        if matches!(&**message, AgentToMaster::Update { status, .. }
            if status.state == TaskState::Dropped && status.message.contains("ports:[3-4]"))))
    );
    world.exited("a", ExitStatus::Code(0));
    world.launch(using("c", "ports:[2-3]"));
    assert_eq!(world.core.lots_held(), &lots("ports:[2-3]"));
}

#[test]
fn a_container_is_told_the_devices_that_it_has() {
    let mut world = with_lots("disk[block:fast]:1GiB;disk[raw:slow:hdd]:2GiB;ports:[1-2]");
    let told = |order: &LaunchOrder| {
        let mut variables = order.environment.iter();
        let found = variables.find(|(name, _)| name == DISKS_VARIABLE);
        found.map(|(_, value)| value.clone())
    };
    world.launch(using("a", "disk[block:fast]:1GiB"));
    let order = launched(&world);
    assert_eq!(told(&order).as_deref(), Some("fast=/dev/ebb/fast"));
    assert_eq!(order.devices, ["fast".to_owned()].into());
    world.launch(using("b", "disk[raw:slow:hdd]:2GiB"));
    assert_eq!(launched(&world).devices, ["slow".to_owned()].into());
    world.launch(using("c", "ports:[1-1]"));
    let order = launched(&world);
    assert_eq!((told(&order), order.devices.len()), (None, 0));
}

#[test]
fn each_container_is_given_gpus_of_its_own_and_keeps_them_over_a_restart() {
    let mut world = with_lots("gpus:3");
    world.launch(using("a", "gpus:1"));
    assert_eq!(gpus(&launched(&world)), "0");
    world.launch(using("b", "gpus:1"));
    assert_eq!(gpus(&launched(&world)), "1");
    world.launch(task("none"));
    assert_eq!(gpus(&launched(&world)), "void");
    world.exited("a", ExitStatus::Code(0));
    world.launch(using("c", "gpus:2"));
    assert_eq!(gpus(&launched(&world)), "0,2");
    let ids = ["b", "c", "none"].map(|name| (world.container(name), Found::Running));
    let mut config = config();
    config.lots = lots("gpus:4");
    let mut world = World {
        core: Core::new(config, world.disk.clone(), Incarnation(2)),
        ..world
    };
    world.step(Input::Recovered {
        containers: ids.into(),
    });
    world.connect();
    world.launch(using("d", "gpus:1"));
    assert_eq!(gpus(&launched(&world)), "3");
}

#[test]
fn reserved_cpus_and_memory_are_what_a_container_may_use() {
    let mut world = with_lots("cpus(eng):2;mem(eng):1GiB");
    let said = world.connect();
    let Some(AgentToMaster::Reregister { info, .. }) = said.first() else {
        panic!("{said:?}");
    };
    assert_eq!(info.total.cpu_milli(), 2000);
    let mut info = using("a", "cpus(eng):1.5;mem(eng):1GiB");
    info.resources = Resources::ZERO;
    world.launch(info);
    let order = launched(&world);
    assert_eq!(order.resources.total(ebb_types::ResourceKind::Cpus), 1500);
    assert_eq!(order.resources.total(ebb_types::ResourceKind::Mem), GIB);
    let mut plain = task("b");
    plain.resources = Resources::regular(Quantities::cpus_mem(3000, 0));
    world.launch(plain);
    assert!(!world.did(|effect| matches!(effect, Effect::Launch(_))));
}

#[test]
fn orders_about_lots_are_kept_on_disk_and_confirmed_once_they_are() {
    let mut world = with_lots("");
    let dynamic = reserved("cpus", 1000, None);
    order(&mut world, 1, dynamic.clone());
    let at = |is_meant: fn(&Effect) -> bool| world.effects.iter().position(is_meant);
    let kept = at(|effect| matches!(effect, Effect::Persist(_)));
    let told = at(|effect| {
        matches!(effect, Effect::ToMaster { message, .. }
        if **message == AgentToMaster::LotsApplied { version: 1 })
    });
    assert!(kept.is_some() && kept < told, "{:?}", world.effects);
    // A repetition changes nothing and is confirmed.
    order(&mut world, 1, Lots::NONE);
    assert_eq!(world.core.lots(), &dynamic);
    assert!(world.did(|effect| matches!(effect, Effect::ToMaster { .. })));
    let mut world = restarted(config(), world.disk.clone(), 2);
    assert_eq!(world.core.lots(), &dynamic);
    let said = world.connect();
    assert!(matches!(&said[0], AgentToMaster::Reregister { info, .. }
        if info.lots == dynamic && info.lots_version == 1 && info.total.cpu_milli() == 3000));
}

#[test]
fn an_order_that_does_not_fit_makes_the_agent_say_what_it_has() {
    let mut world = with_lots("ports:[1-4]");
    order(&mut world, 1, reserved("cpus", 9000, None));
    assert!(world.did(|effect| matches!(effect, Effect::Reconnect { .. })));
    assert_eq!(world.core.counters().lots_refused, 1);
    assert_eq!(world.core.lots(), &lots("ports:[1-4]"));
}

#[test]
fn a_volume_is_mounted_for_its_task_and_removed_when_it_is_destroyed() {
    let mut world = with_lots("");
    let volume = reserved("disk", GIB, Some(("v", VolumeMode::ReadWrite)));
    order(&mut world, 1, volume);
    let mut info = task("a");
    info.lots = reserved("disk", GIB, Some(("v", VolumeMode::ReadOnly)));
    world.launch(info);
    let order_of = launched(&world);
    assert_eq!(
        order_of.volumes,
        [VolumeMount {
            folder: "/var/ebb/ebb-volumes/c/eng ci/v".to_owned(),
            container_path: "data".to_owned(),
            read_only: true,
            shared: false,
        }]
    );
    order(&mut world, 2, Lots::NONE);
    assert!(
        world.did(|effect| matches!(effect, Effect::Reconnect { .. })),
        "it is in use"
    );
    world.connect();
    world.exited("a", ExitStatus::Code(0));
    order(&mut world, 3, Lots::NONE);
    let folder = "/var/ebb/ebb-volumes/c/eng ci/v".to_owned();
    assert!(world.did(|effect| *effect
        == Effect::RemoveVolume {
            folder: folder.clone()
        }));
}

#[test]
fn what_was_made_of_settings_that_are_gone_is_not_taken_over_silently() {
    let total = Quantities::cpus_mem(4000, 0);
    let dynamic = reserved("cpus", 1000, None);
    assert!(with_dynamic(&Lots::NONE, &total, &dynamic).is_ok());
    let less = Quantities::cpus_mem(500, 0);
    assert!(with_dynamic(&Lots::NONE, &less, &dynamic).is_err());
    let ports = Lots::new(
        reserved("x", 1000, None)
            .iter()
            .map(|(key, value)| (key.clone(), value.clone())),
    )
    .expect("good");
    assert!(with_dynamic(&Lots::NONE, &total, &ports).is_err());
    assert_eq!(
        with_dynamic(&lots("x:2.5"), &total, &ports).map(|all| all.to_string()),
        Ok("x:1.500;x(eng/ci):1".to_owned())
    );
}

#[test]
fn a_disk_that_is_a_device_is_not_divided() {
    let settings = lots("disk[block:fast]:2GiB");
    let of_eng = |gib: u64| {
        let one = |(key, _): (&LotKey, &LotValue)| {
            let mut key = key.clone();
            let of_cpus = reserved("cpus", 1, None);
            let (like, _) = of_cpus.iter().next().expect("one");
            key.reservations.clone_from(&like.reservations);
            (key, LotValue::Scalar(gib << 30))
        };
        Lots::new(settings.iter().map(one)).expect("good")
    };
    let made = |gib| with_dynamic(&settings, &Quantities::ZERO, &of_eng(gib));
    assert_eq!(made(2), Ok(of_eng(2)));
    let refused = made(1).expect_err("divided");
    assert!(
        refused.contains("fast") && refused.contains("as a whole"),
        "{refused}"
    );
}
