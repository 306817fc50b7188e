//! How statuses are sent until the master has acknowledged them.

use super::*;

#[test]
fn a_status_is_sent_again_after_10_s_doubling_to_10_minutes_until_it_is_acknowledged() {
    let mut world = World::registered();
    world.launch(task("t"));
    let uuid = world.updates()[0].uuid;
    let mut waited = Vec::new();
    let mut since = 0;
    while waited.len() < 8 {
        world.wait(1_000);
        since += 1;
        let conn = Conn(world.conn);
        world.step(Input::FromMaster {
            conn,
            generation: Generation(1),
            message: MasterToAgent::Heartbeat,
        });
        // The tick before may have sent it.
        if world.core.counters().updates_retried > waited.len() as u64 {
            waited.push(since);
            since = 0;
        }
    }
    assert_eq!(waited, [10, 20, 40, 80, 160, 320, 600, 600]);
    world.acknowledge_uuid("t", uuid.expect("a uuid"));
    assert_eq!(world.core.pending_updates(), 0);
}

#[test]
fn an_acknowledgement_that_names_another_status_changes_nothing() {
    let mut world = World::registered();
    world.launch(task("t"));
    world.acknowledge_uuid("t", UpdateUuid([9; 16]));
    assert_eq!(world.core.counters().acknowledgements_ignored, 1);
    assert_eq!(world.core.pending_updates(), 1);
}
