//! Disks that are devices: a container has those that it was given, and no other. On loop devices of files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ebb_agent::runtime::{DeviceSpec, LaunchRequest, Outcome};

use crate::host::{Host, program, shell, until};

/// Bytes of a device.
const SIZE_BYTES: u64 = 1 << 20;
/// Others take loop devices, too: how often one that was free is asked for.
const ATTEMPTS: u32 = 20;

/// A loop device, until it is dropped.
struct Loop {
    device: PathBuf,
    // The device is of this file.
    _file: tempfile::NamedTempFile,
}

impl Loop {
    fn new(content: &str) -> Self {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mut bytes = content.as_bytes().to_vec();
        bytes.resize(SIZE_BYTES as usize, 0);
        fs::write(file.path(), bytes).expect("written");
        // In two steps, as busybox has it, too.
        for _ in 0..ATTEMPTS {
            let free = losetup(&[Path::new("-f")]);
            let name = String::from_utf8(free.stdout).expect("a name");
            let device = PathBuf::from(name.trim());
            if losetup(&[&device, file.path()]).status.success() {
                return Self {
                    device,
                    _file: file,
                };
            }
        }
        panic!("this test needs loop devices, and losetup gives it none");
    }

    fn content(&self, bytes: usize) -> String {
        let all = fs::read(&self.device).expect("readable");
        String::from_utf8(all[..bytes].to_vec()).expect("a text")
    }

    /// A node of it somewhere else.
    fn node(&self, path: &Path) {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let number = fs::metadata(&self.device).expect("there").rdev();
        mknodat(
            CWD,
            path,
            FileType::BlockDevice,
            Mode::from_raw_mode(0o666),
            number,
        )
        .expect("a node");
    }
}

fn losetup(arguments: &[&Path]) -> Output {
    let mut command = Command::new("losetup");
    command.args(arguments);
    command.output().expect("losetup runs: this test needs it")
}

impl Drop for Loop {
    fn drop(&mut self) {
        let ended = losetup(&[Path::new("-d"), &self.device]);
        if !ended.status.success() {
            eprintln!("left behind: {} ({ended:?})", self.device.display());
        }
    }
}

fn with(request: LaunchRequest, devices: &[(&str, &Path)]) -> LaunchRequest {
    let devices = devices.iter().map(|(name, path)| DeviceSpec {
        name: (*name).to_owned(),
        path: (*path).to_owned(),
    });
    LaunchRequest {
        devices: Some(devices.collect()),
        ..request
    }
}

fn nobody(request: LaunchRequest) -> LaunchRequest {
    LaunchRequest {
        user: Some("nobody".to_owned()),
        ..request
    }
}

fn number(device: &Path) -> String {
    let rdev = fs::metadata(device).expect("there").rdev();
    format!("{} {}", rustix::fs::major(rdev), rustix::fs::minor(rdev))
}

#[test]
fn a_container_reads_and_writes_the_device_that_it_has_as_root_and_as_another() {
    let (host, disk) = (Host::new(), Loop::new("on the disk"));
    let use_it = "test -b /dev/ebb/fast && head -c 11 /dev/ebb/fast && \
                  printf 'from within' | dd of=/dev/ebb/fast conv=notrunc,fsync status=none";
    let devices = [("fast", disk.device.as_path())];
    let (record, stdout, stderr) = host.run(&with(shell(use_it), &devices));
    assert_eq!(record.outcome, Outcome::Exited { code: 0 }, "{stderr}");
    assert_eq!(stdout, "on the disk");
    let (record, stdout, stderr) = host.run(&nobody(with(shell(use_it), &devices)));
    assert_eq!(record.outcome, Outcome::Exited { code: 0 }, "{stderr}");
    assert_eq!(stdout, "from within");
    assert_eq!(disk.content(11), "from within");
    assert!(
        !Path::new("/dev/ebb").exists(),
        "nothing is seen outside of the container"
    );
    host.finish();
}

