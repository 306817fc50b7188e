//! Limits hold: CPU, memory, processes, disk; and revocable containers yield.

use std::fs;
use std::time::{Duration, Instant};

use ebb_agent::cgroup::{BlockDevice, CgroupError, Controller, DiskLimits, Hierarchy, Limits};
use ebb_agent::runtime::{ExitRecord, LaunchRequest, Outcome};

use crate::host::{Host, Running, program, shell, until};

fn limited(request: LaunchRequest, change: impl FnOnce(&mut Limits)) -> LaunchRequest {
    let mut request = request;
    change(&mut request.limits);
    request
}

/// What may be used beyond a CPU limit: an emulated processor's ticks, at which the kernel enforces it, come late.
fn beyond(most: f64) -> f64 {
    let emulated = std::env::var_os("EBB_SLOWDOWN").is_some();
    if emulated { most * 2.0 } else { most }
}

/// CPU time over wall time.
fn share(record: &ExitRecord) -> f64 {
    let usage = record.usage.expect("a usage");
    let wall_ms = record.finished_at_ms - record.started_at_ms.expect("a start");
    (usage.user_us + usage.system_us) as f64 / 1_000.0 / wall_ms as f64
}

#[test]
fn a_task_beyond_its_memory_is_killed_and_marked() {
    let host = Host::new();
    let direct = limited(program(&["tail", "/dev/zero"]), |l| {
        l.mem_bytes = Some(32 << 20)
    });
    let (record, _, _) = host.run(&direct);
    assert_eq!(record.outcome, Outcome::Signaled { signal: 9 });
    assert!(record.oom_killed(), "{record:?}");
    assert!(
        record.usage.is_some_and(|u| u.max_rss_bytes < 40 << 20),
        "{record:?}"
    );

    let child = limited(shell("tail /dev/zero; exit 9"), |l| {
        l.mem_bytes = Some(32 << 20)
    });
    let (record, _, _) = host.run(&child);
    // On v2 the container ends as a whole, and the kernel counts each of its tasks, the one it chose twice.
    assert!(
        record.oom_killed() && record.oom_kills >= Some(1),
        "{record:?}"
    );

    let modest = limited(shell("head -c 4m /dev/zero | tail > /dev/null"), |l| {
        l.mem_bytes = Some(32 << 20)
    });
    let (record, _, _) = host.run(&modest);
    assert_eq!(
        (record.outcome, record.oom_kills),
        (Outcome::Exited { code: 0 }, Some(0))
    );
    host.finish();
}

#[test]
fn a_cpu_limit_holds_and_a_throttle_is_lifted_to_it() {
    let host = Host::new();
    let spin = "timeout 2 sh -c 'while :; do :; done'; true";
    let request = limited(shell(spin), |l| l.cpu_limit_milli = Some(200));
    let (record, _, _) = host.run(&request);
    let held = share(&record);
    println!("limit of 200 milli: {:.0} milli used", held * 1e3);
    assert!((0.08..=beyond(0.25)).contains(&held), "{held}");

    let free = limited(shell("while :; do :; done"), |_| ());
    let running = host.start(&free);
    let quota = || cpu_quota(&running);
    let unlimited = quota();
    running.container.throttle(Some(100)).expect("throttled");
    // The interval is what is measured: a throttle holds on average over the kernel's periods.
    let (start, before) = (Instant::now(), cpu_us(&running));
    std::thread::sleep(Duration::from_secs(1));
    let used = (cpu_us(&running) - before) as f64 / start.elapsed().as_micros() as f64;
    println!("throttled to 100 milli: {:.0} milli used", used * 1e3);
    assert!((0.03..=beyond(0.15)).contains(&used), "{used}");
    assert_ne!(quota(), unlimited);
    running.container.throttle(None).expect("lifted");
    assert_eq!(quota(), unlimited);
    running.executor.kill(&running.container).expect("asked");
    running.wait_and_destroy();
    host.finish();
}

/// CPU time of the command's process, in microseconds, to the clock tick.
fn cpu_us(running: &Running) -> u64 {
    let schedstat =
        fs::read_to_string(format!("/proc/{}/schedstat", running.task_pid())).expect("a status");
    schedstat
        .split_whitespace()
        .next()
        .expect("a number")
        .parse::<u64>()
        .expect("a number")
        / 1_000
}

