//! A network that ends in a network namespace, where requests are answered and streams are taken.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use ebb_tests_bench::monotonic_ns;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// What the network carries from the machine, in bytes a second, and how long its queue may become.
pub const CARRIES: u64 = 50_000_000;
const RATE: &str = "400mbit";
const QUEUE: &str = "50ms";
/// One packet that the machine hands over may be so large.
const BURST: &str = "100kb";
/// What a connection begins with: somebody who asks, the owner's stream, or another one.
pub const ASKS: u8 = b'?';
pub const OWNERS: u8 = b'o';
pub const OTHERS: u8 = b'f';
/// A request, and the answer.
pub const REQUEST_BYTES: usize = 1_024;
pub const ANSWER_BYTES: usize = 8;
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 213, 9, 1), Ipv4Addr::new(10, 213, 9, 2)];
const PORT: u16 = 9_000;

/// When so many bytes of the owner's stream came.
pub type Arrivals = Arc<Mutex<Vec<(u64, usize)>>>;

/// The network. Dropping it removes it.
pub struct Link {
    name: String,
    /// What came of the owner's streams.
    pub arrivals: Arrivals,
}

impl Link {
    /// Makes it.
    ///
    /// # Errors
    /// Without root, or where `ip` and `tc` cannot make it.
    pub fn new() -> Result<Self> {
        let link = Self {
            name: format!("ebbn{}", std::process::id()),
            arrivals: Arrivals::default(),
        };
        let name = link.name.as_str();
        let [near, far] = ADDRESSES.map(|address| format!("{address}/30"));
        run("ip", &["netns", "add", name])?;
        let pair = ["link", "add", name, "type", "veth", "peer", "name", "eth0"];
        run("ip", &[&pair[..], &["netns", name]].concat())?;
        run("ip", &["addr", "add", &near, "dev", name])?;
        run("ip", &["-n", name, "addr", "add", &far, "dev", "eth0"])?;
        run("ip", &["-n", name, "link", "set", "eth0", "up"])?;
        run("ip", &["link", "set", name, "up"])?;
        let add = ["qdisc", "add", "dev", name, "root", "tbf"];
        let shape = ["rate", RATE, "burst", BURST, "latency", QUEUE];
        run("tc", &[&add[..], &shape].concat())?;
        link.serve()?;
        Ok(link)
    }

    /// Where it is answered.
    pub fn address(&self) -> SocketAddr {
        SocketAddrV4::new(ADDRESSES[1], PORT).into()
    }

    /// Bytes that have left the machine through it, with all headers.
    ///
    /// # Errors
    /// When it is gone.
    pub fn sent(&self) -> Result<u64> {
        let path = PathBuf::from("/sys/class/net").join(&self.name);
        let text = fs::read_to_string(path.join("statistics/tx_bytes"))?;
        text.trim().parse().context("the bytes that were sent")
    }

    fn serve(&self) -> Result<()> {
        let space = File::open(PathBuf::from("/run/netns").join(&self.name))?;
        let address = self.address();
        let arrivals = Arc::clone(&self.arrivals);
        let (tell, told): (Sender<Result<()>>, Receiver<_>) = channel();
        std::thread::spawn(move || {
            let listener = enter(&space).and_then(|()| Ok(TcpListener::bind(address)?));
            let listener = match listener {
                Ok(listener) => listener,
                Err(error) => return tell.send(Err(error)).is_ok(),
            };
            let is_awaited = tell.send(Ok(())).is_ok();
            for stream in listener.incoming().filter_map(Result::ok) {
                let arrivals = Arc::clone(&arrivals);
                // A peer that is gone ends it.
                std::thread::spawn(move || take(stream, &arrivals).is_ok());
            }
            is_awaited
        });
        told.recv().context("the namespace is not served")?
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for arguments in [["link", "del"], ["netns", "del"]] {
            if let Err(error) = run("ip", &[arguments[0], arguments[1], &self.name]) {
                eprintln!("{error:#}");
            }
        }
    }
}

fn enter(space: &File) -> Result<()> {
    move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))
        .context("the namespace cannot be entered")
}

fn take(mut stream: TcpStream, arrivals: &Arrivals) -> Result<()> {
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    if kind[0] == ASKS {
        stream.set_nodelay(true)?;
        let mut request = [0; REQUEST_BYTES];
        loop {
            stream.read_exact(&mut request)?;
            stream.write_all(&request[..ANSWER_BYTES])?;
        }
    }
    let mut bytes = vec![0; 256 << 10];
    loop {
        let came = stream.read(&mut bytes)?;
        ensure!(came > 0, "the stream has ended");
        if kind[0] == OWNERS {
            let mut arrivals = arrivals.lock().unwrap_or_else(PoisonError::into_inner);
            arrivals.push((monotonic_ns(), came));
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let status = Command::new(program).args(arguments).status();
    let status = status.with_context(|| format!("cannot start {program}"))?;
    let words = arguments.join(" ");
    ensure!(
        status.success(),
        "{program} {words} did not succeed; it needs root"
    );
    Ok(())
}