#[test]
fn no_other_device_can_be_reached_not_even_by_root() {
    let (host, mine, other) = (Host::new(), Loop::new("mine"), Loop::new("other"));
    let devices = [("mine", mine.device.as_path())];
    let seen = "find /dev -type b | sort";
    let (record, stdout, _) = host.run(&with(shell(seen), &devices));
    assert_eq!(record.outcome, Outcome::Exited { code: 0 });
    assert_eq!(stdout, "/dev/ebb/mine\n");
    // Without its own /dev the container sees both: what is checked is not that there are none.
    let (_, stdout, _) = host.run(&shell(seen));
    for device in [&mine.device, &other.device] {
        assert!(
            stdout.contains(device.to_str().expect("a name")),
            "{stdout}"
        );
    }
    let numbers = number(&other.device);
    for attempt in [
        format!("cat {}", other.device.display()),
        format!("mknod node b {numbers}"),
        format!("mknod /dev/node b {numbers}"),
        "umount -l /dev".to_owned(),
        "mount -t devtmpfs devtmpfs /mnt".to_owned(),
        "unshare --mount true".to_owned(),
        "ls /proc/1/root/dev".to_owned(),
        "echo 1 > /proc/sys/vm/drop_caches".to_owned(),
        "echo h > /proc/sysrq-trigger".to_owned(),
    ] {
        let (record, stdout, _) = host.run(&with(shell(&attempt), &devices));
        let Outcome::Exited { code } = record.outcome else {
            panic!("{attempt}: {:?}", record.outcome);
        };
        let found = stdout.contains("loop");
        assert!(code != 0 && !found, "{attempt}: {code}, {stdout}");
    }
    // And one that has none has none.
    let (_, stdout, _) = host.run(&with(shell("find /dev -type b | wc -l"), &[]));
    assert_eq!(stdout, "0\n");
    host.finish();
}

#[test]
fn what_everybody_may_use_is_there() {
    let (host, disk) = (Host::new(), Loop::new(""));
    let devices = [("d", disk.device.as_path())];
    let script = "echo lost > /dev/null && head -c 4 /dev/zero | wc -c && head -c 4 /dev/urandom | wc -c && \
                  echo err > /dev/stderr && test -d /dev/pts && echo shared > /dev/shm/file && cat /dev/shm/file";
    for request in [shell(script), nobody(shell(script))] {
        let (record, stdout, stderr) = host.run(&with(request, &devices));
        assert_eq!(record.outcome, Outcome::Exited { code: 0 }, "{stderr}");
        assert_eq!(
            (stdout.as_str(), stderr.as_str()),
            ("4\n4\nshared\n", "err\n")
        );
    }
    host.finish();
}

#[test]
fn two_containers_at_once_have_each_its_own_and_what_they_wrote_stays() {
    let (host, one, other) = (Host::new(), Loop::new("first"), Loop::new("other"));
    let script = |name: &str, word: &str| {
        format!(
            "find /dev/ebb -type b; head -c 5 /dev/ebb/{name}; \
             printf {word} | dd of=/dev/ebb/{name} conv=notrunc,fsync 2> /dev/null; \
             mkfifo go; touch done; read word < go"
        )
    };
    let requests = [("one", "ALPHA", &one), ("two", "OMEGA", &other)].map(|(name, word, disk)| {
        with(shell(&script(name, word)), &[(name, disk.device.as_path())])
    });
    let running = [host.start(&requests[0]), host.start(&requests[1])];
    for request in &requests {
        let done = host.sandbox(request).join("done");
        until("both have written", || done.exists());
    }
    for request in &requests {
        fs::write(host.sandbox(request).join("go"), "go\n").expect("released");
    }
    for one in running {
        let record = one.wait_and_destroy();
        assert_eq!(record.outcome, Outcome::Exited { code: 0 });
    }
    assert_eq!(host.output(&requests[0], "stdout"), "/dev/ebb/one\nfirst");
    assert_eq!(host.output(&requests[1], "stdout"), "/dev/ebb/two\nother");
    assert_eq!(
        (one.content(5), other.content(5)),
        ("ALPHA".into(), "OMEGA".into())
    );
    // The next that has it finds that.
    let next = with(
        shell("head -c 5 /dev/ebb/next"),
        &[("next", one.device.as_path())],
    );
    let (_, stdout, _) = host.run(&next);
    assert_eq!(stdout, "ALPHA");
    host.finish();
}

#[test]
fn a_node_that_stands_elsewhere_opens_only_what_the_container_has() {
    let (host, mine, other) = (Host::new(), Loop::new("mine!"), Loop::new("other"));
    let nodes = [&mine, &other].map(|disk| {
        let name = disk.device.file_name().expect("a name");
        let path = host.work.path().join(name);
        disk.node(&path);
        path
    });
    let devices = [("mine", mine.device.as_path())];
    let read = |path: &Path| shell(&format!("head -c 5 {}", path.display()));
    let (_, stdout, _) = host.run(&with(read(&nodes[0]), &devices));
    assert_eq!(stdout, "mine!");
    for devices in [&devices[..], &[]] {
        let (record, stdout, stderr) = host.run(&with(read(&nodes[1]), devices));
        assert_eq!(stdout, "", "{record:?}");
        assert!(stderr.contains("not permitted"), "{stderr}");
    }
    // By its file's rights everybody may: it is the filter that refuses.
    let (_, stdout, _) = host.run(&read(&nodes[1]));
    assert_eq!(stdout, "other");
    host.finish();
}