#[test]
fn a_running_container_grows_and_shrinks() {
    let host = Host::new();
    let request = limited(
        shell(
            "mkfifo go; echo r > ready; read line < go; head -c 48m /dev/zero | tail > /dev/null && echo fits",
        ),
        |l| l.mem_bytes = Some(16 << 20),
    );
    let running = host.start(&request);
    let mut limits = running.container.limits();
    for (mem_bytes, cpu_limit_milli) in [
        (Some(128 << 20), Some(900)),
        (None, None),
        (Some(96 << 20), Some(800)),
    ] {
        (limits.mem_bytes, limits.cpu_limit_milli) = (mem_bytes, cpu_limit_milli);
        running.container.resize(&limits).expect("resized");
        assert_eq!(running.container.limits(), limits);
    }
    let quota = || cpu_quota(&running);
    running.container.throttle(Some(5_000)).expect("throttled");
    assert!(
        quota().starts_with("80000"),
        "a throttle never gives more than the limit: {}",
        quota()
    );
    running.container.throttle(Some(400)).expect("throttled");
    limits.cpu_limit_milli = None;
    running.container.resize(&limits).expect("resized");
    assert!(
        quota().starts_with("40000"),
        "a throttle outlasts another limit: {}",
        quota()
    );
    running.container.throttle(None).expect("lifted");
    assert!(
        quota().starts_with("-1") || quota().starts_with("max"),
        "{}",
        quota()
    );
    until("the pipe", || host.output(&request, "ready") == "r\n");
    fs::write(host.sandbox(&request).join("go"), "go\n").expect("written");
    let record = running.wait_and_destroy();
    assert_eq!(
        (record.outcome, record.oom_kills),
        (Outcome::Exited { code: 0 }, Some(0))
    );
    assert_eq!(host.output(&request, "stdout"), "fits\n");
    host.finish();
}

/// What the kernel says about a container's quota.
fn cpu_quota(running: &Running) -> String {
    let paths = running.container.paths();
    let path = match paths.v1.get(&Controller::Cpu) {
        Some(dir) => dir.join("cpu.cfs_quota_us"),
        None => paths.v2.expect("v2").join("cpu.max"),
    };
    fs::read_to_string(path).expect("a quota").trim().to_owned()
}

#[test]
fn revocable_work_yields_the_cpu() {
    let host = Host::new();
    let spinner = || shell("exec taskset -c 0 sh -c 'while :; do :; done'");
    let revocable = host.start(&limited(spinner(), |l| {
        (l.revocable, l.cpu_milli) = (true, 2_000)
    }));
    until("the revocable spinner", || cpu_us(&revocable) > 50_000);
    let adj = fs::read_to_string(format!("/proc/{}/oom_score_adj", revocable.task_pid()))
        .expect("a score");
    assert_eq!(adj.trim(), "1000");
    let firm = host.start(&limited(spinner(), |l| l.cpu_milli = 100));
    until("the firm spinner", || cpu_us(&firm) > 50_000);
    // The interval is what is measured: the shares of the two in it.
    let (r, f) = (cpu_us(&revocable), cpu_us(&firm));
    std::thread::sleep(Duration::from_secs(1));
    let (r, f) = (cpu_us(&revocable) - r, cpu_us(&firm) - f);
    println!(
        "in one second on one CPU: firm {f} us (weight of 100 milli), revocable {r} us (of 2,000 milli)"
    );
    assert!(f > 0 && r * 10 < f, "firm {f} us, revocable {r} us");
    let listed = host.runtime.cgroups().list().expect("a list");
    assert_eq!(listed.iter().filter(|l| l.revocable).count(), 1);
    for running in [&revocable, &firm] {
        running.executor.kill(&running.container).expect("asked");
        running.wait_and_destroy();
    }
    host.finish();
}

#[test]
fn the_number_of_processes_is_limited() {
    let host = Host::new();
    let request = limited(
        shell("for i in $(seq 40); do sleep 1000 & done; echo all; sleep 1000"),
        |l| l.pids = Some(12),
    );
    let running = host.start(&request);
    until("a refused fork", || {
        host.output(&request, "stderr").contains("fork")
    });
    assert!(running.container.procs().expect("a list").len() <= 12);
    running.executor.kill(&running.container).expect("asked");
    running.wait_and_destroy();
    host.finish();
}