#[test]
fn a_container_cannot_leave_the_cgroup_that_filters_its_devices() {
    let (host, disk) = (Host::new(), Loop::new("other"));
    let mounts = host.runtime.cgroups().mounts();
    let above = mounts.v2().expect("cgroup v2").join("cgroup.procs");
    let node = host.work.path().join("node");
    disk.node(&node);
    let escape = format!("echo 0 > {}; head -c 5 {}", above.display(), node.display());
    let (_, stdout, stderr) = host.run(&with(shell(&escape), &[]));
    assert!(
        stdout.is_empty() && stderr.contains("ead-only"),
        "{stdout} {stderr}"
    );
    // Without devices root still may, as the head of the runtime says.
    let (_, stdout, _) = host.run(&shell(&escape));
    assert_eq!(stdout, "other");
    host.finish();
}

#[test]
fn the_rights_that_lead_to_devices_are_gone_and_the_others_are_not() {
    let host = Host::new();
    let bounding = |request: &LaunchRequest| {
        let (_, stdout, _) = host.run(request);
        u64::from_str_radix(stdout.trim(), 16).expect("a mask")
    };
    let line = "sed -n 's/^CapEff:[^0-9a-f]*//p' /proc/self/status";
    let (kept, all) = (bounding(&with(shell(line), &[])), bounding(&shell(line)));
    // Beside SYS_MODULE: DAC_READ_SEARCH, SYS_RAWIO, SYS_PTRACE, SYS_ADMIN, SYS_BOOT, MKNOD, PERFMON, BPF.
    let given_up = [2, 16, 17, 19, 21, 22, 27, 38, 39].map(|bit| 1 << bit);
    let given_up = given_up.iter().fold(0, |sum, bit: &u64| sum | bit);
    assert_eq!(kept, all & !given_up, "{kept:x} of {all:x}");
    assert_ne!(kept, all);
    host.finish();
}

/// What programs commonly want of `/dev`: shared memory, terminals, chance, and nothing.
const PYTHON: &str = "
import multiprocessing, os, pty, threading, urllib.request, http.server
server = http.server.HTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
with open(os.devnull, 'w') as null: null.write('x')
with open('/dev/urandom', 'rb') as chance: assert len(chance.read(8)) == 8
with multiprocessing.Pool(2) as pool: assert pool.map(abs, [-1, 2]) == [1, 2]
child, terminal = pty.fork()
if child == 0:
    with open('/dev/tty', 'w') as tty: tty.write('tide')
    os._exit(0)
assert os.read(terminal, 4) == b'tide' and os.waitpid(child, 0)[1] == 0
print(urllib.request.urlopen('http://127.0.0.1:%d/' % server.server_port).status)
";

#[test]
fn python_and_apt_run_beside_devices() {
    let (host, disk) = (Host::new(), Loop::new(""));
    let devices = [("d", disk.device.as_path())];
    let python = format!("python3 -c \"{PYTHON}\" 2> log || {{ cat log >&2; exit 1; }}");
    let apt = "apt-get -o Debug::NoLocking=1 check > out && mkdir -p p/DEBIAN p/tide r/var/lib/dpkg/info && \
               printf 'Package: tide\\nVersion: 1\\nArchitecture: all\\nMaintainer: x\\nDescription: x\\n' > p/DEBIAN/control && \
               dpkg-deb -b p x.deb > out && touch r/var/lib/dpkg/status && dpkg --root=$PWD/r -i x.deb > out && \
               test -d r/tide && echo installed";
    for (script, said) in [(python.as_str(), "200\n"), (apt, "installed\n")] {
        let (record, stdout, stderr) = host.run(&with(shell(script), &devices));
        assert_eq!(
            record.outcome,
            Outcome::Exited { code: 0 },
            "{script}: {stderr}"
        );
        assert_eq!(stdout, said, "{script}: {stderr}");
    }
    host.finish();
}

#[test]
fn a_device_that_is_gone_is_named_and_nothing_is_left() {
    let host = Host::new();
    let devices = [("fast", Path::new("/dev/no-such-device"))];
    let error = host
        .runtime
        .launch(&with(program(&["true"]), &devices))
        .expect_err("launched")
        .to_string();
    assert!(
        error.contains("/dev/no-such-device") && error.contains("fast"),
        "{error}"
    );
    host.finish();
}