#[test]
fn disk_bandwidth_is_limited() {
    let host = Host::new();
    let device = BlockDevice::behind(host.work.path()).expect("a disk behind the folder");
    let write = "dd if=/dev/zero of=big bs=1M count=8 oflag=direct";
    let free = host.run(&shell(write)).0;
    let disk = DiskLimits {
        device,
        read_bytes_per_sec: None,
        write_bytes_per_sec: Some(4 << 20),
    };
    let held = host.run(&limited(shell(write), |l| l.disk = Some(disk))).0;
    let ms = |r: &ExitRecord| r.finished_at_ms - r.started_at_ms.expect("a start");
    println!("8 MiB: {} ms free, {} ms at 4 MiB/s", ms(&free), ms(&held));
    assert_eq!(
        (free.outcome.clone(), held.outcome.clone()),
        (Outcome::Exited { code: 0 }, Outcome::Exited { code: 0 })
    );
    assert!(ms(&held) >= 1_500, "{} ms", ms(&held));
    host.finish();
}

#[test]
fn memory_that_is_only_cached_is_reclaimed_and_its_owner_goes_on() {
    const CACHED: u64 = 48 << 20;
    const LEFT: u64 = 16 << 20;
    let host = Host::new();
    // It reads the same again and again, and tells of each time.
    let reads = "head -c 48m /dev/zero > big && sync && while cat big > /dev/null; do echo; done";
    let request = shell(reads);
    let running = host.start(&request);
    let paths = running.container.paths();
    let v1 = paths.v1.get(&Controller::Memory);
    let read = |file: &str| -> u64 {
        let folder = v1.or(paths.v2.as_ref()).expect("a folder");
        let text = fs::read_to_string(folder.join(file)).expect(file);
        text.trim().parse().unwrap_or(u64::MAX)
    };
    let reads = || host.output(&request, "stdout").len();
    if v1.is_some() {
        // The kernel takes it once the machine runs short.
        let kept = || read("memory.soft_limit_in_bytes");
        let unlimited = kept();
        running.container.reclaim_memory(Some(LEFT)).expect("asked");
        assert_eq!(kept(), LEFT);
        running.container.reclaim_memory(None).expect("lifted");
        assert_eq!(kept(), unlimited);
    } else {
        let held = || read("memory.current");
        until("a full cache", || held() >= CACHED && reads() > 0);
        running.container.reclaim_memory(Some(LEFT)).expect("asked");
        println!("{} of {CACHED} bytes are left", held());
        let before = reads();
        for times in 1..=3 {
            until("the next time", || reads() >= before + times);
            assert!(held() <= LEFT + LEFT / 4, "{} bytes", held());
        }
        running.container.reclaim_memory(None).expect("lifted");
        assert_eq!(read("memory.high"), u64::MAX);
        until("a full cache again", || held() >= CACHED);
    }
    running.executor.kill(&running.container).expect("asked");
    let record = running.wait_and_destroy();
    assert_eq!(record.oom_kills, Some(0));
    host.finish();
}

#[test]
fn a_container_has_an_id_and_paths_for_the_sampler() {
    let host = Host::new();
    let running = host.start(&program(&["sleep", "1000"]));
    let (paths, mounts) = (
        running.container.paths(),
        host.runtime.cgroups().mounts().clone(),
    );
    println!("{} host, container {:?}", mounts.hierarchy(), paths);
    let pid = running.task_pid();
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its cgroups");
    if mounts.hierarchy() != Hierarchy::V2 {
        for controller in paths.v1.keys() {
            let name = controller.v1_name();
            let line = own.lines().find(|l| {
                l.split(':')
                    .nth(1)
                    .is_some_and(|c| c.split(',').any(|c| c == name))
            });
            assert!(
                line.expect(name).ends_with(running.container.id()),
                "{name}: {line:?}"
            );
        }
    }
    let unified = own
        .lines()
        .find_map(|l| l.strip_prefix("0::"))
        .expect("a v2 line");
    assert!(unified.ends_with(running.container.id()), "{unified}");
    assert_eq!(
        unified.split('/').count() - 1,
        host.runtime.cgroups().container_level() as usize
    );
    let id = running
        .container
        .cgroup_id()
        .expect("an answer")
        .expect("v2 is mounted");
    let inode = std::os::unix::fs::MetadataExt::ino(
        &fs::metadata(paths.v2.expect("v2")).expect("a folder"),
    );
    assert_eq!(id, inode);
    assert!(running.container.procs().expect("a list").contains(&pid));
    let again = host
        .runtime
        .cgroups()
        .create(running.container.id(), &Limits::default());
    assert!(matches!(again, Err(CgroupError::Exists { .. })));
    running.executor.kill(&running.container).expect("asked");
    running.wait_and_destroy();
    host.finish();
}
